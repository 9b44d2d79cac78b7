"""A pool of test runners: several programs at a time, each verdict computed once."""

import contextlib
import hashlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import astuple
from typing import Self

from schoolhouse.sandbox.isolation import NAMESPACES
from schoolhouse.sandbox.test_runner import ENVIRONMENT, GRACE_S, ROOT, wall_limit
from schoolhouse.sandbox.types import Job, SandboxError, Verdict
from schoolhouse.sandbox.wire_format import read_trusted, write_trusted


logger = logging.getLogger(__name__)

ALLOW_WEAK_ISOLATION = "SCHOOLHOUSE_ALLOW_WEAK_ISOLATION"  # environment variable
# A failure of these kinds may be the work of other programs, which left this one no threads or no memory.
_SHARED = ("can't start new thread", "killed by the kernel")

# An ordinary program must still work when nothing but the preimported modules can be read.
_ORDINARY = Job(
    program="""
import dataclasses, datetime, decimal, fractions, re, traceback, unicodedata
@dataclasses.dataclass
class Point:
    x: int
def ordinary(n):
    datetime.datetime.strptime("2020-02-29", "%Y-%m-%d")
    "é".encode("idna"), "é".encode("utf-16"), "é".encode("latin-1")
    try:
        1 / 0
    except ZeroDivisionError:
        traceback.format_exc()
    return int(decimal.Decimal(n).sqrt()) + Point(fractions.Fraction(n).numerator).x
""",
    tests="assert ordinary(16) == 20",
    timeout_s=10.0,
)


