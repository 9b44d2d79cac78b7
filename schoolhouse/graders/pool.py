"""Computer algebra on text of a model, in worker processes that can be killed.

`9^9^9` hangs any process that evaluates it, and the time limits of math-verify are signals, which do not work outside
the main thread. So every comparison of expressions runs in a worker with a hard limit on processor time and memory.

The workers belong to a server process (`graders/worker.py`). It starts at the first need and ends with this process; a
forked child starts its own. Threads share it: each batch goes over one connection, one thread of ours reads the
answers, and every job has a future. Verdicts are kept, so that the same pair is compared once; failures are not.
"""

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import count
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Literal


logger = logging.getLogger(__name__)

CACHED_VERDICTS = 16_384
MAX_WORKERS = 4  # or one for each CPU, if there are fewer

_ROOT = str(Path(__file__).parents[2])

_Job = tuple[str, str, str, float, bool]  # task, reference, answer, time limit, whether it runs alone
# "timeout", "memory", "died" and "error" (an exception) are of the job's worker; "lost" is its server, or the machine.
Outcome = Literal["done", "timeout", "memory", "died", "error", "lost"]
Result = tuple[Outcome, bool | None]  # with the verdict where it is "done"
Failure = Literal["timeout", "memory", "died", "error", "lost", "reference"]
_OF_THE_JOB = ("timeout", "memory", "died", "error")


def _patience(job: _Job) -> float:
    """Seconds on the clock that a job may take on a machine so busy that its worker hardly gets processor time."""
    return 60 + 30 * job[3]


