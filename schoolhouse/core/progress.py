"""Progress of a program for the pipeline that started it: a line of JSON per event."""

import json
import os
from typing import Any


# Set by a pipeline: the file that events are appended to.
PROGRESS_FILE = "SCHOOLHOUSE_PROGRESS"


def report_progress(what: str, step: int, of: int, metrics: dict[str, Any] | None = None) -> None:
    """
    Append an event to the file of the pipeline that started this program; without a pipeline do nothing.

    Args:
        what (`str`):
            The thing that is counted, such as `train` or the name of a task.
        step (`int`), of (`int`):
            Steps that are done, and all steps.
        metrics (`dict[str, Any]`, *optional*):
            Newest values that were logged.
    """
    if path := os.environ.get(PROGRESS_FILE):
        event = {"what": what, "step": step, "of": of, "metrics": metrics or {}}
        # One write of a short line in append mode arrives whole.
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")