class _TestRunner:
    """A test runner's process, seen from the trainer. It is replaced when it hangs or dies."""

    def __init__(self, core: int, without: tuple[str, ...]) -> None:
        self._arguments = [str(core), *without]
        self._closed = False
        self._replacing = threading.Lock()  # a process started while another thread closes would outlive the sandbox
        self._start()

    def _start(self) -> None:
        boot = f"import sys; sys.path.insert(0, {ROOT!r}); from schoolhouse.sandbox.test_runner import main; main()"
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", boot, str(theirs.fileno()), *self._arguments],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the trainer to handle
            )

    def layers(self) -> dict[str, bool | int]:
        """Wait until it is ready and return the layers that hold, which it sends once."""
        self._socket.settimeout(60)
        try:
            message = read_trusted(self._socket.recv)
        except OSError as error:
            message = {"error": f"no sign of life: {error}"}
        if not message or "error" in message:
            raise SandboxError(f"the sandbox did not start: {(message or {}).get('error', 'the test runner died')}")
        layers: dict[str, bool | int] = message["layers"]
        return layers

    def run(self, job: Job) -> Verdict:
        """Run one job."""
        # Twice: for the program, and for the tests on the values that it returns.
        self._socket.settimeout(2 * wall_limit(job.timeout_s) + 3 * GRACE_S)
        try:
            self._socket.sendall(write_trusted(vars(job)))
            if message := read_trusted(self._socket.recv):
                return Verdict(**message)
            reason = "it died"
        except OSError as error:
            reason = str(error)
        with self._replacing:
            if self._closed:
                raise SandboxError("the sandbox was closed while this program ran")
            self.kill()
            ended = self.process.returncode
            self._start()
        self.layers()
        if ended == -signal.SIGVTALRM:  # its own limit on CPU time
            return Verdict("timeout", 0.0, "the tests took too long on the values that the program returned")
        return Verdict("sandbox_error", None, f"the test runner was replaced: {reason}")

    def kill(self) -> None:
        """End it, its fork server and the running program: they are one process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._socket.close()

    def close(self) -> None:
        """End it for good, even in the middle of a job."""
        with self._replacing:
            self._closed = True
            self.kill()


class Sandbox:
    """
    Pool of processes that run untrusted Python programs and their tests.

    It is a context manager and safe to share between threads. After a fork the copy starts processes of its own.

    Processes: the trainer sends jobs to test runners, which hold the tests; each test runner has a fork server, which
    holds no tests and no secrets; the fork server forks a child for each program.

    Args:
        workers (`int`, *optional*):
            Programs at a time; defaults to the number of cores this process may use.
        allow_weak_isolation (`bool`, *optional*):
            Run programs even where resource limits do not hold, or neither does the system call filter nor Landlock
            with namespaces. Only for programs that you trust. By default the environment variable
            `SCHOOLHOUSE_ALLOW_WEAK_ISOLATION=1` allows it.
        cache_size (`int`, *optional*, defaults to `100_000`):
            Verdicts to keep; the least recently used are dropped first. `0` runs every job again.
        without (`tuple[str, ...]`, *optional*, defaults to `()`):
            Layers to leave off, to test that the others hold.

    Attributes:
        layers (`dict[str, bool | int]`): layers of [`schoolhouse.sandbox.isolation`] that hold, or do not. Landlock's
            value is its version, that of `uid` a user id.

    Raises:
        SandboxError: Where programs cannot be run safely.

    Example:

    ```python
    >>> with Sandbox(workers=2) as sandbox:
    ...     (verdict,) = sandbox.run([Job("def f(x): return x + 1", tests="assert f(1) == 2")])
    >>> verdict.passed
    True
    ```
    """

    def __init__(
        self,
        workers: int | None = None,
        allow_weak_isolation: bool | None = None,
        cache_size: int = 100_000,
        without: tuple[str, ...] = (),
    ) -> None:
        if sys.platform != "linux":
            raise SandboxError(
                f"programs can run on Linux only, this is {sys.platform}: leave code rewards and code tasks out of "
                "the recipe, or run it in a Linux container"
            )
        self.workers = workers or len(os.sched_getaffinity(0))
        if allow_weak_isolation is None:
            allow_weak_isolation = os.environ.get(ALLOW_WEAK_ISOLATION) == "1"
        self._allow_weak_isolation = allow_weak_isolation
        self._cache_size = cache_size
        self._without = tuple(without)
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, Verdict] = OrderedDict()
        cores = sorted(os.sched_getaffinity(0))
        # Several trainers on one machine start at different cores.
        self._runners = [
            _TestRunner(cores[(self._process + n) % len(cores)], self._without) for n in range(self.workers)
        ]
        self._stop = weakref.finalize(self, _close_all, self._runners, self._process)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
        try:
            # Each fork server tries each layer. A layer counts if it holds in all of them.
            every = [runner.layers() for runner in self._runners]
            self.layers: dict[str, bool | int] = {name: min(layers[name] for layers in every) for name in every[0]}
            without_filter = all(self.layers[name] for name in ("landlock", *NAMESPACES))
            enough = self.layers["rlimits"] and (self.layers["seccomp"] or without_filter)
            if not (enough or self._allow_weak_isolation):
                raise SandboxError(
                    f"programs cannot be isolated here ({self.describe()}): resource limits, and seccomp or Landlock "
                    "with namespaces, are needed; use another kernel or container profile, or set "
                    f"{ALLOW_WEAK_ISOLATION}=1 if you trust every program"
                )
            # An ordinary user cannot change its id. In namespaces that does no harm: it has no other process.
            off = [name for name, value in self.layers.items() if not value]
            logger.log(logging.INFO if off in ([], ["uid"]) else logging.WARNING, self.describe())
            for number in range(self.workers):
                self._free.put(number)
            verdict = self._run_one(_ORDINARY)
            if not verdict.passed:
                raise SandboxError(f"an ordinary program fails in the sandbox: {verdict.status}, {verdict.detail}")
        except BaseException:
            self.close()
            raise

    def run(self, jobs: list[Job]) -> list[Verdict]:
        """
        Run programs; equal jobs are run once.

        Args:
            jobs (`list[Job]`):
                The programs and their tests.

        Returns:
            `list[Verdict]`: one verdict for each job, in their order.

        Raises:
            SandboxError: If the sandbox was closed or cannot be restarted.
        """
        if os.getpid() != self._process:
            self._stop.detach()  # processes, threads and perhaps a held lock belong to the parent
            self._start()
        keys = [hashlib.sha256(repr(astuple(job)).encode("utf-8", "surrogatepass")).digest() for job in jobs]
        verdicts: dict[bytes, Verdict] = {}
        waiting = {}
        with self._lock:  # which `close` takes too: no job is handed to threads that are being shut down
            if not self._stop.alive:
                raise SandboxError("the sandbox is closed: open another one")
            for key, job in zip(keys, jobs, strict=True):
                if key in self._cache:
                    self._cache.move_to_end(key)
                    verdicts[key] = self._cache[key]
                elif key not in waiting:
                    waiting[key] = (job, self._threads.submit(self._run_one, job))
        for key, (job, future) in waiting.items():
            try:
                verdict = verdicts[key] = future.result()
            except CancelledError:
                raise SandboxError("the sandbox was closed before this program ran") from None
            if not self._may_change(job, verdict):
                with self._lock:
                    self._cache[key] = verdict
                    while len(self._cache) > self._cache_size:
                        self._cache.popitem(last=False)
        return [verdicts[key] for key in keys]

    def _may_change(self, job: Job, verdict: Verdict) -> bool:
        """Check if another run may end differently: after our failures, or those of machine and neighbours."""
        waited = verdict.status == "timeout" and verdict.cpu_s < job.timeout_s
        shared = any(text in verdict.detail for text in _SHARED)
        no_threads = not self.layers["threads"] and "hread" in job.program  # it may hide that it got none
        return verdict.status == "sandbox_error" or (not verdict.passed and (waited or shared or no_threads))

    def _run_one(self, job: Job) -> Verdict:
        number = self._free.get()
        try:
            verdict = self._runners[number].run(job)
            if verdict.status == "sandbox_error":  # once more, with the replaced processes
                verdict = self._runners[number].run(job)
        finally:
            self._free.put(number)
        return verdict

    def describe(self) -> str:
        """Return the layers that are on and off, in one line for people and logs."""
        on = [name if value is True else f"{name} {value}" for name, value in self.layers.items() if value]
        off = [name for name, value in self.layers.items() if not value]
        return f"sandbox: {', '.join(on) or 'nothing'}" + (f"; off: {', '.join(off)}" if off else "")

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the test runners; fork servers and programs are their descendants."""
        return [runner.process.pid for runner in self._runners]

    def close(self) -> None:
        """End every process of the sandbox."""
        with self._lock:
            self._stop()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _close_all(runners: list[_TestRunner], process: int) -> None:
    if os.getpid() == process:
        for runner in runners:
            runner.close()
