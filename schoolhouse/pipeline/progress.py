"""Display of a running pipeline, a live board on a terminal and a line per event elsewhere, and of its plan."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from schoolhouse.core.environment import versions
from schoolhouse.core.escape import one_line
from schoolhouse.core.progress import clock, metrics_line
from schoolhouse.pipeline.estimates import Program, eval_seconds, left_out, peak_bytes, to_do, training_seconds
from schoolhouse.pipeline.plan import Pipeline, Stage
from schoolhouse.pipeline.process import Progress
from schoolhouse.pipeline.staleness import is_left_out, manifest_of, stale_reason


class View:
    """Show where a pipeline is, what its program last measured, and how long it will still take."""

    def __init__(self, name: str):
        self.name = name
        self.programs: Sequence[Program] = ()
        self.at = -1  # index of the program at work
        self.progress = Progress()
        self.stopping = False
        self._live: Any = None
        self._began = 0.0
        self._took: dict[int, float] = {}

    def begin(self, stage: Stage, what: str) -> None:
        """Show that a program starts."""
        self.at = next(
            n for n, program in enumerate(self.programs) if (program.stage, program.what) == (stage.name, what)
        )
        self.progress, self._began = Progress(), time.monotonic()
        place = f"{self.at + 1} of {len(self.programs)}{self._left()}"
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(get_renderable=self._board, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            print(f"{stage.name}: {what} begins ({place})", flush=True)

    def show(self, progress: Progress) -> None:
        """Take over the progress of the program."""
        self.progress = progress

    def stop(self) -> None:
        """Show that the program finishes its step and stops."""
        self.stopping = True
        if self._live is None:
            print("stopping after this step; once more ends it at once", flush=True)

    def end(self, outcome: str) -> None:
        """Show how the program ended."""
        self.close()
        took = self._took[self.at] = time.monotonic() - self._began
        program = self.programs[self.at]
        print(f"{program.stage}: {program.what} {outcome}, {clock(took)}", flush=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def seconds_left(self) -> tuple[float, bool]:
        """Return the seconds that the pipeline will still take, and whether that counts all of it."""
        later = [program.seconds for program in self.programs[self.at + 1 :]]
        expected, own = self.programs[self.at].seconds, self.progress.left
        if own is None or self.progress.what != "train":  # an evaluation counts each of its tasks anew
            own = None if expected is None else max(0.0, expected - (time.monotonic() - self._began))
        return (own or 0.0) + sum(filter(None, later)), None not in (own, *later)

    def _left(self) -> str:
        seconds, is_all = self.seconds_left()
        if not seconds and not is_all:
            return ""
        return f", {'about' if is_all else 'more than'} {clock(seconds)} left"

    def _board(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        heading = Text(f"{self.name}: {self.at + 1} of {len(self.programs)}{self._left()}", style="bold")
        table = Table.grid(padding=(0, 2))
        for number, program in enumerate(self.programs):
            if number < self.at:
                table.add_row(Text("✓", "green"), program.stage, program.what, Text(clock(self._took[number]), "dim"))
            elif number > self.at:
                known = "" if program.seconds is None else f"about {clock(program.seconds)}"
                table.add_row("", Text(program.stage, "dim"), Text(program.what, "dim"), Text(known, "dim"))
            else:
                step, cell = self.progress, Table.grid(padding=(0, 1))
                ran = Text(f"{clock(time.monotonic() - self._began)} so far")
                if step.total:
                    left = "" if step.left is None else f", {clock(step.left)} left"
                    title = "" if step.what == "train" else f"{one_line(step.what, 30)} "
                    ran = Text(f"{title}{step.done} of {step.total}{left}")
                    cell.add_row(ProgressBar(total=step.total, completed=step.done, width=20), ran)
                else:
                    cell.add_row(ran)
                table.add_row(Text("▸", "bold cyan"), Text(program.stage, "bold"), Text(program.what, "bold"), cell)
        parts = [heading, table]
        if shown := metrics_line(self.progress.metrics):
            parts.append(Text(shown, overflow="ellipsis", no_wrap=True, style="cyan"))
        if self.stopping:
            parts.append(Text("stopping after this step; once more ends it at once", style="bold yellow"))
        return Group(*parts)


def print_plan(pipeline: Pipeline, stages: list[Stage]) -> None:
    """Print what a run of these stages would do, how long that takes and how much memory, and what is not compared."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    programs, missing = to_do(pipeline, stages), left_out(pipeline, stages)
    due = {(program.stage, program.what) for program in programs}
    table = Table("stage", "recipe", "parent", "state", "training", "eval", "memory", box=box.SIMPLE_HEAD)
    for stage in stages:
        is_due = [what for what in ("train", "eval") if (stage.name, what) in due]
        word = stale_reason(pipeline, stage) or ("to evaluate" if is_due else "done")
        word = "needs Linux" if is_left_out(pipeline, stage) else word
        times = [
            None if stage.recipe is None else training_seconds(stage),
            eval_seconds(pipeline, stage) if stage.evals else None,
        ]
        peak = peak_bytes(pipeline, stage)
        memory = "" if peak is None else f"{'' if peak[1] else 'about '}{peak[0] / 2**30:.1f} GiB"
        cells = ["" if seconds is None else clock(seconds) for seconds in times]
        row = (stage.name, stage.recipe or "", stage.parent or "", word, *cells, memory)
        table.add_row(*(Text(cell, "" if is_due else "dim") for cell in row))
    console = Console()
    console.print(table)
    known = [program.seconds for program in programs if program.seconds is not None]
    parts = [f"about {clock(sum(known))}"] if known else []
    parts += [f"{len(programs) - len(known)} of unknown length"] if len(known) < len(programs) else []
    if programs:
        print(f"to do: {len(programs)} programs, {', '.join(parts)}")
    elif not missing:
        print("nothing to do: every stage is done and evaluated")
    for note in [*missing, *_not_compared(stages)]:
        print(note)


def _not_compared(stages: list[Stage]) -> list[str]:
    """Return lines on what may have changed without a stage being trained anew."""
    here, notes, hub = versions(), [], set()
    for stage in stages:
        if (manifest := manifest_of(stage)) is None:
            continue
        then = manifest.versions
        changed = [f"{name} {then[name]}, now {here.get(name)}" for name in then if then[name] != here.get(name)]
        if changed:
            notes.append(f"{stage.name} was trained with {'; '.join(changed)}")
        hub |= {f"{source.name} at {source.revision[:12]}" for source in manifest.data if source.revision}
    if hub:
        notes.append(f"data of the Hub: {', '.join(sorted(hub))}")
    if notes:
        notes.append(
            "libraries and commits on the Hub are not compared: another --output_dir trains with the new ones"
        )
    return notes
