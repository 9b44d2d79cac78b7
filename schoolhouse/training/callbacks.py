"""Callbacks of every recipe: a current manifest, a clean stop at a signal, progress for terminal and pipeline."""

from __future__ import annotations

import atexit
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from schoolhouse.core.escape import one_line
from schoolhouse.core.progress import clock, metrics_line, report_progress
from schoolhouse.core.run import Run, peak_bytes


class RunCallback(TrainerCallback):
    """
    Saves the manifest with every checkpoint, reports progress, and turns the first Ctrl-C or SIGTERM into a checkpoint
    and a stop after the current step. The second signal stops at once.

    Args:
        run ([`Run`]):
            The open run folder.

    Attributes:
        stopped_by (`int` or `None`): number of the signal that stopped the run.
    """

    def __init__(self, run: Run):
        self.run = run
        self.stopped_by: int | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        self._restore()
        if self.run.is_writer:
            print("\nfinishing this step and saving a checkpoint; once more stops at once", flush=True)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request)
        self._report(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._report(state)
        stop = self.stopped_by or 0
        if args.world_size > 1:
            # Signals reach processes at different steps, and saving needs them all at the same one.
            agreed = torch.tensor(stop, device=args.device)
            torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
            stop = int(agreed)
        if stop and state.global_step < state.max_steps:
            self.stopped_by = stop
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **kwargs: Any):
        self._report(state, logs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.run.save(steps=state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._restore()
        if state.global_step >= state.max_steps:
            self.stopped_by = None  # it came when there was nothing left to stop

    def _report(self, state: TrainerState, logs: dict[str, Any] | None = None) -> None:
        if state.is_world_process_zero:
            report_progress("train", state.global_step, state.max_steps, logs)


def show_progress(trainer: Trainer, run: Run) -> None:
    """Replace the progress bar and the printed dictionaries of transformers by a [`TerminalCallback`]."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TerminalCallback(run))


class TerminalCallback(TrainerCallback):
    """
    Shows step, time left, the newest metrics by name, tokens per second and the peak of memory.

    Args:
        run ([`Run`]):
            The open run folder.
    """

    def __init__(self, run: Run):
        self.run = run
        self._live: Progress | None = None
        self._metrics = ""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, model=None, **kwargs: Any):
        if not state.is_world_process_zero:
            return
        self._began = self._logged = time.monotonic()
        self._first, self._tokens = state.global_step, 0
        print(self._start_line(state, model), flush=True)
        if sys.stdout.isatty():
            rest = TextColumn(
                "{task.fields[metrics]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            )
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(16), TimeRemainingColumn(), rest)
            self._live = Progress(*columns, transient=True, expand=True)
            self._task = self._live.add_task("", total=state.max_steps, completed=state.global_step, metrics="")
            self._live.start()
            atexit.register(self._live.stop)  # an exception must not leave the cursor hidden

    def _start_line(self, state: TrainerState, model: torch.nn.Module) -> str:
        manifest = self.run.manifest
        everything = sum(weight.numel() for weight in model.parameters())
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        sources = [source for source in manifest.data if source.role == "train"]
        parts = [
            f"{manifest.recipe}: {one_line(manifest.model.name) if manifest.model else 'a new model'}",
            f"{_millions(everything)} parameters, {_millions(trained)} trained",
            *(f"{source.used_rows:,} rows of {one_line(source.name)}" for source in sources),
            f"{state.max_steps} steps" + (f" from step {state.global_step}" if state.global_step else ""),
            f"to {self.run.folder}",
        ]
        return " · ".join(parts)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self._live is not None:
            self._live.update(self._task, completed=state.global_step, metrics=self._metrics)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs=None, **kwargs: Any):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        now = time.monotonic()
        parts = [metrics_line(logs)]
        if tokens := logs.get("num_tokens"):
            parts.append(f"{(float(tokens) - self._tokens) / max(now - self._logged, 1e-9):,.0f} tokens/s")
            self._tokens, self._logged = float(tokens), now
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes()
        self._metrics = "  ".join([*filter(None, parts), f"{peak / 2**30:.1f} GiB"])
        if self._live is not None:
            self._live.update(self._task, completed=state.global_step, metrics=self._metrics)
            return
        left = ""
        if done := state.global_step - self._first:
            left = f"  {clock((now - self._began) / done * (state.max_steps - state.global_step))} left"
        print(f"step {state.global_step}/{state.max_steps}  {self._metrics}{left}", flush=True)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self._live is not None:
            self._live.stop()


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number < 1e9 else f"{number / 1e9:.2f}B"
