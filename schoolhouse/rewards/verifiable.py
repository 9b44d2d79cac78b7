"""Rewards for right answers, by the graders that also score the evals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schoolhouse.rewards.base import GRADER_FAILED, Batch, RewardFunction, Values
from schoolhouse.rewards.columns import (
    Row,
    check_answer,
    grade_answers,
    grade_code,
    has_answer,
    has_tests,
    unsupported_tests,
)


def _as_value(verdict: float | None) -> float:
    """Reward of a grader's verdict; `None` says that it could not decide."""
    return GRADER_FAILED if verdict is None else float(verdict)


@dataclass(frozen=True)
class Math(RewardFunction):
    """
    1 for a right answer, 0 for a wrong or missing one: [`schoolhouse.graders.grade_many`] against the column `answer`.

    It does not apply to rows without `answer`, nor to rows with `tests`; it fails where the grader cannot decide.
    TRL's `accuracy_reward` gives 0 to a right answer such as `#### 72`, and has no time limit outside the main thread.
    """

    reads = "a column `answer` (and no `tests`)"

    def applies(self, row: Row) -> bool:
        return has_answer(row)

    def check_row(self, row: Row) -> str | None:
        return check_answer(row)

    def score(self, batch: Batch) -> Values:
        grades = grade_answers(batch.completions, batch.rows)
        return [None if grade is None else _as_value(grade.correct) for grade in grades]


@dataclass(frozen=True)
class Code(RewardFunction):
    """
    Result of a program on the tests in the column `tests`, in the sandbox:
    [`schoolhouse.graders.code.grade_programs`].

    It does not apply to rows without `tests`; it fails where the sandbox does. `hidden_tests` are never run.

    Tests that the prompt shows can be copied into a program. Such a program is not rewarded if `tests` are other ones
    (`shown_tests` of the data's YAML file divides them); the reward does not depend on whether a program looks copied.
    That is only logged: `rewards/code/hard_coded` is the share of the programs that hold inputs of tests with their
    expected values ([`schoolhouse.graders.hard_coding`]), `rewards/code/hard_coded_of_passed` the same among the
    programs that pass all tests.

    Args:
        credit (`str`, *optional*, defaults to `"fraction"`):
            `"fraction"` of the tests that pass, or 1 for `"all"` of them and else 0.
    """

    credit: Literal["fraction", "all"] = "fraction"
    reads = "columns `tests` and `entry_point`"
    runs_programs = True

    def applies(self, row: Row) -> bool:
        return has_tests(row)

    def validate(self) -> None:
        from schoolhouse.graders.code import shared_sandbox
        from schoolhouse.sandbox import SandboxError

        try:
            shared_sandbox()
        except SandboxError as error:
            raise ValueError(str(error)) from None

    def unsupported(self, rows: Sequence[Row]) -> list[str]:
        return unsupported_tests(rows)

    def score(self, batch: Batch) -> Values:
        from schoolhouse.graders.hard_coding import is_hard_coded

        values: Values = []
        copied, copied_and_passed = [], []
        for grade, row in zip(grade_code(batch.completions, batch.rows), batch.rows, strict=True):
            if grade is None:
                values.append(None)
                continue
            values.append(_as_value(grade.passed if self.credit == "all" else grade.fraction))
            copied.append(is_hard_coded(grade.program, row))
            copied_and_passed += copied[-1:] if grade.passed else []
        log_metric = batch.columns.get("log_metric", lambda name, value: None)
        for name, found in (("hard_coded", copied), ("hard_coded_of_passed", copied_and_passed)):
            if found:
                log_metric(f"rewards/code/{name}", sum(found) / len(found))
        return values


@dataclass(frozen=True)
class Cosine(RewardFunction):
    r"""
    Reward that makes right answers short and wrong ones long, along a half cosine between two ends (Yeo et al. 2025,
    "Demystifying long chain-of-thought reasoning in LLMs", section 4.2):
    $r_L + \frac12 (r_0 - r_L)(1 + \cos(\pi \ell / L))$ for $\ell$ of at most $L$ tokens.

    It applies where [`Math`] or [`Code`] does (a program is right if it passes all tests), and fails where they fail.
    The parameters are those of TRL's `get_cosine_scaled_reward`. That one reads answers with `accuracy_reward` (see
    [`Math`]), knows no programs, and has no value of its own for answers that were cut off, which the paper has.

    Args:
        max_len (`int`):
            Length $L$ in tokens; a recipe's `max_completion_length` by default.
        max_value_correct (`float`, *optional*, defaults to `1.0`):
            Reward of a right answer of no length.
        min_value_correct (`float`, *optional*, defaults to `0.5`):
            Reward of a right answer of `max_len` tokens.
        min_value_wrong (`float`, *optional*, defaults to `-1.0`):
            Reward of a wrong answer of no length.
        max_value_wrong (`float`, *optional*, defaults to `-0.5`):
            Reward of a wrong answer of almost `max_len` tokens.
        exceed_penalty (`float`, *optional*, defaults to `-1.0`):
            Reward of a wrong answer that reaches `max_len`.
    """

    max_len: int
    max_value_correct: float = 1.0
    min_value_correct: float = 0.5
    min_value_wrong: float = -1.0
    max_value_wrong: float = -0.5
    exceed_penalty: float = -1.0
    reads = "a column `answer`, or `tests` and `entry_point`"

    def applies(self, row: Row) -> bool:
        return has_answer(row) or has_tests(row)

    def check_row(self, row: Row) -> str | None:
        return check_answer(row)

    def unsupported(self, rows: Sequence[Row]) -> list[str]:
        return unsupported_tests(rows)

    def score(self, batch: Batch) -> Values:
        answers = Math().score(batch)
        programs = Code("all").score(batch)
        correct = [program if answer is None else answer for answer, program in zip(answers, programs, strict=True)]
        return [
            value if value is None or math.isnan(value) else self._scaled(bool(value), len(ids))
            for value, ids in zip(correct, batch.completion_ids, strict=True)
        ]

    def _scaled(self, is_correct: bool, length: int) -> float:
        if not is_correct and length >= self.max_len:
            return self.exceed_penalty
        short, long = (
            (self.max_value_correct, self.min_value_correct)
            if is_correct
            else (self.min_value_wrong, self.max_value_wrong)
        )
        return long + (short - long) * (1 + math.cos(math.pi * min(1.0, length / self.max_len))) / 2
