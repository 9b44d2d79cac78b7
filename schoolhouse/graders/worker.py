"""Server process of the grading workers: `python -m schoolhouse.graders.worker FD WORKERS`, started by `pool.py`.

It imports math-verify once and forks workers. They start in milliseconds and hold nothing of the trainer: no weights,
no GPU, no `__main__` to import again.

Protocol on the socket FD, in JSON: it reads lists of `[id, task, reference, answer, timeout_s, alone, patience_s]` and
writes `[id, outcome, verdict]` as soon as each is done. Jobs that are to run `alone` run one after another, each in a
new worker; after `patience_s` on the clock a job is given up. When the socket closes, however the trainer ended, the
server ends with all of its workers.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock

from math_verify import parse, verify
from pebble import ProcessExpired, ProcessPool

from schoolhouse.graders.algebra import can_be_evaluated, same_value


WORKER_MEMORY_BYTES = 1 << 30


def math_verify_default(reference: str, answer: str) -> bool:
    """Compare as math-verify's documentation does."""
    return verify(parse(reference), parse(answer))


TASKS: dict[str, Callable[[str, str], bool]] = {
    "same_value": same_value,
    "can_be_evaluated": can_be_evaluated,
    "math_verify_default": math_verify_default,
}


def run_task(task: str, reference: str, answer: str, timeout_s: float) -> bool:
    """
    Run one comparison in a worker, which the kernel ends at the limit.

    The limit is processor time: on a busy machine a comparison takes longer, but no more of it. The timer also ends
    what nobody is left to kill.
    """
    signal.setitimer(signal.ITIMER_PROF, timeout_s)
    try:
        return TASKS[task](reference, answer)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _confine(socket: int) -> None:
    """Prepare a worker: default signals, no connection, no standard streams, no core files, a limit on memory."""
    # pebble's own handler is Python code, which cannot run during a computation in gmpy2 (sympy uses it if installed).
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(socket)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS refuses limits on the address space
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY_BYTES, WORKER_MEMORY_BYTES))


def _outcome(future: Future[bool]) -> tuple[str, bool | None]:
    error = future.exception()
    if error is None:
        return "done", future.result()
    match error:
        case ProcessExpired():
            return ("timeout" if error.exitcode == -signal.SIGPROF else "died"), None
        case MemoryError():
            return "memory", None
        case TimeoutError() | BrokenExecutor():
            return "lost", None
    return "error", None


def serve(socket: int, workers: int) -> None:
    """Answer requests on a socket, with that many worker processes, until the other end closes."""
    logging.disable(logging.CRITICAL)
    # The parser's tables and what sympy imports late, once before workers are forked: 0.3 s that no limit counts.
    for reference, answer in ((r"\sqrt{2}", "x"), ("x^2 + 2x + 1", "(x+1)^2"), (r"\{1, \pi\}", r"\{\pi, 1\}")):
        same_value(reference, answer)
    connection, sending = Connection(socket), Lock()
    settings = {"initializer": _confine, "initargs": (socket,), "context": get_context("fork")}
    # A pool starts its workers with its first job.
    pools = {False: ProcessPool(workers, **settings), True: ProcessPool(1, max_tasks=1, **settings)}

    def reply(number: int, future: Future[bool]) -> None:
        with sending, contextlib.suppress(OSError):
            connection.send_bytes(json.dumps([number, *_outcome(future)]).encode())

    with contextlib.suppress(EOFError, OSError, RuntimeError):  # pebble raises the last when its pool is broken
        while True:
            for number, *job, alone, patience_s in json.loads(connection.recv_bytes()):
                future = pools[alone].schedule(run_task, args=job, timeout=patience_s)
                future.add_done_callback(partial(reply, number))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
