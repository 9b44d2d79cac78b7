"""Server process of the grading workers: `python -m schoolhouse.graders.worker FD WORKERS`, started by `pool.py`.

It imports math-verify once and forks workers. They start in milliseconds and hold nothing of the trainer: no weights,
no GPU, no `__main__` to import again.

Protocol on the socket FD, in JSON: it reads lists of `[id, task, reference, answer, timeout_s]` and writes
`[id, outcome, verdict]` as soon as each is done. When the socket closes, however the trainer ended, the server ends
with all of its workers.
"""

import contextlib
import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify
from pebble import ProcessExpired, ProcessPool


WORKER_MEMORY_BYTES = 1 << 30
GRACE_S = 5.0
# 50 digits tell closed forms apart that 15 cannot: math-verify's default takes 2^-99 and 2^-98 for one number.
DIGITS = 60

_MIXED = re.compile(r"(?<![\d}])(\d+)\s*(\\frac\{\d+\}\{\d+\})")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_ONE_EXPRESSION = [LatexExtractionConfig(boxed_match_priority=-1)]


def _exact_latex(text: str) -> str:
    r"""Rewrite an expression so that math-verify reads it exactly.

    Each step is for a case that math-verify alone gets wrong: `1,234\sqrt{2}`; `1\frac{1}{2}x` as a product; `0.1`
    equal to `0.1000001`, since it compares decimals after rounding; `2 sqrt(3)` and `36 pi` without backslashes;
    `\sqrt 10` as $\sqrt{1} \cdot 0$.
    """
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if re.fullmatch(r"[^,]*\d,\d{3}[^,]*", text) else text
    text = _MIXED.sub(r"(\1+\2)", text)
    text = _DECIMAL.sub(lambda m: rf"\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|sqrt|log|ln|sin|cos|tan)(?![a-zA-Z])", r"\\\1", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"\\sqrt\s+(\d+)", r"\\sqrt{\1}", text)


def _read(text: str) -> Any:
    found = parse(f"${_exact_latex(text)}$", _ONE_EXPRESSION, fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


def _same_number(reference: sympy.Expr, answer: sympy.Expr) -> bool:
    """Compare to 50 significant digits. math-verify compares absolute differences, where 10^-100 equals 10^-101."""
    reference, answer = reference.doit(), answer.doit()
    if reference == answer:
        return True
    if reference.is_Rational and answer.is_Rational:
        return False
    one, other = sympy.N(reference, DIGITS), sympy.N(answer, DIGITS)
    if not (one.is_finite and other.is_finite):
        return False
    distance, size = abs(one - other), max(abs(one), abs(other))
    if distance <= size * sympy.Float(10) ** (10 - DIGITS):
        return True
    # Both are next to zero, where relative precision is lost: only algebra can tell.
    return bool(distance < sympy.Float(10) ** (20 - DIGITS) and sympy.simplify(reference - answer) == 0)


def _is_number(value: object) -> bool:
    return isinstance(value, sympy.Expr) and not value.free_symbols and not value.has(sympy.UnevaluatedExpr)


def same_value(reference: str, answer: str) -> bool:
    """Compare two cleaned expressions: numbers to 50 digits or exactly, everything else by math-verify."""
    one, other = _read(reference), _read(answer)
    if one is None or other is None:
        return False
    if _is_number(one) and _is_number(other):
        return _same_number(one, other)
    return verify([one], [other], numeric_precision=DIGITS, timeout_seconds=None)


def math_verify_default(reference: str, answer: str) -> bool:
    """Compare as math-verify's documentation does."""
    return verify(parse(reference), parse(answer))


TASKS: dict[str, Callable[[str, str], bool]] = {
    "same_value": same_value,
    "math_verify_default": math_verify_default,
}


def run_task(task: str, reference: str, answer: str, timeout_s: float) -> bool:
    """Run one comparison in a worker, which ends by itself soon after the limit.

    The server kills a worker at the limit; but trainer and server may both be killed, and then only the kernel's timer
    is left to end an endless computation.
    """
    signal.setitimer(signal.ITIMER_PROF, timeout_s + GRACE_S)
    try:
        return TASKS[task](reference, answer)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _confine(socket: int) -> None:
    """Prepare a worker: default signals, no connection, no standard streams, a limit on memory."""
    # pebble's own handler is Python code, which cannot run during a computation in gmpy2 (sympy uses it if installed).
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(socket)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses limits on the address space
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY_BYTES, WORKER_MEMORY_BYTES))


def _outcome(future: Future[bool]) -> tuple[str, bool | None]:
    error = future.exception()
    if error is None:
        return "done", future.result()
    if isinstance(error, TimeoutError):
        return "timeout", None
    if isinstance(error, MemoryError):
        return "memory", None
    return ("died" if isinstance(error, ProcessExpired | BrokenExecutor) else "error"), None


def serve(socket: int, workers: int) -> None:
    """Answer requests on a socket, with that many worker processes, until the other end closes."""
    logging.disable(logging.CRITICAL)
    same_value(r"\sqrt{2}", "x")  # builds the parser's tables once, before the workers are forked
    connection, sending = Connection(socket), Lock()
    pool = ProcessPool(workers, initializer=_confine, initargs=(socket,), context=get_context("fork"))

    def reply(number: int, future: Future[bool]) -> None:
        with sending, contextlib.suppress(OSError):
            connection.send_bytes(json.dumps([number, *_outcome(future)]).encode())

    with contextlib.suppress(EOFError, OSError, RuntimeError):  # pebble raises the last when its pool is broken
        while True:
            for number, *job in json.loads(connection.recv_bytes()):
                future = pool.schedule(run_task, args=job, timeout=job[-1])
                future.add_done_callback(partial(reply, number))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
