"""Metrics of reasoning that RL may bring about: work that is shown, and corrections within an answer."""

import re
from collections.abc import Sequence
from typing import Any

from schoolhouse.rewards.columns import Row, grade_answers, has_answer, text_of


_CORRECTS = re.compile(
    r"\b(?:wait|hmm+|actually|hold on|on second thought|scratch that|correction|let me (?:re-?|double-?)?(?:check|"
    r"think|consider)|I made an? (?:mistake|error)|that(?:'s| is) (?:wrong|incorrect|not right))\b",
    re.IGNORECASE,
)
_WORKS = re.compile(r"[\d)\]}]\s*=\s*[-$(\\]*\d")


def shows_work(text: str) -> bool:
    """Return whether an answer holds an equality between numbers."""
    return _WORKS.search(text) is not None


def reasoning_metrics(completions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
    """
    Return the shares of completions that show work, and of those that correct themselves, from wrong to right or from
    right to wrong: the answer before the first marker ("wait", "actually", "let me check") against the final one. Only
    rows with an `answer` and no `tests` count; without any, nothing is returned.
    """
    asked = [(text_of(c), row) for c, row in zip(completions, rows, strict=True) if has_answer(row)]
    if not asked:
        return {}
    marked = [(text, row, found.start()) for text, row in asked if (found := _CORRECTS.search(text))]
    before = grade_answers([text[:start] for text, _, start in marked], [row for _, row, _ in marked])
    after = grade_answers([text for text, _, _ in marked], [row for _, row, _ in marked])
    turns = [(b.correct, a.correct) for b, a in zip(before, after, strict=True) if b.extracted and a.extracted]
    return {
        "reasoning/shows_work": sum(shows_work(text) for text, _ in asked) / len(asked),
        "reasoning/corrects_itself": len(marked) / len(asked),
        "reasoning/wrong_to_right": turns.count((False, True)) / len(asked),
        "reasoning/right_to_wrong": turns.count((True, False)) / len(asked),
    }
