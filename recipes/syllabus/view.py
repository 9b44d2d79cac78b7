"""What is seen of a running course: one live line on a terminal, a line per event anywhere else."""

import sys
from typing import Any

from recipes.syllabus.plan import Course, Stage, is_done, read_json


class View:
    """Shows the program at work: its stage, how far it is, and what it last measured."""

    def __init__(self):
        self._live: Any = None
        self._title = ""

    def begin(self, stage: Stage, what: str) -> None:
        """A program starts."""
        self._title = f"{stage.name}: {what}"
        print(f"{self._title} begins", flush=True)
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(refresh_per_second=4, transient=True)
            self._live.start()

    def show(self, progress: str, metrics: str) -> None:
        """It printed something."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(f"{self._title}  {progress}\n{''.join(filter(str.isprintable, metrics))[:500]}"))

    def end(self, outcome: str) -> None:
        """It ended."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        print(f"{self._title} {outcome}", flush=True)


def print_plan(course: Course, stages: list[Stage]) -> None:
    """
    Print what a run would do.

    Args:
        course ([`~recipes.syllabus.plan.Course`]):
            The course.
        stages (`list[Stage]`):
            The stages that were asked for.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "recipe", "after", "state", "training", "memory", box=box.SIMPLE)
    total, unknown = 0.0, 0
    for stage in stages:
        state = read_json(stage.folder / "stage.json")
        word, minutes = _state(course, stage, state), stage.minutes
        if state.get("status") == "done" and state.get("seconds"):
            minutes = state["seconds"] / 60
        if word != "done":
            total, unknown = total + (minutes or 0.0), unknown + (minutes is None)
        table.add_row(
            *(stage.name, stage.recipe or "", stage.after or "", word),
            f"{minutes:.1f} min" if minutes is not None and stage.recipe else "",
            f"{state['peak_bytes'] / 2**30:.1f} GiB" if state.get("peak_bytes") else "",
        )
    Console().print(table)
    print(f"training to do: about {total:.1f} min" + f", and {unknown} stages of unknown length" * bool(unknown))


def _state(course: Course, stage: Stage, state: dict[str, Any]) -> str:
    if is_done(course, stage):
        return "done"
    if not state:
        return "new"
    return "goes on" if state.get("key") == stage.key and state.get("status") == "running" else "changed"
