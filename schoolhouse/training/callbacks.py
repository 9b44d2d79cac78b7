"""What a run does besides training: keep its record current, and stop cleanly when told to."""

from __future__ import annotations

import signal
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from schoolhouse.core.run import RunManifest


class RunCallback(TrainerCallback):
    """
    Notes every checkpoint in the run record, and turns the first Ctrl-C or SIGTERM into a checkpoint and a stop after
    the current step. The second one stops at once.

    Args:
        record (`RunManifest`):
            Record of the run.

    Attributes:
        stopped_by (`int` or `None`): number of the signal that stopped the run.
    """

    def __init__(self, record: RunManifest):
        self.record = record
        self.stopped_by: int | None = None
        self._handlers: dict[int, Any] = {}

    def _request(self, number: int, frame: Any) -> None:
        self.stopped_by = number
        self._restore()
        if self.record.is_writer:
            print("\nfinishing this step and saving a checkpoint; once more stops at once", flush=True)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._request)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
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

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.record.save(steps=state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._restore()
        if state.global_step >= state.max_steps:
            self.stopped_by = None  # it came when there was nothing left to stop
