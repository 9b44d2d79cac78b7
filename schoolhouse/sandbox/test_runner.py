"""The trusted side: runs the tests against a program that lives in another process, and decides.

A judge is a process of its own, so that a returned value that makes the tests slow or huge cannot stop the trainer. It
owns one zygote and replaces it when it dies, hangs or answers nonsense. What a program's process says is only ever
read as the result of a call; how the process ended is asked of the kernel, through the zygote.
"""

import ast
import builtins
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
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Self

from schoolhouse.sandbox.fork_server import OUT_OF_MEMORY
from schoolhouse.sandbox.isolation import MAX_OUTPUT
from schoolhouse.sandbox.types import bound_names
from schoolhouse.sandbox.wire_format import (
    NotPlain,
    TooBig,
    from_plain,
    read_answer,
    read_trusted,
    to_plain,
    write_trusted,
)


ROOT = str(Path(__file__).resolve().parents[2])
# A token in the trainer's environment is nobody's business here; a fixed hash seed gives one program one verdict.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
GRACE_S = 5.0  # wall seconds beyond a program's own limit after which a silent zygote counts as hung
MAX_MEMORY = 2 << 30  # bytes of data of the judge: a returned number may make a test ask for more

# What a program raises, the tests see, if it is a plain error. StopIteration would end a test's `all(map(...))` early.
ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, StopIteration | StopAsyncIteration)
}


class CandidateError(Exception):
    """An exception of the program that the tests cannot name."""


class Refused(BaseException):
    """A call without a usable result. Not an `Exception`: a test's own `except Exception` must not hide it."""


class Ended(Refused):
    """A call to a program whose process is gone or no longer trusted to follow the protocol."""


class TestsTooSlow(BaseException):
    """The tests used up their own CPU time on what the program returned."""


class Unsupported(Exception):
    """Tests that this judge cannot run, whatever the program."""


class ZygoteLost(Exception):
    """A zygote that died, hung or answered nonsense."""


def wall_limit(timeout_s: float) -> float:
    """Wall seconds for a program with `timeout_s` CPU seconds: far more, so that a busy machine changes no verdict."""
    return 5 * timeout_s + 1


class Zygote:
    """
    The process that programs are forked from, seen from the judge.

    Args:
        without (`tuple[str, ...]`, *optional*, defaults to `()`):
            Layers to leave off.
        command (`list[str]`, *optional*):
            What to execute instead; the number of the control socket's descriptor is appended.

    Raises:
        `ZygoteLost`: if it does not come up.
    """

    def __init__(self, without: tuple[str, ...] = (), command: list[str] | None = None):
        # What modules do after a fork serves processes with threads. The zygote has one: there it would only dirty as
        # many pages as all the rest of a small program, and seed `random` anew.
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
        except (ZygoteLost, KeyError, TypeError) as error:
            self.stop()
            raise ZygoteLost(f"the zygote did not start: {error}") from None

    def start(self, cpu_s: float, memory_mb: int, descriptors: list[int]) -> None:
        """Have it fork a child that holds these three descriptors: calls, standard input, standard output."""
        self._job += 1
        self._wall_s = wall_limit(cpu_s)
        request = {"op": "run", "id": self._job, "cpu_s": cpu_s, "wall_s": self._wall_s, "memory_mb": memory_mb}
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        except OSError as error:
            raise ZygoteLost(f"the zygote is gone: {error}") from None

    def report(self, stop: bool) -> dict[str, Any]:
        """How the child ended; with `stop`, end it now."""
        if stop:
            with contextlib.suppress(OSError):
                self._control.send(b'{"op":"end"}')
        report = self._receive(self._wall_s + GRACE_S)
        try:
            if report["id"] != self._job:
                raise ZygoteLost("the zygote reported on another program")
            if "error" in report:
                raise ZygoteLost(str(report["error"]))
            return {"end": str(report["end"]), "code": int(report["code"]), "cpu_s": float(report["cpu_s"])}
        except (KeyError, TypeError, ValueError):
            raise ZygoteLost("the zygote sent a malformed report") from None

    def _receive(self, timeout: float) -> Any:
        self._control.settimeout(timeout)
        try:
            packet = self._control.recv(65536)
            return json.loads(packet) if packet else self._lost("died")
        except TimeoutError:
            self._lost(f"said nothing for {timeout:.0f} s")
        except (OSError, ValueError) as error:
            self._lost(f"sent no report: {error}")

    def _lost(self, how: str) -> None:
        raise ZygoteLost(f"the zygote {how}")

    def stop(self) -> None:
        """Kill it, and with it everything that it started."""
        self._control.close()
        self.process.kill()
        self.process.wait()


