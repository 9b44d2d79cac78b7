"""Callbacks of every recipe: the manifest stays current, a signal stops the run cleanly, a pipeline sees progress."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from schoolhouse.core.progress import report_progress
from schoolhouse.core.run import Run


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