class _Server:
    """A running server process: one connection, and one thread that reads its answers."""

    def __init__(self) -> None:
        self.alive = True
        self.last_heard = time.monotonic()
        self._lock = threading.Lock()
        self._numbers = count()
        self._waiting: dict[int, Future[Result]] = {}
        self._connection, theirs = Pipe()
        workers = min(MAX_WORKERS, os.cpu_count() or 1)
        command = [sys.executable, "-P", "-m", "schoolhouse.graders.worker", str(theirs.fileno()), str(workers)]
        search_path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": search_path},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal does not reach it, and one group can be killed
        )
        theirs.close()
        threading.Thread(target=self._read_answers, name="grading-pool", daemon=True).start()

    def submit(self, jobs: Sequence[_Job], futures: Sequence[Future[Result]]) -> None:
        with self._lock:
            numbered = [(next(self._numbers), *job, _patience(job)) for job in jobs]
            self._waiting |= {job[0]: future for job, future in zip(numbered, futures, strict=True)}
            self.last_heard = time.monotonic()
            if not self.alive:
                self._fail_waiting()
                return
            with contextlib.suppress(OSError):  # the server is dead: the reading thread fails all that waits
                self._connection.send_bytes(json.dumps(numbered).encode())

    def wait_for(self, future: Future[Result], patience_s: float) -> Result:
        """Wait for a job as long as the server sends results of others at least."""
        while not future.done():
            left = self.last_heard + patience_s - time.monotonic()
            if left < 0:
                self.kill()
                return "lost", None
            with contextlib.suppress(TimeoutError):
                future.result(left)
        return future.result()

    def _read_answers(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, outcome, verdict = json.loads(self._connection.recv_bytes())
                self.last_heard = time.monotonic()
                future = self._waiting.pop(number, None)
                if future:
                    future.set_result((outcome, verdict))
        self.kill()
        with self._lock:
            self.alive = False
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._waiting.popitem()[1].set_result(("lost", None))

    def kill(self) -> None:
        if self._process.returncode is None:  # once waited for, its number may be another process's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def forget(self) -> None:
        """Close the connection of a forked copy, which is not the server's client."""
        self._connection.close()


_server: _Server | None = None
_verdicts: OrderedDict[_Job, Future[Result]] = OrderedDict()
_lock = threading.Lock()


def run(task: str, pairs: Sequence[tuple[str, str]], timeout_s: float) -> list[Result]:
    """
    Run one comparison for each pair of reference and answer.

    A comparison that ended its worker or ran out of memory is repeated alone, in a new worker: the text of another one
    may have been the reason, or the machine.

    Args:
        task (`str`): A key of `schoolhouse.graders.worker.TASKS`.
        timeout_s (`float`): Hard limit in seconds of processor time for one comparison, at which its worker is ended.

    Returns:
        `list[Result]`: Outcomes and verdicts in order.
    """
    jobs: list[_Job] = [(task, reference, answer, timeout_s, False) for reference, answer in pairs]
    results = _run_once(jobs)
    results |= _run_once([job for job, (outcome, _) in results.items() if outcome == "lost"])
    for job in [job for job, (outcome, _) in results.items() if outcome in ("died", "memory")]:
        results[job] = _run_once([lone := (*job[:-1], True)])[lone]
    return [results[job] for job in jobs]


def same_value(pairs: Sequence[tuple[str, str]], timeout_s: float) -> list[tuple[bool | None, Failure | None]]:
    """
    Compare references with answers, and say whose fault it is where a comparison fails.

    An answer that cannot be evaluated within the limits is wrong, if its reference alone takes at most half the time:
    otherwise a model could have its wrong answers left out by answers that hang the grader.

    Args:
        timeout_s (`float`): As in [`run`].

    Returns:
        `list[tuple[bool | None, Failure | None]]`: Verdicts in order, each with the reason why a comparison failed.
        The verdict is `None` where the reference cannot be evaluated, or the worker processes are gone.
    """
    results = run("same_value", pairs, timeout_s)
    failed = [reference for (reference, _), (outcome, _) in zip(pairs, results, strict=True) if outcome in _OF_THE_JOB]
    alone = [(reference, "") for reference in dict.fromkeys(failed)]
    sound = {
        reference: outcome
        for (reference, _), (outcome, _) in zip(alone, run("can_be_evaluated", alone, timeout_s / 2), strict=True)
    }
    verdicts: list[tuple[bool | None, Failure | None]] = []
    for (reference, _), (outcome, verdict) in zip(pairs, results, strict=True):
        if outcome == "done":
            verdicts.append((verdict, None))
        elif outcome == "lost" or sound[reference] == "lost":
            verdicts.append((None, "lost"))
        elif sound[reference] == "done":
            verdicts.append((False, outcome))
        else:
            verdicts.append((None, "reference"))
    for correct, words in ((False, "answers could not be evaluated and are wrong"), (None, "gave no verdict")):
        if counts := Counter(failure for verdict, failure in verdicts if failure and verdict is correct):
            reasons = ", ".join(f"{failure} {number}" for failure, number in counts.items())
            logger.warning(f"{counts.total()} of {len(pairs)} comparisons of expressions: {words}: {reasons}")
    return verdicts


def _run_once(jobs: Sequence[_Job]) -> dict[_Job, Result]:
    global _server
    with _lock:
        # A job that another thread has already sent is not sent again: both wait for one future.
        fresh = [job for job in dict.fromkeys(jobs) if job not in _verdicts]
        for job in fresh:
            _verdicts[job] = Future()
        futures = {job: _verdicts[job] for job in jobs}
        for job in jobs:
            _verdicts.move_to_end(job)
        while len(_verdicts) > CACHED_VERDICTS:
            _verdicts.popitem(last=False)
        if fresh:
            if _server is None or not _server.alive:
                _server = _Server()
            _server.submit(fresh, [futures[job] for job in fresh])
        server = _server
    results: dict[_Job, Result] = {}
    for job, future in futures.items():
        patience_s = _patience(job) + 60  # the server has given up the job by then, or is dead
        results[job] = server.wait_for(future, patience_s) if server else future.result(patience_s)
    with _lock:
        for job, (outcome, _) in results.items():
            if outcome != "done" and _verdicts.get(job) is futures[job]:
                del _verdicts[job]
    return results


def close() -> None:
    """End the worker processes; the next comparison starts new ones."""
    global _server
    with _lock:
        if _server:
            _server.kill()
            _server = None


def _start_anew_in_child() -> None:
    # The parent's server is not for this process, and its reading thread does not exist here.
    global _lock, _server
    if _server:
        _server.forget()
        _server = None
    _verdicts.clear()
    _lock = threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_start_anew_in_child)
