"""The trusted side of a program: runs the tests against a program in another process, and gives the verdict.

A test runner is a process of its own, so that a returned value that makes the tests slow or huge cannot stop the
trainer. It owns one fork server and replaces it when it dies, hangs or answers nonsense.

The test runner holds the tests and sends the program only calls with arguments. A message of the program's process is
only ever read as the result of a call. How the process ended is asked of the kernel, through the fork server.
"""

import contextlib
import functools
import importlib
import json
import os
import random
import resource
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from schoolhouse.sandbox.fork_server import OUT_OF_MEMORY
from schoolhouse.sandbox.isolation import MAX_THREADS, hide_memory
from schoolhouse.sandbox.prepared_tests import Tests, Unsupported, prepare
from schoolhouse.sandbox.remote import (
    Remote,
    RemoteCoroutine,
    RemoteFunction,
    RemoteIterator,
    RemoteObject,
    exception_of,
    status_of_error,
    write_back,
)
from schoolhouse.sandbox.types import Job, Status, Verdict
from schoolhouse.sandbox.wire_format import (
    NotPlain,
    TooBig,
    from_plain,
    is_marshalable,
    read_answer,
    read_trusted,
    to_plain,
    write_trusted,
)


ROOT = str(Path(__file__).resolve().parents[2])
# No token of the trainer's environment is passed on. A fixed hash seed gives the same program the same verdict. With a
# heap for each thread, of 64 MiB of addresses, a program of a dozen threads would be at its limit.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
ENVIRONMENT["MALLOC_ARENA_MAX"] = "1"
GRACE_S = 5.0  # wall seconds beyond a program's own limit after which a silent fork server counts as hung
MAX_MEMORY = 2 << 30  # bytes of data of the test runner: a returned number may make a test ask for more


class NoResult(BaseException):
    """A call without a usable result. Not an `Exception`: a test's own `except Exception` must not hide it."""


class Ended(NoResult):
    """A call to a program whose process is gone or no longer follows the protocol."""


class TestsTooSlow(BaseException):
    """The tests used up their own CPU time on the values that the program returned."""


class ForkServerLost(Exception):
    """A fork server that died, hung or answered nonsense."""


@dataclass(frozen=True)
class Outcome:
    """End of a program's process: `end` as in [`~schoolhouse.sandbox.fork_server.watch`], exit code, CPU seconds."""

    end: str
    code: int
    cpu_s: float


def wall_limit(timeout_s: float) -> float:
    """Return the wall seconds for a program of a limit: far more, so that a busy machine changes no verdict."""
    return 10 * timeout_s + 1


