"""Reward modelling: TRL's trainer with a rate for the head, the members of an ensemble, the scale of scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import trl

from schoolhouse.core.run import Run, last_checkpoint
from schoolhouse.training.sampling import SeededLengthGrouping


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

REFERENCE_PAIRS = 256


class RewardTrainer(SeededLengthGrouping, trl.RewardTrainer):
    """
    [`~trl.RewardTrainer`] of this package. The loss, Bradley and Terry's negative log-likelihood of the preference
    -log σ(r(chosen) - r(rejected)), is TRL's.

    It adds two things: a learning rate for the head, and, with `train_sampling_strategy: group_by_length`, a resumed
    run that continues with the very batches that were left.

    Args:
        head_learning_rate (`float`, *optional*):
            Learning rate of the head, which starts at random weights while the adapter starts at trained ones.
            Defaults to `learning_rate`.
    """

    def __init__(self, *args: Any, head_learning_rate: float | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.head_learning_rate = head_learning_rate

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.head_learning_rate is not None:
            # Take the head's parameters out of their group, and add them as a group of their own.
            head = [
                parameter
                for name, parameter in self.model.named_parameters()
                if parameter.requires_grad and "score" in name.split(".")
            ]
            options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
            for group in optimizer.param_groups:
                group["params"] = [parameter for parameter in group["params"] if all(parameter is not p for p in head)]
            optimizer.add_param_group({**options, "params": head, "lr": self.head_learning_rate})
        return optimizer


@dataclass(frozen=True)
class Member:
    """One reward model of a run."""

    name: str | None  # of its folder in the run folder; `None` for the usual one
    training_args: TrainingArguments  # with the member's own seed and its own folder of checkpoints
    checkpoint: str | None  # to resume from


def open_members(run: Run, training_args: TrainingArguments, num_members: int) -> Iterator[Member]:
    """
    Yield the reward models that are still to be trained; the k-th has `seed + k`. A resumed run keeps the members that
    it has finished.
    """
    if num_members == 1:
        yield Member(None, training_args, run.checkpoint)
        return
    for number in range(num_members):
        name, is_last = f"members/{number}", number == num_members - 1
        if run.is_resumable and (run.folder / name).is_dir() and not is_last:
            continue
        args = copy.copy(training_args)
        args.seed += number
        args.run_name = f"{training_args.run_name}-member-{number}"
        args.data_seed = None if args.data_seed is None else args.data_seed + number
        args.output_dir = str(Path(training_args.output_dir) / f"member-{number}")
        found = last_checkpoint(Path(args.output_dir)) if run.is_resumable else None
        yield Member(name, args, None if found is None else str(found))


def reference_statistics(trainer: Trainer, pairs: Dataset) -> dict[str, float]:
    """
    Return mean and deviation (of the sample) of a reward model's scores on both sides of the first 256 pairs.

    The loss fixes differences of scores, not their level or scale. In standard deviations from this mean, scores of
    different reward models become comparable. Call it on every process: each scores the same texts, which sharded
    weights need.
    """
    pairs = pairs.select(range(min(REFERENCE_PAIRS, len(pairs))))
    trainer.model_wrapped.eval()
    scores = []
    for start in range(0, len(pairs), trainer.args.eval_batch_size):
        rows = pairs.select_columns(["chosen_ids", "rejected_ids"]).skip(start).take(trainer.args.eval_batch_size)
        batch = {name: tensor.to(trainer.args.device) for name, tensor in trainer.data_collator(list(rows)).items()}
        with torch.no_grad(), trainer.compute_loss_context_manager():
            scores.append(trainer.model_wrapped(**batch, use_cache=False).logits[:, 0].double().cpu())
    scores = torch.cat(scores)
    return {"mean": scores.mean().item(), "sd": scores.std().item(), "n": len(scores)}
