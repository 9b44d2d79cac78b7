"""Grades of mathematical answers: the same verdict scores an eval and becomes a reward.

A grade compares the final answer that a completion states with the reference answer: as normalised text, as exact
rationals, and where neither can tell, by computer algebra in a worker process that can be killed. What counts as a
statement is said in [`schoolhouse.graders.extraction`], what counts as equal in [`schoolhouse.graders.numbers`].
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schoolhouse.graders import pool
from schoolhouse.graders.comparison import Gold, answer_key, compare, is_prose, read_gold
from schoolhouse.graders.extraction import Statement, final_answer, readable_part
from schoolhouse.graders.normalize import clean
from schoolhouse.graders.numbers import read_number


Style = Literal["hash", "boxed", "think-answer"]
STYLES = ("hash", "boxed", "think-answer")

_HASH_LINE = re.compile(r"(?<!#)#### [^\s*$]")


@dataclass(frozen=True, slots=True)
class Grade:
    """Verdict on one completion.

    Args:
        correct (`bool` or `None`): `None` where the reference is empty or the grader failed (see [`grade_many`]).
        extracted (`str` or `None`): The final answer in a canonical form, equal for `18`, `18.0` and `$18`; `None`
            where the completion states none that can be read. Answers offered together are joined by " or ".
        format_ok (`bool`): Whether the final answer is stated in the form asked for.
    """

    correct: bool | None
    extracted: str | None
    format_ok: bool


def _format_ok(completion: str, text: str, statement: Statement, style: Style) -> bool:
    if style == "hash":
        return statement.style == "hash" and _HASH_LINE.match(text, statement.start) is not None
    if style == "boxed":
        return statement.style == "boxed"
    thought, ended, _ = completion.partition("</think>")
    once = completion.count("</think>") == 1 and "<think>" not in thought.strip().removeprefix("<think>")
    return statement.style == "answer" and bool(ended) and once


def _grade_in_process(completion: str, gold: Gold, style: Style) -> tuple[Grade, str | None]:
    """The grade, and the cleaned answer where only computer algebra can tell whether it is correct."""
    text = readable_part(completion)
    contents, statement = final_answer(text, with_words=gold.kind == "text")
    answers = {answer_key(answer): answer for answer in map(clean, contents) if answer}
    answer = " or ".join(answers.values())
    readable = gold.kind == "text" or read_number(answer) is not None or not is_prose(answer)
    if not readable:  # prose, or a number among doubts: no vote either
        answers, answer = {}, ""
    extracted = " or ".join(answers) or None
    format_ok = len(answers) == 1 and _format_ok(completion, text, statement, style)
    if gold.kind == "empty":
        return Grade(None, extracted, format_ok), None
    correct = compare(gold, answer) if answer else False
    return Grade(correct, extracted, format_ok), answer if correct is None else None


def grade_many(
    completions: Sequence[str],
    references: Sequence[str],
    style: Style = "hash",
    timeout_s: float = 1.0,
    workers: int | None = None,
) -> list[Grade]:
    r"""Grade completions against their reference answers. Safe from any thread and in forked children.

    What text and exact rationals cannot decide goes to worker processes, started at the first need, which may be
    killed at any time: no expression of a model's is ever evaluated in this process.

    Args:
        completions (`Sequence[str]`): What a model generated.
        references (`Sequence[str]`): For each completion an answer (`72`, `\frac{1}{2}`, `x > 3`, `Monday`) or a whole
            GSM8K rationale ending in `#### N`.
        style (`str`, *optional*, defaults to `"hash"`): The form that `format_ok` asks for: `"hash"` (`#### N`),
            `"boxed"` (`\boxed{N}`) or `"think-answer"` (`<think>…</think> … <answer>N</answer>`).
        timeout_s (`float`, *optional*, defaults to `1.0`): Hard limit in seconds for one comparison in a worker.
        workers (`int`, *optional*): Worker processes; one per CPU, at most four, by default.

    Returns:
        `list[Grade]`: In order. `correct` is `None` where the reference is empty, or where the comparison ran out of
        time or memory or its worker died; [`schoolhouse.graders.pool.outcomes`] counts those.

    Raises:
        ValueError: For lists of different lengths or an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r} is unknown: use one of {', '.join(map(repr, STYLES))}")
    if len(completions) != len(references):
        raise ValueError(
            f"{len(completions)} completions came with {len(references)} references: pass one reference each"
        )
    grades, pending = [], {}
    for completion, reference in zip(completions, references, strict=True):
        gold = read_gold(reference)
        grade, undecided = _grade_in_process(completion, gold, style)
        if undecided is not None:
            pending[len(grades)] = (gold.text, undecided)
        grades.append(grade)
    if pending:
        verdicts = pool.run("same_value", list(pending.values()), timeout_s, workers)
        for index, verdict in zip(pending, verdicts, strict=True):
            grades[index] = Grade(verdict, grades[index].extracted, grades[index].format_ok)
    return grades
