"""Rewards for the shape of an answer: its form, its length, its repetitions."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from schoolhouse.rewards.columns import Row, has_tests, rows_of, text_of


@dataclass(frozen=True)
class Format:
    """
    1 where the final answer is stated in the form asked for, right or wrong, else 0; the grader that reads the answer
    says so. It does not apply to rows with `tests`.

    Args:
        style (`str`, *optional*, defaults to `"hash"`):
            `"hash"` (`#### N`), `"boxed"` or `"think-answer"`, see [`schoolhouse.graders.grade_many`].
    """

    style: Literal["hash", "boxed", "think-answer"] = "hash"
    reads = "rows without `tests`"

    def applies(self, row: Row) -> bool:
        return not has_tests(row)

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        from schoolhouse.graders import grade_many

        rows = rows_of(columns, len(completions))
        golds = [str(row.get("answer") or "") for row in rows]
        grades = grade_many([text_of(completion) for completion in completions], golds, self.style)
        return [float(grade.format_ok) if self.applies(row) else None for grade, row in zip(grades, rows, strict=True)]


@dataclass(frozen=True)
class Overlong:
    """
    0 up to `max_length - soft` tokens, from there down in a straight line to -1 at `max_length` (Yu et al. 2025,
    "DAPO", equation 13).

    Args:
        soft (`int`, *optional*, defaults to `64`):
            Tokens before the limit from which length costs.
        max_length (`int`, *optional*):
            The limit in tokens, `max_completion_length` by default.
    """

    soft: int = 64
    max_length: int | None = None
    reads = "any row"

    def applies(self, row: Row) -> bool:
        return True

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        free = self.max_length - self.soft
        return [-min(1.0, max(0.0, (len(ids) - free) / self.soft)) for ids in completion_ids]


@dataclass(frozen=True)
class Repetition:
    """
    Minus the share of n-grams of tokens that stood in the answer before: 0 without a repetition, near -1 for
    "the the the". Tokens and not words, as a row of one letter is one word.

    Args:
        ngram (`int`, *optional*, defaults to `4`):
            Tokens of an n-gram.
    """

    ngram: int = 4
    reads = "any row"

    def applies(self, row: Row) -> bool:
        return True

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        return [self._pay(ids) for ids in completion_ids]

    def _pay(self, ids: list[int]) -> float:
        grams = list(zip(*(islice(ids, start, None) for start in range(self.ngram)), strict=False))
        return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
