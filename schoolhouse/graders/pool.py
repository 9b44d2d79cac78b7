"""Computer algebra on model text, in worker processes that can be killed.

`9^9^9` hangs any process that evaluates it, and math-verify's own time-outs are signals: off the main thread they are
gone. So every such comparison happens in a worker with a hard limit on time and memory. The workers belong to a server
process (`graders/worker.py`), started at the first need and ended with this process; a forked child starts its own.
"""

import atexit
import contextlib
import json
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


CACHED_VERDICTS = 16_384
# Beyond all time limits of what waits, a server without an answer is taken for dead.
PATIENCE_S = 30.0

_ROOT = str(Path(__file__).parents[2])


_Job = tuple[str, str, str, float]  # task, gold, answer, time limit


class _Server:
    """A running server process: one connection, one thread that reads its answers."""

    def __init__(self, workers: int):
        self.alive = True
        self._lock = threading.Lock()
        self._numbers = count()
        self._waiting: dict[int, Future] = {}
        self._connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "schoolhouse.graders.worker", str(theirs.fileno()), str(workers)]
        search_path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": search_path},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # no Ctrl-C of the terminal's, and one group to kill
        )
        theirs.close()
        threading.Thread(target=self._read, name="grading-pool", daemon=True).start()

    def submit(self, jobs: Sequence[_Job], futures: Sequence[Future]) -> None:
        with self._lock:
            numbered = [(next(self._numbers), *job) for job in jobs]
            self._waiting |= {job[0]: future for job, future in zip(numbered, futures, strict=True)}
            if not self.alive:
                self._fail_waiting()
                return
            with contextlib.suppress(OSError):  # a dead server: its reader fails what waits
                self._connection.send_bytes(json.dumps(numbered).encode())

    def queue_length(self) -> int:
        return len(self._waiting)

    def _read(self) -> None:
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
        self._connection.close()


_servers: dict[int, _Server] = {}
_verdicts: OrderedDict[_Job, Future] = OrderedDict()
_outcomes: Counter[str] = Counter()
_lock = threading.Lock()


def _server(workers: int) -> _Server:
    server = _servers.get(workers)
    if server is None or not server.alive:
        server = _servers[workers] = _Server(workers)
    return server


def run(
    task: str, pairs: Sequence[tuple[str, str]], timeout_s: float, workers: int | None = None
) -> list[bool | None]:
    """Runs one comparison for each pair of gold and answer.

    Args:
        task (`str`): `"same_value"` or `"stock"`, see `schoolhouse.graders.worker`.
        pairs (`Sequence[tuple[str, str]]`): Gold and answer.
        timeout_s (`float`): Hard limit in seconds for one comparison, after which its worker is killed.
        workers (`int`, *optional*): Worker processes; one per CPU, at most four, by default.

    Returns:
        `list[bool | None]`: The verdicts in order; `None` where a comparison failed.
    """
    workers = workers or min(4, os.cpu_count() or 1)
    jobs = [(task, gold, answer, timeout_s) for gold, answer in pairs]
    results = dict.fromkeys(jobs, ("died", None))
    for _ in range(2):  # once more where a worker died: it may have died of another's text
        unfinished = [job for job, (outcome, _) in results.items() if outcome == "died"]
        results |= _run_once(unfinished, timeout_s, workers) if unfinished else {}
    with _lock:
        _outcomes.update(results[job][0] for job in jobs)
    return [results[job][1] for job in jobs]


def _run_once(jobs: list[_Job], timeout_s: float, workers: int) -> dict[_Job, tuple[str, bool | None]]:
    with _lock:
        server = _server(workers)
        fresh = [job for job in jobs if job not in _verdicts]
        for job in fresh:
            _verdicts[job] = Future()
        futures = {job: _verdicts[job] for job in jobs}
        for job in jobs:
            _verdicts.move_to_end(job)
        while len(_verdicts) > CACHED_VERDICTS:
            _verdicts.popitem(last=False)
        if fresh:
            server.submit(fresh, [futures[job] for job in fresh])
    patience = PATIENCE_S + timeout_s * server.queue_length()
    results = {}
    for job, future in futures.items():
        try:
            results[job] = future.result(patience)
        except TimeoutError:
            server.kill()
            results[job] = "died", None
    with _lock:
        for job, (outcome, _) in results.items():
            if outcome == "died" and _verdicts.get(job) is futures[job]:
                del _verdicts[job]
    return results


def outcomes() -> dict[str, int]:
    """How the comparisons of this process ended: `done`, or failed by `timeout`, `memory`, `died` or `error`."""
    with _lock:
        return dict(_outcomes)


def close() -> None:
    """Ends the worker processes; the next comparison starts new ones."""
    with _lock:
        while _servers:
            _servers.popitem()[1].kill()


def _start_anew_in_child() -> None:
    # The parent's server is not this process's to use, and its reader thread does not exist here.
    global _lock
    for server in _servers.values():
        server.forget()
    _servers.clear()
    _verdicts.clear()
    _outcomes.clear()
    _lock = threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_start_anew_in_child)
