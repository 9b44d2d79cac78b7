"""Supervised fine-tuning: TRL's trainer, with exact resumption of batches by length."""

import trl

from schoolhouse.config.errors import ConfigError
from schoolhouse.training.sampling import SeededLengthGrouping


UNTRAINED_PERCENT = 1


class SFTTrainer(SeededLengthGrouping, trl.SFTTrainer):
    """
    [`~trl.SFTTrainer`] of this package. Packing, loss masks and the loss are TRL's.

    It adds two things: with `train_sampling_strategy: group_by_length`, a resumed run continues with the very batches
    that were left; and rows of which `max_length` keeps no trained token are counted, packed or not.

    Attributes:
        dropped_rows (`dict[str, int]`): number of such rows by the name of the data set (`train` or `eval`).
    """

    def __init__(self, *args, **kwargs):
        self.dropped_rows = {}
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
        given = (processing_class, args)
        if packing and args.packing_strategy != "bfd":  # the other strategies cut long rows into pieces and keep all
            return super()._prepare_dataset(dataset, *given, packing, formatting_func, dataset_name)
        # TRL drops such rows where it does not pack. Tokenized rows it packs as they are.
        prepared = super()._prepare_dataset(dataset, *given, False, formatting_func, dataset_name)
        dropped = len(dataset) - len(prepared)
        self.dropped_rows[dataset_name] = dropped
        if 100 * dropped > UNTRAINED_PERCENT * len(dataset):
            raise ConfigError(
                ("max_length",),
                f"{dropped} of {len(dataset)} rows keep no trained token within {args.max_length} tokens: their "
                "prompts alone are that long; raise max_length, or leave those rows out",
            )
        return super()._prepare_dataset(prepared, *given, True, None, dataset_name) if packing else prepared
