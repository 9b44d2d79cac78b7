"""A program in a process group of its own: output in a log, signals passed on, nobody left when the course dies."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path


# Waits on a pipe that only the course holds open. However the course ends, the group ends with it.
_WATCHER = ["sh", "-c", "trap '' INT TERM HUP; read _; kill -KILL 0"]
_PROGRESS = re.compile(rb"(\d+)/(\d+) \[[\d:]+<([\d:?]+)")
_METRICS = re.compile(rb"\{'[^{}\n]*\}")


class Stop:
    """
    Turns Ctrl-C and SIGTERM into a request that the running program finishes its step; the second one ends it at once.

    Attributes:
        number (`int` or `None`): the signal that came.
    """

    def __init__(self):
        self.number: int | None = None
        self.group: int | None = None
        self._lock = threading.Lock()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        again, self.number = self.number is not None, number
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL if again else number)


def run_program(
    command: Sequence[str], log: Path, stop: Stop, show: Callable[[str, str], None] = lambda progress, metrics: None
) -> tuple[int, float, int]:
    """
    Run a program to its end, and to that of every process it started in its group.

    Args:
        command (`Sequence[str]`):
            Program and arguments.
        log (`Path`):
            File that its output is appended to.
        stop ([`Stop`]):
            Where signals arrive.
        show (`Callable`, *optional*):
            Called with progress and last metrics, as the program prints them.

    Returns:
        `tuple[int, float, int]`: exit status, seconds, and the peak of resident memory in bytes.
    """
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    watcher = subprocess.Popen(_WATCHER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0)
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=watcher.pid,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        stop.group = watcher.pid
        if stop.number is not None:
            os.killpg(watcher.pid, stop.number)
        progress, metrics = "", ""
        with log.open("ab", buffering=0) as file:
            # The end of the output is the end of all who could write to it, also where a launcher died before its own.
            while chunk := os.read(program.stdout.fileno(), 1 << 16):
                file.write(chunk)
                if found := _PROGRESS.findall(chunk):
                    done, total, left = (part.decode() for part in found[-1])
                    progress = f"{done}/{total}, {left} left"
                if found := _METRICS.findall(chunk):
                    metrics = found[-1].decode(errors="replace")
                show(progress, metrics)
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        program.stdout.close()
        return program.returncode, time.monotonic() - began, usage.ru_maxrss * 1024
    finally:
        stop.group = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        watcher.wait()
        watcher.stdin.close()


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, without control characters; of a progress bar only its last state."""
    text = log.read_bytes()[-20_000:].decode(errors="replace").replace("\r\n", "\n")
    rows = [row.rsplit("\r", 1)[-1] for row in text.split("\n")]
    return "\n".join("".join(c for c in row if c.isprintable() or c == "\t") for row in rows[-lines:]).strip()
