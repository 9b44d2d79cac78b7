"""Supervised fine-tuning: TRL's trainer, with exact resumption of batches by length."""

import trl

from schoolhouse.training.sampling import SeededLengthGrouping


class SFTTrainer(SeededLengthGrouping, trl.SFTTrainer):
    """
    [`~trl.SFTTrainer`] of this package. Packing, loss masks and the loss are TRL's.

    It adds one thing: with `train_sampling_strategy: group_by_length`, a resumed run continues with the very batches
    that were left.
    """
