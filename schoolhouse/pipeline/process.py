"""A program in a process group of its own: output in a log, signals passed on, nobody left when the pipeline dies."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from schoolhouse.core.progress import PROGRESS_FILE


# Waits on a pipe that only the pipeline holds open. However the pipeline ends, the group ends with it.
_WATCHER = ["sh", "-c", "trap '' INT TERM HUP; read _; kill -KILL 0"]
_POLL_SECONDS = 0.25
_TAIL = 15  # lines of a log that are shown after a failure
_LAUNCHER = re.compile(
    r'^Traceback \(most recent call last\):\n  File "<frozen runpy>"(?:(?!^Traceback ).)*'
    r"^subprocess\.CalledProcessError: Command .*\Z",
    re.DOTALL | re.MULTILINE,
)


@dataclass
class Progress:
    """
    Progress that a program has reported.

    Args:
        what (`str`):
            Kind of steps: `train`, or the name of a task.
        done (`int`), total (`int`):
            Steps; 0 before the first event.
        left (`float` or `None`):
            Seconds that the remaining steps need, at the pace since the first event of the same kind.
        metrics (`dict[str, Any]`):
            Values that it logged last.
    """

    what: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    _first: tuple[float, int] = (0.0, 0)

    def update(self, event: dict[str, Any], now: float) -> None:
        """Take over an event of [`schoolhouse.core.progress.report_progress`] that came at `now`, in seconds."""
        if event["what"] != self.what:
            self.what, self._first, self.left = event["what"], (now, event["step"]), None
        self.done, self.total = event["step"], event["of"]
        self.metrics = event["metrics"] or self.metrics
        # The first event has a time but no duration: steps are counted from there, also in a resumed run.
        began, first_step = self._first
        if self.done > first_step:
            self.left = (self.total - self.done) * (now - began) / (self.done - first_step)


class _Events:
    """The file that a program reports progress to, read as it grows."""

    def __init__(self, path: Path):
        path.unlink(missing_ok=True)
        self.path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                # A line that is still being written waits for its end.
                lines = file.read().rpartition(b"\n")[0].splitlines(keepends=True)
        except FileNotFoundError:
            return []
        self._offset += sum(map(len, lines)) + (1 if lines else 0)
        return [json.loads(line) for line in lines]


class Stop:
    """
    Turn Ctrl-C and SIGTERM into a request that the running program finishes its step; the second one ends it at once.

    Args:
        notify (`Callable`, *optional*):
            Called when the first signal comes; `number` holds it from then on.
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
    command: Sequence[str],
    log: Path,
    stop: Stop,
    show: Callable[[Progress], None] = lambda progress: None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """
    Run a program to its end, and to that of every process it started in its group, and return its exit status.

    Args:
        log (`Path`):
            File that its output is appended to.
        show (`Callable`, *optional*):
            Called with the progress that the program reports.
        environment (`Mapping[str, str]`, *optional*):
            Further variables of its environment.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    events = _Events(log.with_name(f".{log.stem}.progress"))
    watcher = subprocess.Popen(_WATCHER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0)
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=watcher.pid,
            env=os.environ | environment | {"PYTHONUNBUFFERED": "1", PROGRESS_FILE: str(events.path.absolute())},
        )
        stop.group = watcher.pid
        if stop.number is not None:
            os.killpg(watcher.pid, stop.number)
        progress = Progress()
        assert program.stdout is not None  # it is a pipe
        with program.stdout, log.open("ab", buffering=0) as file:
            while True:
                readable, _, _ = select.select([program.stdout], [], [], _POLL_SECONDS)
                if readable:
                    # The end of the output is the end of all who could write to it, also where a launcher died before
                    # its own program.
                    if not (chunk := os.read(program.stdout.fileno(), 1 << 16)):
                        break
                    file.write(chunk)
                for event in events.read():
                    progress.update(event, time.monotonic())
                show(progress)
        return program.wait()
    finally:
        stop.group = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        watcher.wait()
        watcher.stdin.close()
        events.path.unlink(missing_ok=True)


def tail(log: Path) -> str:
    """Return the last lines of a log, without control characters; of a progress bar only its last state."""
    text = log.read_bytes()[-20_000:].decode(errors="replace").replace("\r\n", "\n")
    # That its program failed is all that the launcher's own traceback says.
    text = _LAUNCHER.sub("", text)
    rows = [row.rsplit("\r", 1)[-1] for row in text.split("\n")]
    return "\n".join("".join(c for c in row if c.isprintable() or c == "\t") for row in rows[-_TAIL:]).strip()
