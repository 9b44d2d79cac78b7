r"""Grades of mathematical answers: the same verdict scores an eval and becomes a reward.

A completion is graded in three steps, each only where the one before cannot tell:

1. find the final answer that the completion states ([`schoolhouse.graders.extraction`]) and write it in a plain way
   ([`schoolhouse.graders.normalize`]);
2. compare it with the reference as text and as exact rationals ([`schoolhouse.graders.comparison`]), in this process:
   this decides ordinary answers, some 15,000 a second;
3. compare expressions, sets, intervals, matrices and relations with sympy, as math-verify parses them
   ([`schoolhouse.graders.algebra`]), in a worker process that can be killed ([`schoolhouse.graders.pool`]): an
   expression of a model, such as `9^{9^9}`, may take for ever. Then it is wrong, as it would be if it were written
   out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from schoolhouse.graders import pool
from schoolhouse.graders.comparison import Reference, canonical, compare, is_readable, read_reference
from schoolhouse.graders.extraction import Statement, final_answer, readable_part
from schoolhouse.graders.normalize import clean


Style = Literal["hash", "boxed", "think-answer"]
STYLES: tuple[Style, ...] = get_args(Style)

_HASH_LINE = re.compile(r"(?<!#)#### [^\s*$]")


@dataclass(frozen=True, slots=True)
class Grade:
    """Verdict on one completion.

    Args:
        correct (`bool` or `None`): `None` where there is no verdict: the reference is empty or cannot be evaluated, or
            the worker processes are gone.
        extracted (`str` or `None`): The final answer in a canonical form, equal for `18`, `18.0` and `$18`; `None`
            where the completion states none that can be read. Answers offered together are joined by " or ".
        format_ok (`bool`): `True` if the final answer is stated in the form asked for.
        failure (`str` or `None`): Reason why answer and reference could not be compared. The answer's, and it is
            wrong: `"timeout"`, `"memory"`, `"died"` (it ended its worker) or `"error"` (an exception). Not the
            answer's, and there is no verdict: `"reference"` or `"lost"` (the worker processes).
    """

    correct: bool | None
    extracted: str | None
    format_ok: bool
    failure: pool.Failure | None = None


def _format_ok(completion: str, text: str, statement: Statement, style: Style) -> bool:
    if style == "hash":
        return statement.style == "hash" and _HASH_LINE.match(text, statement.start) is not None
    if style == "boxed":
        return statement.style == "boxed"
    thought, ended, _ = completion.partition("</think>")
    once = completion.count("</think>") == 1 and "<think>" not in thought.strip().removeprefix("<think>")
    return statement.style == "answer" and bool(ended) and once


def _grade_in_process(completion: str, reference: Reference, style: Style) -> tuple[Grade, str | None]:
    """Return the grade, and the cleaned answer where only computer algebra can decide."""
    text = readable_part(completion)
    contents, statement = final_answer(text, with_words=reference.kind == "text")
    # The same answer twice (`#### 72 #### 72`) is one answer; different answers are joined and match no single one.
    answers = {canonical(answer): answer for answer in map(clean, contents) if answer}
    answer = " or ".join(answers.values())
    if reference.kind != "text" and not is_readable(answer):
        # Prose, or a number in a sentence that doubts it: not counted as a vote either.
        answers, answer = {}, ""
    extracted = " or ".join(answers) or None
    format_ok = statement is not None and len(answers) == 1 and _format_ok(completion, text, statement, style)
    if reference.kind == "empty":
        return Grade(None, extracted, format_ok, "reference"), None
    correct = compare(reference, answer) if answer else False
    return Grade(correct, extracted, format_ok), answer if correct is None else None


def has_format(completions: Sequence[str], references: Sequence[str], style: Style) -> list[bool]:
    """`format_ok` of [`grade_many`] alone, for which no expression is evaluated."""
    return [
        _grade_in_process(completion, read_reference(reference), style)[0].format_ok
        for completion, reference in zip(completions, references, strict=True)
    ]


def grade_many(
    completions: Sequence[str],
    references: Sequence[str],
    style: Style = "hash",
    timeout_s: float = 1.0,
) -> list[Grade]:
    r"""Grade completions against their reference answers. Safe from any thread and in forked children.

    No expression of a model is ever evaluated in this process. The worker processes start at the first need.

    Args:
        completions (`Sequence[str]`): Texts that a model generated.
        references (`Sequence[str]`): For each completion an answer (`72`, `\frac{1}{2}`, `x > 3`, `Monday`) or a whole
            worked solution that states it (`#### N`, `\boxed{N}`, `<answer>N</answer>`, "The answer is N").
        style (`str`, *optional*, defaults to `"hash"`): The form that `format_ok` asks for: `"hash"` (`#### N`),
            `"boxed"` (`\boxed{N}`) or `"think-answer"` (`<think>…</think> … <answer>N</answer>`).
        timeout_s (`float`, *optional*, defaults to `1.0`): Hard limit in seconds of processor time for one comparison
            in a worker, so that a busy machine changes no verdict.

    Returns:
        `list[Grade]`: In order; the log counts those with a `failure`.

    Raises:
        ValueError: For lists of different lengths or an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r} is unknown: use one of {', '.join(map(repr, STYLES))}")
    if len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions came with {len(references)} references: pass one each")
    grades: list[Grade] = []
    undecided: dict[int, tuple[str, str]] = {}
    for completion, text in zip(completions, references, strict=True):
        reference = read_reference(text)
        grade, answer = _grade_in_process(completion, reference, style)
        if answer is not None:
            undecided[len(grades)] = (reference.text, answer)
        grades.append(grade)
    if undecided:
        verdicts = pool.same_value(list(undecided.values()), timeout_s)
        for index, (correct, failure) in zip(undecided, verdicts, strict=True):
            grades[index] = replace(grades[index], correct=correct, failure=failure)
    return grades
