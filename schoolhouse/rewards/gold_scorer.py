"""True utility of the tiny world's descriptions, logged beside a reward model and never optimised."""

from __future__ import annotations

from dataclasses import dataclass

from schoolhouse.rewards.base import Batch, RewardFunction, Values
from schoolhouse.rewards.columns import Row


@dataclass(frozen=True)
class GoldScorer(RewardFunction):
    """
    True utility of a description, at most 5.5: the score of the eval `tiny_descriptions`.

    A recipe gives it weight 0, so that it stays a measure: see [`OveroptimizationCallback`].
    """

    reads = "a column `name`"

    def applies(self, row: Row) -> bool:
        return bool(row.get("name"))

    def score(self, batch: Batch) -> Values:
        from schoolhouse.data.tiny.conversations import utility_for

        return [
            utility_for(row["name"], text) if self.applies(row) else None
            for text, row in zip(batch.responses, batch.rows, strict=True)
        ]