class Program:
    """
    An untrusted program in its process; called, it is the program's entry point.

    Args:
        zygote (`Zygote`):
            Where to fork it.
        job (`dict[str, Any]`):
            The fields of a `Job`.
    """

    def __init__(self, zygote: Zygote, job: dict[str, Any]):
        self.calls = 0
        self.failures: list[tuple[str, str]] = []
        self.unsupported = ""
        self.outcome: dict[str, Any] | None = None
        self._zygote = zygote
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(wall_limit(job["timeout_s"]) + GRACE_S)
        self._answers = self._socket.makefile("rb")
        self._output = os.memfd_create("output")
        standard_in = os.memfd_create("input")
        try:
            os.write(standard_in, (job["stdin"] or "").encode("utf-8", "replace"))
            os.lseek(standard_in, 0, os.SEEK_SET)
            zygote.start(job["timeout_s"], job["memory_mb"], [theirs.fileno(), standard_in, self._output])
        except ZygoteLost:
            self.close()
            raise
        finally:
            theirs.close()
            os.close(standard_in)
        prelude = "" if job["program"].startswith(job["prelude"]) else job["prelude"]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: the next read says how
            self._socket.sendall(write_trusted((job["program"], prelude, job["entry_point"])))

    def __call__(self, *positional: Any, **keywords: Any) -> Any:
        if self.outcome:
            self._fail("exit", "the process is gone", Ended)
        self.calls += 1
        number = secrets.token_hex(8)  # an answer written before its question fits no question
        try:
            arguments = from_plain(to_plain(list(positional))), from_plain(to_plain(keywords))
        except TooBig as error:
            self._fail("bad_return", f"what came back became an argument: {error}")
        except NotPlain as error:
            self.unsupported = f"the tests pass {error}"
            raise Ended from None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(write_trusted((number, *arguments)))
        answer = self._receive()
        if answer.get("id") != number:
            self._end("protocol", "an answer to no question")
        if "value" in answer:
            try:
                return from_plain(answer["value"])
            except NotPlain as error:
                self._fail("bad_return", str(error))
        if "bad" in answer:
            self._fail("bad_return", str(answer["bad"]))
        if "exit" in answer:
            self._fail("exit", f"SystemExit: {answer['exit']}")
        self._raise(str(answer.get("error")), str(answer.get("detail")))

    def load(self) -> tuple[str, str] | None:
        """Wait until the program has defined what it defines; the failure, if it has not come so far."""
        try:
            answer = self._receive()
        except Ended:
            return self.failures[0]
        if answer.get("loaded") is True:
            return None
        return self._failure_of(answer)

    def finish(self) -> dict[str, Any]:
        """End the process, if it still runs, and say how it went."""
        if not self.outcome:
            self.outcome = self._zygote.report(stop=True)
        return self.outcome

    def wait(self) -> tuple[str, str] | None:
        """Wait until a script ends by itself; the failure, if it does not end well."""
        self.outcome = self._zygote.report(stop=False)
        failure = how_it_ended(self.outcome, len(self.output()))
        if self.outcome["end"] == "died" and self.outcome["code"] == 0:
            return None
        if failure[0] == "exit":  # the process may have said more about it
            with contextlib.suppress(NotPlain, OSError):
                self._socket.settimeout(0)
                answer = read_answer(self._answers.read)
                if isinstance(answer, dict):
                    return self._failure_of(answer)
        return failure

    def output(self) -> bytes:
        """What the program printed, up to the limit."""
        return os.pread(self._output, MAX_OUTPUT, 0)

    def close(self) -> None:
        """Let go of the descriptors."""
        self._answers.close()
        self._socket.close()
        os.close(self._output)

    def _receive(self) -> dict[str, Any]:
        try:
            answer = read_answer(self._answers.read)
        except TimeoutError:
            raise ZygoteLost("neither the program nor the zygote ended in time") from None
        except ConnectionResetError:
            answer = None
        except NotPlain as error:
            self._end("protocol", str(error))
        if answer is None:
            self.outcome = self._zygote.report(stop=True)
            self._fail(*how_it_ended(self.outcome, len(self.output())), Ended)
        if not isinstance(answer, dict):
            self._end("protocol", "a message that is no object")
        return answer

    def _failure_of(self, answer: dict[str, Any]) -> tuple[str, str]:
        if "syntax" in answer:
            return "syntax", str(answer["syntax"])
        if "exit" in answer:
            return "exit", f"SystemExit: {answer['exit']}"
        if "error" in answer:
            return status_of_error(str(answer["error"])), str(answer.get("detail"))
        return "protocol", "a message that answers nothing"

    def _fail(self, status: str, detail: str, kind: type[Refused] = Refused) -> None:
        self.failures.append((status, detail))
        raise kind

    def _end(self, status: str, detail: str) -> None:
        self.outcome = self._zygote.report(stop=True)
        self._fail(status, detail, Ended)

    def _raise(self, name: str, detail: str) -> None:
        try:
            error = ERRORS.get(name, CandidateError)(detail)
        except TypeError:  # an exception that wants more arguments
            error = CandidateError(detail)
        error.status = status_of_error(name)
        raise error


