"""Rewards for the form of an answer: its markup, its length, its repetitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schoolhouse.rewards.base import Batch, RewardFunction, Values
from schoolhouse.rewards.columns import Row, answer_of, has_tests


@dataclass(frozen=True)
class Format(RewardFunction):
    """
    1 where the final answer has the form asked for, right or wrong, else 0; by the grader that reads the answer. It
    does not apply to rows with `tests`.

    Args:
        style (`str`, *optional*, defaults to `"hash"`):
            `"hash"` (`#### N`), `"boxed"` or `"think-answer"`, see [`schoolhouse.graders.grade_many`].
    """

    style: Literal["hash", "boxed", "think-answer"] = "hash"
    reads = "rows without `tests`"

    def applies(self, row: Row) -> bool:
        return not has_tests(row)

    def score(self, batch: Batch) -> Values:
        from schoolhouse.graders.math_answer import has_format

        rows = batch.rows
        forms = has_format(batch.texts, [answer_of(row) for row in rows], self.style)
        return [float(is_ok) if self.applies(row) else None for is_ok, row in zip(forms, rows, strict=True)]


@dataclass(frozen=True)
class Overlong(RewardFunction):
    """
    TRL's [`~trl.rewards.get_soft_overlong_punishment`]: 0 up to `max_completion_len - soft_punish_cache` tokens, from
    there down in a straight line to -1 at `max_completion_len` (Yu et al. 2025, "DAPO", equation 13).

    Args:
        max_completion_len (`int`):
            Limit in tokens; a recipe's `max_completion_length` by default.
        soft_punish_cache (`int`, *optional*, defaults to `64`):
            Number of tokens before the limit in which length is punished.
    """

    max_completion_len: int
    soft_punish_cache: int = 64

    def score(self, batch: Batch) -> Values:
        from trl.rewards import get_soft_overlong_punishment

        return list(
            get_soft_overlong_punishment(self.max_completion_len, self.soft_punish_cache)(batch.completion_ids)
        )


@dataclass(frozen=True)
class Repetition(RewardFunction):
    """
    TRL's [`~trl.rewards.get_repetition_penalty_reward`]: `max_penalty` times the share of n-grams of tokens that stood
    in the completion before. 0 without a repetition, near `max_penalty` for "the the the".

    Args:
        ngram_size (`int`, *optional*, defaults to `4`):
            Tokens of an n-gram.
        max_penalty (`float`, *optional*, defaults to `-1.0`):
            Value of a completion that only repeats itself; at most 0.
    """

    ngram_size: int = 4
    max_penalty: float = -1.0

    def __post_init__(self) -> None:
        if self.max_penalty > 0:
            raise ValueError(f"max_penalty is {self.max_penalty}: it must be at most 0")

    def score(self, batch: Batch) -> Values:
        from trl.rewards import get_repetition_penalty_reward

        return list(get_repetition_penalty_reward(self.ngram_size, self.max_penalty)(batch.completion_ids))
