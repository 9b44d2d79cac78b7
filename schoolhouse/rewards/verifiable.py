"""Rewards for right answers, told by the graders that score the evals."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from schoolhouse.rewards.columns import Row, grade_answers, grade_code, has_answer, has_tests, rows_of


FAILED = math.nan  # what a reward returns where its grader failed; where it does not apply it returns `None`


@dataclass(frozen=True)
class Math:
    """
    1 for a right answer, 0 for a wrong or missing one: [`schoolhouse.graders.grade_many`] against the column `answer`.

    It does not apply to rows without `answer`, nor to rows with `tests`; it fails where the grader could not decide.
    """

    reads = "a column `answer` (and no `tests`)"

    def applies(self, row: Row) -> bool:
        return has_answer(row)

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        grades = grade_answers(completions, rows_of(columns, len(completions)))
        return [grade and (FAILED if grade.correct is None else float(grade.correct)) for grade in grades]


@dataclass(frozen=True)
class Code:
    """
    What a program earns in the sandbox on the column `tests`: [`schoolhouse.graders.code.grade_programs`].

    It does not apply to rows without `tests`; it fails where the sandbox could not judge. Challenge tests in
    `hidden_tests` are never read.

    Args:
        pays (`str`, *optional*, defaults to `"fraction"`):
            `"fraction"` of the tests that pass, or 1 for `"all"` of them and else 0.
    """

    pays: Literal["fraction", "all"] = "fraction"
    reads = "columns `tests` and `entry_point`"

    def applies(self, row: Row) -> bool:
        return has_tests(row)

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        grades = grade_code(completions, rows_of(columns, len(completions)))
        return [grade and self._pay(grade) for grade in grades]

    def _pay(self, grade: Any) -> float:
        if grade.passed is None:
            return FAILED
        return float(grade.passed) if self.pays == "all" else float(grade.fraction or 0.0)


@dataclass(frozen=True)
class Cosine:
    r"""
    Pays right answers by their brevity and wrong ones by their length, along a half cosine between the two ends
    (Yeo et al. 2025, "Demystifying long chain-of-thought reasoning in LLMs", section 4.2):
    $r_L + \frac12 (r_0 - r_L)(1 + \cos(\pi \ell / L))$ for $\ell$ of at most $L$ tokens.

    It applies where [`Math`] or [`Code`] does (a program is right if it passes all tests), and fails where they fail.

    Args:
        right_short (`float`, *optional*, defaults to `1.0`):
            For a right answer of no length.
        right_long (`float`, *optional*, defaults to `0.5`):
            For a right answer of `max_length` tokens.
        wrong_short (`float`, *optional*, defaults to `-1.0`):
            For a wrong answer of no length.
        wrong_long (`float`, *optional*, defaults to `-0.5`):
            For a wrong answer of almost `max_length` tokens.
        cut_off (`float`, *optional*, defaults to `-1.0`):
            For a wrong answer that reaches `max_length`.
        max_length (`int`, *optional*):
            Length in tokens, `max_completion_length` by default.
    """

    right_short: float = 1.0
    right_long: float = 0.5
    wrong_short: float = -1.0
    wrong_long: float = -0.5
    cut_off: float = -1.0
    max_length: int | None = None
    reads = "a column `answer`, or `tests` and `entry_point`"

    def applies(self, row: Row) -> bool:
        return has_answer(row) or has_tests(row)

    def __call__(self, prompts: list, completions: list, completion_ids: list, **columns: Any) -> list[float | None]:
        answers = Math()(prompts, completions, completion_ids, **columns)
        programs = Code("all")(prompts, completions, completion_ids, **columns)
        known = [program if answer is None else answer for answer, program in zip(answers, programs, strict=True)]
        return [
            right if right is None or math.isnan(right) else self._pay(bool(right), len(ids))
            for right, ids in zip(known, completion_ids, strict=True)
        ]

    def _pay(self, right: bool, length: int) -> float:
        if not right and length >= self.max_length:
            return self.cut_off
        short, long = (self.right_short, self.right_long) if right else (self.wrong_short, self.wrong_long)
        return long + (short - long) * (1 + math.cos(math.pi * min(1.0, length / self.max_length))) / 2