def status_of_error(name: str) -> str:
    """The status of a program that raised an exception of this name."""
    return {"PermissionError": "denied", "MemoryError": "memory"}.get(name, "exception")


def how_it_ended(outcome: dict[str, Any], printed: int) -> tuple[str, str]:
    """Status and detail of a process that ended before it had answered."""
    code = outcome["code"]
    if outcome["end"] in ("cpu", "wall") or code == -signal.SIGXCPU:
        return "timeout", "CPU time used up" if outcome["end"] == "cpu" else "waited for too long"
    if code == -signal.SIGXFSZ:
        return "output_limit", f"printed {printed} bytes"
    if code == -signal.SIGSYS:
        return "denied", "a system call of another architecture"
    if code == -signal.SIGKILL:
        return ("protocol", "ended by the judge") if outcome["end"] == "done" else ("memory", "killed by the kernel")
    if code < 0:
        return "crashed", signal.Signals(-code).name
    if code == OUT_OF_MEMORY:
        return "memory", "MemoryError"
    return "exit", f"exit code {code}"


@dataclass(frozen=True)
class Tests:
    """Tests made ready: `total` statements of them are counted one by one."""

    prelude: CodeType
    code: CodeType
    total: int
    modules: tuple[str, ...]


class _Counted(ast.NodeTransformer):
    """Wraps every statement of a block that asserts something in `with __test__(): ...`."""

    total = 0

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        return [self._wrap(statement) for statement in statements]

    def _wrap(self, statement: ast.stmt) -> ast.stmt:
        definition = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if definition or not any(isinstance(node, ast.Assert) for node in ast.walk(statement)):
            return statement
        self.total += 1
        call = ast.Call(ast.Name("__test__", ast.Load()), [], [])
        return ast.copy_location(ast.With([ast.withitem(call)], [statement]), statement)


@functools.lru_cache(maxsize=4096)
def prepare(tests: str, prelude: str, entry_point: str) -> Tests:
    """
    Compile the tests so that each of them counts: the asserting statements of the text, or of its `check(candidate)`.

    Raises:
        `Unsupported`: if they do not parse or need a name that only the program could give (a class of its own).
    """
    try:
        tree, before = ast.parse(tests), ast.parse(prelude)
    except SyntaxError as error:
        raise Unsupported(f"the tests do not parse: {error}") from None
    bound = bound_names(tree) | bound_names(before) | {entry_point}
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    free = {name for name in loaded - bound if not hasattr(builtins, name)}
    if unknown := sorted(free - sys.stdlib_module_names):
        raise Unsupported(f"the tests need {unknown[0]!r} from the program; only {entry_point!r} crosses the border")
    counted = _Counted()
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    if check:
        check.body = counted.block(check.body)
        tree.body += ast.parse(f"check({entry_point})").body
    else:
        tree.body = counted.block(tree.body)
    code = compile(ast.fix_missing_locations(tree), "<tests>", "exec")
    return Tests(compile(before, "<prelude>", "exec"), code, counted.total, tuple(sorted(free)))


