"""Loss masks: the tokens that SFT trains, found by TRL's own preparation of rows."""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from schoolhouse.core.chat_templates import training_tokenizer


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

MAX_ROWS = 256


def encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, training_args: SFTConfig) -> Dataset:
    """
    Tokenize and mask rows with TRL's own code, neither truncated nor packed: `input_ids` and `labels` (`-100` where
    not trained) for each row.
    """
    from trl import SFTTrainer

    if training_args.assistant_only_loss:
        tokenizer = training_tokenizer(tokenizer)
    completion_only = training_args.completion_only_loss
    if completion_only is None:
        completion_only = {"prompt", "completion"} <= set(rows.column_names)
    args = copy.copy(training_args)
    args.max_length = None
    # The attributes of a trainer that this method reads.
    trainer = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=completion_only)
    with quiet_datasets():
        return SFTTrainer._prepare_dataset(trainer, rows, tokenizer, args, False, None, "check")


def mark(ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase, marks: tuple[str, str]) -> str:
    """
    Return the text of a sample with `marks` before and after each trained stretch, special tokens included, control
    characters made visible.
    """
    edges = [i for i in range(1, len(ids)) if (labels[i] == -100) != (labels[i - 1] == -100)]
    text, shown = "", 0
    for start, end in zip([0, *edges], [*edges, len(ids)], strict=True):
        # The difference of two prefixes: a piece decoded alone may lose its first space.
        prefix = tokenizer.decode(ids[:end], skip_special_tokens=False)
        piece = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], prefix[shown:])
        shown = len(prefix)
        text += piece if labels[start] == -100 else f"{marks[0]}{piece}{marks[1]}"
    return text


def answer_tokens(rows: Dataset, tokenizer: PreTrainedTokenizerBase, training_args: SFTConfig) -> list[int]:
    """
    Return the tokens that answers need, ascending: those trained in at least one row of twenty, such as an answer
    mark. Up to 256 rows are read, evenly spaced.
    """
    return frequent(encode(rows.select(evenly_spaced(rows)), tokenizer, training_args))


def evenly_spaced(rows: Dataset) -> range:
    """Indices of up to 256 rows, evenly spaced."""
    return range(0, len(rows), math.ceil(len(rows) / MAX_ROWS))


def frequent(encoded: Dataset) -> list[int]:
    """Tokens trained in one of twenty encoded rows or more."""
    counts = Counter(token for labels in encoded["labels"] for token in set(labels) - {-100})
    return sorted(token for token, count in counts.items() if 20 * count >= len(encoded))


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    import datasets

    was_on = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            datasets.enable_progress_bars()
