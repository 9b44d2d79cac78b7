"""Computer algebra on text of a model, in worker processes that can be killed.

`9^9^9` hangs any process that evaluates it, and the time limits of math-verify are signals, which do not work outside
the main thread. So every comparison of expressions runs in a worker with a hard limit on time and memory.

The workers belong to a server process (`graders/worker.py`). It starts at the first need and ends with this process; a
forked child starts its own. Threads share it: each batch goes over one connection, one thread of ours reads the
answers, and every job has a future. Verdicts are kept, so that the same pair is compared once.
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
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import count
from multiprocessing.connection import Pipe
from pathlib import Path


logger = logging.getLogger(__name__)

CACHED_VERDICTS = 16_384
MAX_WORKERS = 4  # or one for each CPU, if there are fewer
# A server that has sent nothing this long after all time limits of its queue is taken for dead.
PATIENCE_S = 30.0

_ROOT = str(Path(__file__).parents[2])

_Job = tuple[str, str, str, float]  # task, reference, answer, time limit
_Result = tuple[str, bool | None]  # outcome ("done", "timeout", "memory", "died" or "error") and verdict


class _Server:
    """A running server process: one connection, and one thread that reads its answers."""

    def __init__(self) -> None:
        self.alive = True
        self._lock = threading.Lock()
        self._numbers = count()
        self._waiting: dict[int, Future[_Result]] = {}
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

    def submit(self, jobs: Sequence[_Job], futures: Sequence[Future[_Result]]) -> None:
        with self._lock:
            numbered = [(next(self._numbers), *job) for job in jobs]
            self._waiting |= {job[0]: future for job, future in zip(numbered, futures, strict=True)}
            if not self.alive:
                self._fail_waiting()
                return
            with contextlib.suppress(OSError):  # the server is dead: the reading thread fails all that waits
                self._connection.send_bytes(json.dumps(numbered).encode())

    def queue_length(self) -> int:
        return len(self._waiting)

    def _read_answers(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, outcome, verdict = json.loads(self._connection.recv_bytes())
                future = self._waiting.pop(number, None)
                if future:
                    future.set_result((outcome, verdict))
        self.kill()
        with self._lock:
            self.alive = False
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            self._waiting.popitem()[1].set_result(("died", None))

    def kill(self) -> None:
        if self._process.returncode is None:  # once waited for, its number may be another process's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def forget(self) -> None:
        """Close the connection of a forked copy, which is not the server's client."""
        self._connection.close()


_server: _Server | None = None
_verdicts: OrderedDict[_Job, Future[_Result]] = OrderedDict()
_lock = threading.Lock()


def run(task: str, pairs: Sequence[tuple[str, str]], timeout_s: float) -> list[bool | None]:
    """
    Run one comparison for each pair of reference and answer.

    Args:
        task (`str`): A key of `schoolhouse.graders.worker.TASKS`.
        timeout_s (`float`): Hard limit in seconds for one comparison, after which its worker is killed.

    Returns:
        `list[bool | None]`: The verdicts in order; `None` where a comparison failed, which is logged.
    """
    jobs = [(task, reference, answer, timeout_s) for reference, answer in pairs]
    results: dict[_Job, _Result] = dict.fromkeys(jobs, ("died", None))
    for _ in range(2):  # once more where a worker died: the text of another job may have killed it
        unfinished = [job for job, (outcome, _) in results.items() if outcome == "died"]
        results |= _run_once(unfinished, timeout_s) if unfinished else {}
    failed = Counter(results[job][0] for job in jobs if results[job][0] != "done")
    if failed:
        counts = ", ".join(f"{outcome} {number}" for outcome, number in failed.items())
        logger.warning(f"{failed.total()} of {len(jobs)} comparisons of expressions gave no verdict: {counts}")
    return [results[job][1] for job in jobs]


def _run_once(jobs: list[_Job], timeout_s: float) -> dict[_Job, _Result]:
    global _server
    with _lock:
        # A job that another thread has already sent is not sent again: both wait for one future.
        fresh = [job for job in jobs if job not in _verdicts]
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
    patience = PATIENCE_S + timeout_s * (server.queue_length() if server else 0)
    results: dict[_Job, _Result] = {}
    for job, future in futures.items():
        try:
            results[job] = future.result(patience)
        except TimeoutError:
            if server:
                server.kill()
            results[job] = "died", None
    with _lock:
        for job, (outcome, _) in results.items():
            if outcome == "died" and _verdicts.get(job) is futures[job]:
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