class Tally:
    """The context manager around each test: counts it and goes on to the next one."""

    def __init__(self, program: Program):
        self.program = program
        self.passed = 0
        self.first: tuple[str, str] | None = None

    def __call__(self) -> Self:
        self._failures_before = len(self.program.failures)
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is None:
            # A test that swallows everything has not passed on a call that never answered.
            self.passed += len(self.program.failures) == self._failures_before
        elif isinstance(error, Exception):
            self.fail(error)
        return isinstance(error, Exception) or type(error) is Refused

    def fail(self, error: Exception) -> None:
        """Note the first failure; an error before any call says that the tests are at fault."""
        if not self.program.calls:
            self.program.unsupported = (
                self.program.unsupported or f"the tests fail alone: {type(error).__name__}: {error}"
            )
        status = getattr(error, "status", "wrong_answer")
        self.program.failures.append(
            (status, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        )


def judge_calls(zygote: Zygote, job: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a program that is judged by tests of a function."""
    try:
        tests = prepare(job["tests"], job["prelude"], job["entry_point"])
    except Unsupported as error:
        return verdict("unsupported", None, str(error))
    program = Program(zygote, job)
    try:
        if failure := program.load():
            return verdict(*failure[:1], 0.0, failure[1], program.finish()["cpu_s"])
        tally = Tally(program)
        try:
            with cpu_limit(job["timeout_s"] + 1):
                run_tests(tests, program, tally, job["entry_point"])
        except Refused:
            pass
        except TestsTooSlow:
            program.failures.append(("timeout", "the tests took too long on what the program returned"))
        except Exception as error:
            tally.fail(error)
        cpu_s = program.finish()["cpu_s"]
    finally:
        program.close()
    total = tests.total or 1
    passed = tally.passed if tests.total else int(not program.failures)
    if not program.calls and not program.unsupported:
        program.unsupported = f"the tests never call {job['entry_point']!r}"
    if program.unsupported:
        return verdict("unsupported", None, program.unsupported, cpu_s)
    if program.failures or passed < total:
        status, detail = program.failures[0] if program.failures else ("wrong_answer", "not every test was reached")
        return verdict(status, passed / total, f"{passed} of {total} tests; {detail}", cpu_s)
    return verdict("passed", 1.0, f"{total} tests", cpu_s)


def run_tests(tests: Tests, program: Program, tally: Tally, entry_point: str) -> None:
    """Execute the tests in a fresh namespace, with the same random numbers each time."""
    namespace = {"__name__": "tests", **{name: importlib.import_module(name) for name in tests.modules}}
    random.seed(0)
    exec(tests.prelude, namespace)
    namespace |= {entry_point: program, "__test__": tally}
    exec(tests.code, namespace)


@contextlib.contextmanager
def cpu_limit(seconds: float):
    """Raise `TestsTooSlow` in this block once the judge has used that much CPU time, and again if caught."""

    def stop(signum: int, frame: Any) -> None:
        raise TestsTooSlow

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def judge_output(zygote: Zygote, job: dict[str, Any]) -> dict[str, Any]:
    """The verdict on a program that is judged by what it prints."""
    program = Program(zygote, job)
    try:
        failure = program.wait()
        cpu_s = program.finish()["cpu_s"]
        printed = program.output().decode("utf-8", "replace")
    finally:
        program.close()
    if failure:
        return verdict(failure[0], 0.0, failure[1], cpu_s)
    if _lines(printed) == _lines(job["expected_stdout"]):
        return verdict("passed", 1.0, "", cpu_s)
    return verdict("wrong_answer", 0.0, f"printed {printed[:100]!r}", cpu_s)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def verdict(status: str, fraction: float | None, detail: str = "", cpu_s: float = 0.0) -> dict[str, Any]:
    """The fields of a `Verdict`."""
    return {"status": status, "fraction": fraction, "detail": " ".join(detail.split())[:300], "cpu_s": cpu_s}


def main() -> None:
    """Entry point: descriptor of the socket to the trainer, core to run on, layers to leave off."""
    trainer = socket.socket(fileno=int(sys.argv[1]))
    without = tuple(sys.argv[3:])
    # A judge and its programs take turns, so one core serves them best: a tenth less CPU time than across cores.
    os.sched_setaffinity(0, {int(sys.argv[2])})
    parent = os.getppid()
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    try:
        zygote = Zygote(without)
    except ZygoteLost as error:
        trainer.sendall(write_trusted({"error": str(error)}))
        return
    trainer.sendall(write_trusted({"layers": zygote.layers}))
    while True:
        # A forked copy of the trainer may hold the other end open after the trainer itself has gone.
        while not select.select([trainer], [], [], 5)[0]:
            if os.getppid() != parent:
                return zygote.stop()
        job = read_trusted(trainer.recv)
        if job is None:
            return zygote.stop()
        try:
            result = (judge_calls if job["expected_stdout"] is None else judge_output)(zygote, job)
        except ZygoteLost as error:
            zygote.stop()
            zygote = Zygote(without)
            result = verdict("sandbox_error", None, str(error))
        trainer.sendall(write_trusted(result))
