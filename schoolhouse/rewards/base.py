"""Reward functions as TRL calls them, and the meaning of their values: numbers, `None` and NaN."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from schoolhouse.core.escape import response_of
from schoolhouse.rewards.columns import Completion, Row, rows_of, text_of


if TYPE_CHECKING:
    from torch import Tensor

Values = list[float | None]

GRADER_FAILED = math.nan


@dataclass(frozen=True)
class Batch:
    """Completions to score, as TRL passes them."""

    prompts: list[Any]  # text, or messages, of each completion's prompt
    completions: list[Completion]
    completion_ids: list[list[int]]
    columns: dict[str, Any]  # of the data, a list each, and a few objects of the trainer's that are no lists

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Row of the data for each completion."""
        return rows_of(self.columns, len(self.completions))

    @property
    def texts(self) -> list[str]:
        """Text of each completion, thoughts included."""
        return [text_of(completion) for completion in self.completions]

    @property
    def responses(self) -> list[str]:
        """Text of each completion without its thoughts."""
        return [response_of(text) for text in self.texts]


class RewardFunction(ABC):
    """
    A picklable callable with TRL's signature.

    For each completion it returns a number, `None` where it does not apply to the row (the sum of rewards then leaves
    it out), or NaN where its grader failed (the completion is then masked).

    Attributes:
        reads (`str`): the columns that it needs, in words.
    """

    reads: ClassVar[str] = "any row"

    runs_programs: ClassVar[bool] = False  # that a model wrote: on Linux only

    def applies(self, row: Row) -> bool:
        """Return whether the reward scores completions of this row."""
        return True

    def check_row(self, row: Row) -> str | None:
        """Return why completions of a row to which the reward applies could not be scored, or `None`."""
        return None

    def validate(self) -> None:  # noqa: B027  most rewards run everywhere
        """Raise `ValueError` if the reward cannot run on this machine."""

    def unsupported(self, rows: Sequence[Row]) -> list[str]:
        """
        Return for each row that the reward applies to why no completion of it can be rewarded, `""` where one can.
        [`validate`] must have passed.
        """
        return [""] * len(rows)

    @abstractmethod
    def score(self, batch: Batch) -> Values:
        """Return one value for each completion."""

    def __call__(
        self, prompts: list[Any], completions: list[Completion], completion_ids: list[list[int]], **columns: Any
    ) -> Values:
        return self.score(Batch(prompts, completions, completion_ids, columns))


class Reward:
    """
    One entry of a recipe's `rewards`: a function with its name and weight, callable as TRL calls it.

    TRL turns everything that is no number into NaN. A failed grader therefore travels as infinity, if the weight is
    not 0, and [`mask_invalid`] finds it again after the values of all processes are gathered.

    Args:
        name (`str`):
            Name in logs.
        weight (`float`):
            Weight in the sum of rewards. A reward of weight 0 is only logged.
        function ([`RewardFunction`]):
            Function that scores.
    """

    def __init__(self, name: str, weight: float, function: RewardFunction):
        self.__name__ = name  # TRL's name for it in logs
        self.weight = weight
        self.function = function

    def __call__(self, **batch: Any) -> Values:
        values = self.function(**batch)
        failed = math.inf if self.weight else None
        return [value if value is None or math.isfinite(value) else failed for value in values]


def mask_invalid(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """
    Set the values of invalid completions to NaN: those for which a reward with a weight failed, and those to which no
    reward with a weight applies.

    TRL gives advantage 0 to completions whose values are all NaN, and leaves them out of their group's mean and
    deviation. In other completions it counts a NaN as 0, which is right for a reward that does not apply.

    Args:
        values (`torch.Tensor` of shape `(B, R)`):
            Value of each [`Reward`] for each completion.
        weights (`torch.Tensor` of shape `(R,)`):
            Weights of the rewards.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: the values, NaN in the rows of invalid completions; and a mask `(B,)` of
        the completions for which a grader failed.
    """
    weighted = values[:, weights.to(values.device) != 0]
    failed = weighted.isinf().any(dim=1)
    not_applicable = weighted.isnan().all(dim=1)
    values = values.masked_fill(values.isinf(), math.nan)
    return values.masked_fill((failed | not_applicable).unsqueeze(1), math.nan), failed


def total(values: Tensor, weights: Tensor) -> Tensor:
    """
    Return the weighted sum of each completion's rewards, shape (B,), as TRL forms it after [`mask_invalid`], whose
    arguments it takes; NaN for invalid completions.
    """
    values, _ = mask_invalid(values, weights)
    return (values * weights).nansum(dim=1).masked_fill(values.isnan().all(dim=1), math.nan)
