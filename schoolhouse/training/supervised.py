"""TRL's trainers for examples and pairs, with batches by length that a resumed run finds again."""

from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import RewardTrainer, SFTTrainer


class _SeededBatches:
    """
    Has `train_sampling_strategy: group_by_length` depend on seed and epoch alone. The Trainer draws these batches from
    the global generator, so a run resumed after its first epoch would draw others.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed

            def set_epoch(epoch: int) -> None:
                sampler.generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)

            sampler.set_epoch = set_epoch
        return sampler


class ExampleTrainer(_SeededBatches, SFTTrainer):
    """[`~trl.SFTTrainer`] that goes on after an interruption with the batches that were left."""


class PairTrainer(_SeededBatches, RewardTrainer):
    """
    [`~trl.RewardTrainer`] that goes on after an interruption with the batches that were left, and whose head, which
    begins at random, may learn at a rate of its own.

    Args:
        head_learning_rate (`float`, *optional*):
            Learning rate of the head; that of everything else by default.
    """

    def __init__(self, *args: Any, head_learning_rate: float | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.head_learning_rate = head_learning_rate

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.head_learning_rate is not None:
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
