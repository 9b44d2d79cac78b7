"""True utility of the tiny world's descriptions, logged beside a reward model and never optimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schoolhouse.rewards.base import Completion, RewardFunction, Row, Values
from schoolhouse.rewards.columns import rows_of, text_of


@dataclass(frozen=True)
class GoldScorer(RewardFunction):
    """
    True utility of a description, at most 5.5: the score of the eval `tiny_descriptions`.

    A recipe gives it weight 0, so that it stays a measure: see [`OveroptimizationCallback`].
    """

    reads = "a column `name`"

    def applies(self, row: Row) -> bool:
        return bool(row.get("name"))

    def __call__(
        self, prompts: list[Any], completions: list[Completion], completion_ids: list[list[int]], **columns: Any
    ) -> Values:
        from schoolhouse.data.tiny.conversations import utility_for

        rows = rows_of(columns, len(completions))
        return [
            utility_for(row["name"], text_of(completion)) if self.applies(row) else None
            for completion, row in zip(completions, rows, strict=True)
        ]
