"""Preference pairs as a reward model reads them, with counts of those that are left out or contradict others."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schoolhouse.data.columns import whole_text
from schoolhouse.training.loss_mask import quiet_datasets


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase
    from trl import RewardConfig


@dataclass
class Pairs:
    """Tokenized pairs and their counts."""

    # `chosen_ids`, `rejected_ids`, `length` (tokens of the longer side, which `train_sampling_strategy` reads), and
    # `margin` if asked for.
    rows: Dataset
    # Pairs `read` and `used`; left out: `ties` (in the data's scores or margin), `equal` (two equal texts), `empty` (a
    # side without text), `too_long` (a side over `max_length`); among those used: `repeated`, `contradicted` (the same
    # pair the other way round).
    counts: dict[str, int]
    longer_chosen: float  # share of the used pairs of unequal length in which the longer text is the preferred one
    lengths: list[int]  # tokens of the longer side of every pair that has two different texts

    @property
    def account(self) -> dict[str, float]:
        """Counts and shares for the run manifest."""
        return {**self.counts, "longer_chosen": self.longer_chosen}

    def __str__(self) -> str:
        counts = self.counts
        out = [
            f"{counts[key]:,} {words}"
            for key, words in (
                ("ties", "ties"),
                ("equal", "with two equal texts"),
                ("empty", "with an empty side"),
                ("too_long", "over max_length"),
            )
        ]
        return (
            f"{counts['used']:,} of {counts['read']:,} pairs are used; left out: {', '.join(out)}; among those used "
            f"{counts['repeated']:,} repeat and {counts['contradicted']:,} contradict another; the longer text is "
            f"chosen in {100 * self.longer_chosen:.1f} %"
        )


def encode_pairs(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, training_args: RewardConfig, use_margin: bool = False
) -> Pairs:
    """
    Tokenize pairs with TRL's own code, and leave out those that cannot be trained on. (TRL drops those over
    `max_length` silently.)

    The rows are in TRL's preference columns; `margin`, or `score_chosen` and `score_rejected`, may say that a pair is
    a tie. `use_margin` keeps the column `margin`, which the loss then subtracts.
    """
    import copy

    from trl import RewardTrainer

    args = copy.copy(training_args)
    args.max_length = None
    with quiet_datasets():
        encoded = RewardTrainer._prepare_dataset(None, rows, tokenizer, args, "check")
    limit = training_args.max_length or math.inf
    reasons: list[str | None] = []
    lengths, longer, unequal = [], 0, 0
    seen: Counter[tuple] = Counter()
    for row, chosen, rejected in zip(rows, encoded["chosen_ids"], encoded["rejected_ids"], strict=True):
        reason = _reason_to_leave_out(row, chosen, rejected, limit)
        reasons.append(reason)
        if reason in (None, "too_long"):
            lengths.append(max(len(chosen), len(rejected)))
        if reason is None:
            seen[tuple(chosen), tuple(rejected)] += 1
            unequal += len(chosen) != len(rejected)
            longer += len(chosen) > len(rejected)
    left_out = Counter(reasons)
    counts = {
        "read": len(rows),
        "used": left_out.pop(None, 0),
        **{name: left_out[name] for name in ("ties", "equal", "empty", "too_long")},
        "repeated": sum(count - 1 for count in seen.values()),
        "contradicted": sum(count for (chosen, rejected), count in seen.items() if (rejected, chosen) in seen),
    }
    columns = ["chosen_ids", "rejected_ids", *(["margin"] if use_margin and "margin" in rows.column_names else [])]
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    used = encoded.select_columns(columns).select(kept)
    longest = [max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in used]
    return Pairs(used.add_column("length", longest), counts, longer / max(unequal, 1), lengths)


def _reason_to_leave_out(row: dict[str, Any], chosen: list[int], rejected: list[int], limit: float) -> str | None:
    rated = row.get("score_chosen") is not None and row["score_chosen"] == row.get("score_rejected")
    if rated or row.get("margin") == 0:
        return "ties"
    if any(not _last_text(row[side]).strip() for side in ("chosen", "rejected")):
        return "empty"
    if chosen == rejected:
        return "equal"
    return "too_long" if max(len(chosen), len(rejected)) > limit else None


def _last_text(side: str | list[dict[str, Any]]) -> str:
    return whole_text({"text": side} if isinstance(side, str) else {"messages": side[-1:]})
