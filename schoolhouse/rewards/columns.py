"""Texts, rows and grades of completions: TRL passes each column of the data as a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from schoolhouse.core.rows import is_missing


if TYPE_CHECKING:
    from schoolhouse.graders import Grade
    from schoolhouse.graders.code import CodeGrade

Row = Mapping[str, Any]  # a row of the training data: its columns have whatever type the data has
Completion = str | list[dict[str, Any]]  # plain text, or messages
T = TypeVar("T")
_CODE_KEYS = ("tests", "entry_point", "prelude", "stub")  # `hidden_tests` are for the eval


def text_of(completion: Completion) -> str:
    """Text of a completion, which is plain or a list of messages."""
    return completion if isinstance(completion, str) else completion[-1].get("content") or ""


def rows_of(columns: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """
    Return the data's rows, one for each completion. Beyond prompts and completions TRL passes columns, and a few
    objects that are no lists.
    """
    lists = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == size}
    return [{name: values[index] for name, values in lists.items()} for index in range(size)]


def has_tests(row: Row) -> bool:
    """Return whether a row asks for a program. Its tests decide what is right; `answer` is one way to write it."""
    tests = row.get("tests")
    return not is_missing(tests) and bool(tests)


def has_answer(row: Row) -> bool:
    """Return whether a row has a reference answer: text, a number or an expression."""
    return not has_tests(row) and bool(answer_of(row))


def answer_of(row: Row) -> str:
    """
    Return the reference answer of a row as text; `""` where there is none: no column, no value or blank text. The
    number 0 and `False` are answers.
    """
    value = row.get("answer")
    return "" if is_missing(value) else str(value).strip()


def check_answer(row: Row) -> str | None:
    """Return why the reference answer of a row cannot be read; `None` where it can, or there is none."""
    if not has_answer(row):
        return None
    from schoolhouse.graders.comparison import why_unreadable

    return why_unreadable(row["answer"])


def grade_answers(completions: Sequence[Completion], rows: Sequence[Row]) -> list[Grade | None]:
    """Grades of [`schoolhouse.graders.grade_many`]; `None` where the row has no reference answer."""

    def grade(texts: list[str], asked: list[Row]) -> list[Grade]:
        from schoolhouse.graders import grade_many

        return grade_many(texts, [answer_of(row) for row in asked])

    return _where(has_answer, grade, completions, rows)


def grade_code(completions: Sequence[Completion], rows: Sequence[Row]) -> list[CodeGrade | None]:
    """Grades of [`schoolhouse.graders.code.grade_programs`]; `None` where the row has no tests."""

    def grade(texts: list[str], asked: list[Row]) -> list[CodeGrade]:
        from schoolhouse.graders.code import grade_programs

        return grade_programs(texts, [{key: row.get(key) for key in _CODE_KEYS} for row in asked])

    return _where(has_tests, grade, completions, rows)


def unsupported_tests(rows: Sequence[Row]) -> list[str]:
    """Reasons of [`schoolhouse.graders.code.unsupported_reasons`]; `""` where the row has no tests."""

    def find(texts: list[str], asked: list[Row]) -> list[str]:
        from schoolhouse.graders.code import unsupported_reasons

        return unsupported_reasons([{key: row.get(key) for key in (*_CODE_KEYS, "answer")} for row in asked])

    return [reason or "" for reason in _where(has_tests, find, [""] * len(rows), rows)]


def _where(
    applies: Callable[[Row], bool],
    grade: Callable[[list[str], list[Row]], list[T]],
    completions: Sequence[Completion],
    rows: Sequence[Row],
) -> list[T | None]:
    """Grade, in one call, the completions whose row the grader applies to; `None` for the others."""
    chosen = [index for index, row in enumerate(rows) if applies(row)]
    grades: list[T | None] = [None] * len(rows)
    if chosen:
        found = grade([text_of(completions[index]) for index in chosen], [rows[index] for index in chosen])
        for index, one in zip(chosen, found, strict=True):
            grades[index] = one
    return grades
