"""A program in a process group of its own: output in a log, signals passed on, nobody left when the pipeline dies."""

import ast
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


# Waits on a pipe that only the pipeline holds open. However the pipeline ends, the group ends with it.
_WATCHER = ["sh", "-c", "trap '' INT TERM HUP; read _; kill -KILL 0"]
# A bar of tqdm, which its title precedes where it has one; the trainer's own has none.
_BAR = re.compile(rb"(?:([A-Za-z][\w ./()-]*): +)?\d+%\|[^|\r\n]*\| *(\d+)/(\d+) \[[\d:]+<([\d:?]+)")
_METRICS = re.compile(rb"\{'[^{}\n]*\}")
_LAUNCHER = re.compile(
    r'^Traceback \(most recent call last\):\n  File "<frozen runpy>"(?:(?!^Traceback ).)*'
    r"^subprocess\.CalledProcessError: Command .*\Z",
    re.DOTALL | re.MULTILINE,
)
_KEPT = 4096  # of the output, so that what a read has cut in two is still found


@dataclass
class Progress:
    """
    How far a program says it is.

    Args:
        what (`str`):
            Title of its progress bar, empty for the trainer's own.
        done (`int`), total (`int`):
            Steps; 0 before the first bar.
        left (`float` or `None`):
            Seconds that it expects to need.
        metrics (`dict[str, Any]`):
            What it logged last.
    """

    what: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    def read(self, output: bytes) -> None:
        """Take the newest bar and the newest metrics from a piece of output."""
        if bars := _BAR.findall(output):
            what, done, total, left = bars[-1]
            self.what, self.done, self.total = what.decode(errors="replace"), int(done), int(total)
            parts = left.split(b":")
            self.left = None if b"?" in left else sum(int(part) * 60**n for n, part in enumerate(reversed(parts)))
        if found := _METRICS.findall(output):
            with contextlib.suppress(ValueError, SyntaxError):
                self.metrics = ast.literal_eval(found[-1].decode(errors="replace"))


class Stop:
    """
    Turns Ctrl-C and SIGTERM into a request that the running program finishes its step; the second one ends it at once.

    Args:
        notify (`Callable`, *optional*):
            Called when the first signal comes.

    Attributes:
        number (`int` or `None`): the signal that came.
    """

    def __init__(self, notify: Callable[[], None] = lambda: None):
        self.number: int | None = None
        self.group: int | None = None
        self._notify = notify
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        again, self.number = self.number is not None, number
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL if again else number)
        if not again:
            self._notify()


def run_program(
    command: Sequence[str], log: Path, stop: Stop, show: Callable[[Progress], None] = lambda progress: None
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
            Called with the progress that the program prints.

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
        progress, recent = Progress(), b""
        with log.open("ab", buffering=0) as file:
            # The end of the output is the end of all who could write to it, also where a launcher died before its own.
            while chunk := os.read(program.stdout.fileno(), 1 << 16):
                file.write(chunk)
                recent = (recent + chunk)[-_KEPT:]
                progress.read(recent)
                show(progress)
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
    # That its program failed is all that the launcher's own traceback says.
    text = _LAUNCHER.sub("", text)
    rows = [row.rsplit("\r", 1)[-1] for row in text.split("\n")]
    return "\n".join("".join(c for c in row if c.isprintable() or c == "\t") for row in rows[-lines:]).strip()
