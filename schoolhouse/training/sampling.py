"""Batches of examples of similar length that a resumed run draws again."""

from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededLengthGrouping:
    """
    Mixin for trainers: the batches of `train_sampling_strategy: group_by_length` depend on seed and epoch alone.

    The Trainer draws these batches from the global generator. A run that is resumed in its second epoch has drawn
    fewer numbers from it than an uninterrupted run, so it would train on other batches.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed

            def set_epoch(epoch: int) -> None:  # the data loader calls it at the start of every epoch
                sampler.generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)

            sampler.set_epoch = set_epoch
        return sampler
