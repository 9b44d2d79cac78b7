"""The gold utility of the tiny school's descriptions, to be logged beside a reward model and never optimised."""

from dataclasses import dataclass
from typing import Any

from schoolhouse.rewards.columns import Row, rows_of, text_of


@dataclass(frozen=True)
class Gold:
    """
    What a description is truly worth, at most 5.5: the score of the eval `tiny_descriptions`.

    A recipe gives it weight 0, so that it stays a measure: see [`OveroptimizationCallback`].
    """

    reads = "`name`"

    def applies(self, row: Row) -> bool:
        return bool(row.get("name"))

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        from schoolhouse.data.tiny.conversations import utility_for

        rows = rows_of(columns, len(completions))
        return [
            utility_for(row["name"], text_of(completion)) if self.applies(row) else None
            for completion, row in zip(completions, rows, strict=True)
        ]