class ForkServer:
    """
    The process that programs are forked from, seen from the test runner; `ForkServerLost` if it does not start.

    Args:
        without (`tuple[str, ...]`, *optional*, defaults to `()`):
            Layers to leave off.
        command (`list[str]`, *optional*):
            Command to execute instead; the number of the control socket's descriptor is appended.
    """

    def __init__(self, without: tuple[str, ...] = (), command: list[str] | None = None) -> None:
        # Hooks of modules that run after a fork are for processes with threads. The fork server has one thread: the
        # hooks would only write to as many pages as all the rest of a small program, and seed `random` anew.
        boot = (
            "import os, sys; os.register_at_fork = lambda **hooks: None; "
            f"sys.path.insert(0, {ROOT!r}); from schoolhouse.sandbox.fork_server import main; del sys.path[0]; main()"
        )
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = str(theirs.fileno())
            self.process = subprocess.Popen(
                [*(command or [sys.executable, "-S", "-s", "-P", "-c", boot]), number, *without],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._job = 0
        try:
            self.layers: dict[str, Any] = self._receive(30)["layers"]
        except (ForkServerLost, KeyError, TypeError) as error:
            self.stop()
            raise ForkServerLost(f"the fork server did not start: {error}") from None

    def start(self, limit_s: float, memory_mb: int, descriptors: list[int]) -> None:
        """Request a child that holds two descriptors: the socket for calls and the file for output."""
        self._job += 1
        self._wall_s = wall_limit(limit_s)
        limits = {"limit_s": limit_s, "delay_s": self._wall_s - limit_s, "memory_mb": memory_mb}
        request = {"op": "run", "id": self._job, **limits}
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        except OSError as error:
            raise ForkServerLost(f"the fork server is gone: {error}") from None

    def end(self) -> Outcome:
        """End the child, if it still runs, and return how it ended."""
        with contextlib.suppress(OSError):
            self._control.send(b'{"op":"end"}')
        report = self._receive(self._wall_s + GRACE_S)
        try:
            if report["id"] != self._job:
                raise ForkServerLost("the fork server reported on another program")
            if "error" in report:
                raise ForkServerLost(str(report["error"]))
            return Outcome(str(report["end"]), int(report["code"]), float(report["cpu_s"]))
        except (KeyError, TypeError, ValueError):
            raise ForkServerLost("the fork server sent a malformed report") from None

    def _receive(self, timeout: float) -> Any:
        self._control.settimeout(timeout)
        try:
            packet = self._control.recv(65536)
            if packet:
                return json.loads(packet)
            how = "died"
        except TimeoutError:
            how = f"said nothing for {timeout:.0f} s"
        except (OSError, ValueError) as error:
            how = f"sent no report: {error}"
        raise ForkServerLost(f"the fork server {how}")

    def stop(self) -> None:
        """Kill it, and with it everything that it started."""
        self._control.close()
        self.process.kill()
        self.process.wait()


class Program:
    """An untrusted program in its process, and what is asked of it."""

    def __init__(self, fork_server: ForkServer, job: Job, tests: Tests) -> None:
        self.tests = tests
        self.calls = 0
        self.failures: list[tuple[Status, str]] = []
        self.unsupported = ""
        self.outcome: Outcome | None = None
        self._remotes: dict[tuple[int, str], Any] = {}
        self._fork_server = fork_server
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(wall_limit(job.timeout_s) + GRACE_S)
        self._answers = self._socket.makefile("rb")
        self._output = os.memfd_create("output")
        try:
            fork_server.start(job.timeout_s, job.memory_mb, [theirs.fileno(), self._output])
        except ForkServerLost:
            self.close()
            raise
        finally:
            theirs.close()
        prelude = "" if job.program.startswith(job.prelude) else job.prelude
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: the next read finds out how
            self._socket.sendall(write_trusted((job.program, prelude, tests.names)))

    def names(self) -> dict[str, RemoteFunction]:
        """Return what the tests take from the program."""
        return {name: RemoteFunction(self, number, made=True) for number, name in enumerate(self.tests.names)}

    def request(
        self,
        operation: str,
        target: Remote,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] = {},  # noqa: B006  # never changed
        made: bool = False,
    ) -> Any:
        """
        Have the program carry out an operation and return the result.

        Args:
            operation (`str`):
                As in [`~schoolhouse.sandbox.calls.Objects.answer`].
            target ([`Remote`]):
                What it is about.
            arguments (`tuple`, *optional*, defaults to `()`), keywords (`dict[str, Any]`, *optional*):
                Its other arguments.
            made (`bool`, *optional*, defaults to `False`):
                Whether the tests make an object with it.

        Raises:
            NoResult: If there is none that can be used.
            Exception: That of the program.
        """
        if self.outcome:
            self.fail("exit", "the process is gone", Ended)
        self.calls += 1
        # A random number for each question, so that no answer can be written before its question.
        number = secrets.token_hex(8)
        as_they_are, document = ((arguments, keywords) if is_marshalable((arguments, keywords)) else None), None
        if as_they_are is None:
            try:
                document = to_plain([list(arguments), keywords], self._node)
            except TooBig as error:
                self.fail("bad_return", f"a returned value became an argument: {error}")
            except NotPlain as error:
                self.unsupported = f"the tests pass {error}"
                raise Ended from None
        changed = not operation and self.tests.in_place
        own = bool(self.tests.classes or self.tests.attributes)
        message = (number, operation, target._remote_number, as_they_are, document, changed, own)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(write_trusted(message))
        answer = self._receive()
        if answer.get("id") != number:
            self._end("protocol", "an answer to no question")
        try:
            if changed and "arguments" in answer:
                write_back([list(arguments), keywords], from_plain(answer["arguments"], self._named))
            if "value" in answer:
                return from_plain(answer["value"], functools.partial(self._named, own=own, made=made))
        except NotPlain as error:
            self.fail("bad_return", str(error))
        if "bad" in answer:
            self.fail("bad_return", str(answer["bad"]))
        if "exit" in answer:
            self.fail("exit", f"SystemExit: {answer['exit']}")
        raised = exception_of(answer)
        if operation == "next" and str(answer.get("error")).startswith("['builtins.StopIteration'"):
            raise StopIteration(*raised.args)
        raise raised

    def _node(self, value: Any) -> Any:
        """Return the node of an object that the program keeps, `None` for a value."""
        return {"h": [value._remote_number]} if isinstance(value, Remote) else None

    def _named(self, node: Any, own: bool = True, made: bool = False) -> Any:
        """Return the object for a node of the program's."""
        number, kind = node
        if type(number) is not int:
            raise NotPlain("an object without a number")
        if kind == "object" and not own:
            raise NotPlain("an object of the program's own")
        if (number, kind) not in self._remotes:
            self._remotes[number, kind] = REMOTE[kind](self, number, made)
        return self._remotes[number, kind]

    def load(self) -> tuple[Status, str] | None:
        """Wait until the program has run its definitions; return the failure if it did not get that far."""
        try:
            answer = self._receive()
        except Ended:
            return self.failures[0]
        if answer.get("loaded") is True:
            return None
        if "syntax" in answer:
            return "syntax", str(answer["syntax"])
        if "exit" in answer:
            return "exit", f"SystemExit: {answer['exit']}"
        if "error" in answer:
            return status_of_error(exception_of(answer)), str(answer.get("detail"))
        return "protocol", "a message that answers nothing"

    def finish(self) -> Outcome:
        """End the process, if it still runs, and return how it ended."""
        if not self.outcome:
            self.outcome = self._fork_server.end()
        return self.outcome

    def close(self) -> None:
        """Close the descriptors."""
        self._answers.close()
        self._socket.close()
        os.close(self._output)

    def _receive(self) -> dict[str, Any]:
        try:
            answer = read_answer(self._answers.read)
        except TimeoutError:
            raise ForkServerLost("neither the program nor the fork server ended in time") from None
        except ConnectionResetError:
            answer = None
        except NotPlain as error:
            self._end("protocol", str(error))
        if answer is None:
            self.fail(*how_it_ended(self.finish(), os.fstat(self._output).st_size), Ended)
        if not isinstance(answer, dict):
            self._end("protocol", "a message that is no object")
        return answer

    def fail(self, status: Status, detail: str, kind: type[NoResult] = NoResult) -> NoReturn:
        """Record that a use of the program had no result."""
        self.failures.append((status, detail))
        raise kind

    def refuse(self, detail: str) -> NoReturn:
        """Record a use of an object of the program's that proves nothing."""
        self.fail("bad_return", detail)

    def _end(self, status: Status, detail: str) -> NoReturn:
        self.finish()
        self.fail(status, detail, Ended)


