"""TRL's reward trainer with batches by length that a resumed run finds again."""

from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import RewardTrainer


class PairTrainer(RewardTrainer):
    """
    [`~trl.RewardTrainer`] in which `train_sampling_strategy: group_by_length` depends on seed and epoch alone.

    The Trainer draws these batches from the global generator, so a run that is resumed after its first epoch would
    draw others.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed

            def set_epoch(epoch: int) -> None:
                sampler.generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)

            sampler.set_epoch = set_epoch
        return sampler
