"""The process that owns the grading workers: `python -m schoolhouse.graders.worker FD WORKERS`, started by `pool.py`.

It imports math-verify once and forks workers that start in milliseconds and hold nothing of the trainer: no weights,
no GPU, no `__main__` to import again. It reads lists of `[id, task, gold, answer, timeout_s]` as JSON from a socket
and answers `[id, outcome, verdict]`; when the socket closes, because the trainer ended in whatever way, it ends with
all of its workers.
"""

import contextlib
import json
import logging
import os
import re
import resource
import signal
import sys
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock

import sympy
from math_verify import LatexExtractionConfig, parse, verify
from pebble import ProcessExpired, ProcessPool


WORKER_MEMORY_BYTES = 1 << 30
GRACE_S = 5.0
# 50 digits tell closed forms apart that 15 cannot; stock math-verify takes 2^-99 and 2^-98 for one number.
DIGITS = 60

_MIXED = re.compile(r"(?<![\d}])(\d+)\s*(\\frac\{\d+\}\{\d+\})")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_ONE_EXPRESSION = [LatexExtractionConfig(boxed_match_priority=-1)]


def _exact_latex(text: str) -> str:
    """Writes mixed numbers as sums, decimals as fractions, bare names as commands: what math-verify reads exactly."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if re.fullmatch(r"[^,]*\d,\d{3}[^,]*", text) else text
    text = _MIXED.sub(r"(\1+\2)", text)
    text = _DECIMAL.sub(lambda m: rf"\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|sqrt|log|ln|sin|cos|tan)(?![a-zA-Z])", r"\\\1", text.replace("*", r"\cdot "))
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"\\sqrt\s+(\d+)", r"\\sqrt{\1}", text)


def _read(text: str):
    found = parse(f"${_exact_latex(text)}$", _ONE_EXPRESSION, fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


def _same_number(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    gold, answer = gold.doit(), answer.doit()
    if gold == answer:
        return True
    if gold.is_Rational and answer.is_Rational:
        return False
    one, other = sympy.N(gold, DIGITS), sympy.N(answer, DIGITS)
    if not (one.is_finite and other.is_finite):
        return False
    distance, size = abs(one - other), max(abs(one), abs(other))
    if distance <= size * sympy.Float(10) ** (10 - DIGITS):
        return True
    return bool(distance < sympy.Float(10) ** (20 - DIGITS) and sympy.simplify(gold - answer) == 0)


def _is_number(value: object) -> bool:
    return isinstance(value, sympy.Expr) and not value.free_symbols and not value.has(sympy.UnevaluatedExpr)


def same_value(gold: str, answer: str) -> bool:
    """Whether two cleaned expressions are equal: numbers to 50 digits or exactly, all else by math-verify."""
    one, other = _read(gold), _read(answer)
    if one is None or other is None:
        return False
    if _is_number(one) and _is_number(other):
        return _same_number(one, other)
    return verify([one], [other], numeric_precision=DIGITS, timeout_seconds=None)


def stock(gold: str, answer: str) -> bool:
    """math-verify as its documentation uses it."""
    return verify(parse(gold), parse(answer))


TASKS = {"same_value": same_value, "stock": stock}


def _run(task: str, gold: str, answer: str, timeout_s: float) -> bool:
    # The kernel ends a worker that nobody is left to end: trainer and server may be killed at once.
    signal.setitimer(signal.ITIMER_PROF, timeout_s + GRACE_S)
    try:
        return TASKS[task](gold, answer)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _confine(socket: int) -> None:
    # pebble's own handler is Python code, which a computation in gmpy2 (sympy uses it where it is) does not let run.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(socket)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses limits on the address space
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY_BYTES, WORKER_MEMORY_BYTES))


def _outcome(future: Future) -> tuple[str, bool | None]:
    error = future.exception()
    if error is None:
        return "done", future.result()
    if isinstance(error, TimeoutError):
        return "timeout", None
    if isinstance(error, MemoryError):
        return "memory", None
    return ("died" if isinstance(error, ProcessExpired | BrokenExecutor) else "error"), None


def serve(socket: int, workers: int) -> None:
    """Answers until the other end closes.

    Args:
        socket (`int`): File descriptor of the connection to the client.
        workers (`int`): Worker processes to keep.
    """
    logging.disable(logging.CRITICAL)
    same_value(r"\sqrt{2}", "x")  # builds the parser's tables once, before the workers are forked
    connection, sending = Connection(socket), Lock()
    pool = ProcessPool(workers, initializer=_confine, initargs=(socket,), context=get_context("fork"))

    def reply(number: int, future: Future) -> None:
        with sending, contextlib.suppress(OSError):
            connection.send_bytes(json.dumps([number, *_outcome(future)]).encode())

    with contextlib.suppress(EOFError, OSError, RuntimeError):  # pebble raises the last when its pool is broken
        while True:
            for number, *job in json.loads(connection.recv_bytes()):
                future = pool.schedule(_run, args=job, timeout=job[-1])
                future.add_done_callback(partial(reply, number))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