REMOTE = {
    "object": RemoteObject,
    "function": RemoteFunction,
    "iterator": RemoteIterator,
    "coroutine": RemoteCoroutine,
}


def how_it_ended(outcome: Outcome, printed: int) -> tuple[Status, str]:
    """Return status and detail of a process that ended before it had answered; `printed` counts bytes of output."""
    code = outcome.code
    if outcome.end == "threads":
        return "denied", f"more than {MAX_THREADS} threads"
    if outcome.end in ("cpu", "asleep") or code == -signal.SIGXCPU:
        return "timeout", "CPU time used up" if outcome.end == "cpu" else "waited for too long"
    if code == -signal.SIGXFSZ:
        return "output_limit", f"printed {printed} bytes"
    if code == -signal.SIGSYS:
        return "denied", "a system call of another architecture"
    if code == -signal.SIGKILL:
        if outcome.end == "done":
            return "protocol", "ended by the test runner"
        return "memory", "killed by the kernel"
    if code < 0:
        return "crashed", signal.Signals(-code).name
    if code == OUT_OF_MEMORY:
        return "memory", "MemoryError"
    return "exit", f"exit code {code}"


class Tally:
    """
    Counter of test statements. Each stands in a `with` of this object with its number, so that one that fails lets the
    next one run. A statement that runs several times, in a loop or because the tests call `check` again, passes if it
    passes each time.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.begun: set[int] = set()
        self.failed: set[int] = set()

    def __call__(self, number: int) -> "Statement":
        return Statement(self, number, len(self.program.failures))

    @property
    def passed(self) -> int:
        """Number of statements that ran and never failed."""
        return len(self.begun - self.failed)

    def fail(self, error: Exception) -> None:
        """Record a failure. An error before any call is the fault of the tests, not of the program."""
        if not self.program.calls:
            self.program.unsupported = (
                self.program.unsupported or f"the tests fail alone: {type(error).__name__}: {error}"
            )
        name = type(error).__name__
        status: Status = getattr(error, "status", "wrong_answer")
        detail = getattr(error, "detail", "") or (f"{name}: {error}" if str(error) else name)
        self.program.failures.append((status, detail))


@dataclass(slots=True)
class Statement:
    """One run of a test statement, as a context manager: a failure is recorded, and the next statement runs."""

    tally: Tally
    number: int
    failures: int

    def __enter__(self) -> None:
        self.tally.begun.add(self.number)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self.tally.fail(error)
        # Also of a test that catches everything: none of its calls may have had no result.
        if error is not None or len(self.tally.program.failures) > self.failures:
            self.tally.failed.add(self.number)
        return isinstance(error, Exception) or type(error) is NoResult


def run_job(fork_server: ForkServer, job: Job) -> Verdict:
    """
    Run a program and its tests; the `fraction` of the verdict counts the tests that passed.

    Raises:
        ForkServerLost: If the fork server failed; the program is then not to blame.
    """
    try:
        tests = prepare(job.tests, job.prelude, job.entry_point)
    except Unsupported as error:
        return verdict("unsupported", None, str(error))
    program = Program(fork_server, job, tests)
    try:
        if failure := program.load():
            return verdict(failure[0], 0.0, failure[1], program.finish().cpu_s)
        tally = Tally(program)
        try:
            with cpu_limit(job.timeout_s + 1):
                run_tests(tests, program, tally)
        except NoResult:
            pass
        except TestsTooSlow:
            program.failures.append(("timeout", "the tests took too long on the values that the program returned"))
        except SystemExit as error:  # of the tests, as `unittest.main()` ends
            if error.code:
                tally.fail(AssertionError(f"the tests exit with {error.code}"))
        except Exception as error:
            tally.fail(error)
        cpu_s = program.finish().cpu_s
    finally:
        program.close()
    if not program.calls and not program.unsupported:
        program.unsupported = f"the tests never call {job.entry_point!r}"
    if program.unsupported:
        return verdict("unsupported", None, program.unsupported, cpu_s)
    passed, total = tally.passed, tests.total
    if program.failures and passed == total:
        total += 1  # what failed is no statement that counts
    if passed < total:
        status, detail = program.failures[0] if program.failures else ("wrong_answer", "not every test was reached")
        return verdict(status, passed / total, f"{passed} of {total} tests; {detail}", cpu_s)
    return verdict("passed", 1.0, f"{total or 1} tests", cpu_s)


def run_tests(tests: Tests, program: Program, tally: Tally) -> None:
    """Execute the tests in a fresh namespace, with the same random numbers each time."""
    namespace: dict[str, Any] = {
        "__name__": "tests",
        **{name: importlib.import_module(name) for name in tests.modules},
    }
    random.seed(0)
    exec(tests.prelude, namespace)
    namespace |= {**program.names(), "__test__": tally}
    exec(tests.code, namespace)
    if tests.check and tally.begun.isdisjoint(
        range(tests.in_check)
    ):  # the tests define `check` and leave the call to us
        exec(tests.check, namespace)


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise `TestsTooSlow` in this block after that much CPU time, and again every 0.1 s if it is caught."""

    def stop(signum: int, frame: Any) -> NoReturn:
        raise TestsTooSlow

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def verdict(status: Status, fraction: float | None, detail: str = "", cpu_s: float = 0.0) -> Verdict:
    """Return a verdict with its detail in one line of at most 300 characters."""
    return Verdict(status, fraction, " ".join(detail.split())[:300], cpu_s)


def main() -> None:
    """Run a test runner: descriptor of the socket to the trainer, core to run on, layers to leave off."""
    hide_memory()  # where there is no other user for programs
    trainer = socket.socket(fileno=int(sys.argv[1]))
    without = tuple(sys.argv[3:])
    # A test runner and its programs take turns, so they share one core: a tenth less CPU time than on two cores.
    os.sched_setaffinity(0, {int(sys.argv[2])})
    parent = os.getppid()
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    try:
        fork_server = ForkServer(without)
    except ForkServerLost as error:
        trainer.sendall(write_trusted({"error": str(error)}))
        return
    trainer.sendall(write_trusted({"layers": fork_server.layers}))
    while True:
        # A forked copy of the trainer may hold the other end open after the trainer itself has gone.
        while not select.select([trainer], [], [], 5)[0]:
            if os.getppid() != parent:
                return fork_server.stop()
        fields = read_trusted(trainer.recv)
        if fields is None:
            return fork_server.stop()
        job = Job(**fields)
        # `cpu_limit` cannot interrupt a C loop, such as over a set of values chosen to collide. This ends the process.
        signal.setitimer(signal.ITIMER_VIRTUAL, job.timeout_s + 2)
        try:
            result = run_job(fork_server, job)
        except ForkServerLost as error:
            fork_server.stop()
            fork_server = ForkServer(without)
            result = verdict("sandbox_error", None, str(error))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        trainer.sendall(write_trusted(vars(result)))
