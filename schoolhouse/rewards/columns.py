"""What the trainer tells a reward, as texts and rows: TRL passes each column of the data as a list."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from schoolhouse.graders import Grade
    from schoolhouse.graders.code import CodeGrade

Row = dict[str, Any]


def text_of(completion: str | list[dict[str, Any]]) -> str:
    """The text of a completion, which is plain or a list of messages."""
    return completion if isinstance(completion, str) else completion[-1].get("content") or ""


def rows_of(columns: dict[str, Any], size: int) -> list[Row]:
    """
    The data's rows, one for a completion.

    Args:
        columns (`dict[str, Any]`):
            What TRL passes beyond prompts and completions: columns, and a few objects that are no lists.
        size (`int`):
            Completions.

    Returns:
        `list[dict[str, Any]]`: a row for a completion.
    """
    lists = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == size}
    return [{name: values[index] for name, values in lists.items()} for index in range(size)]


def has_tests(row: Row) -> bool:
    """Whether a row asks for a program: its answer key is its tests, and `answer` only one way to write it."""
    return bool(row.get("tests"))


def has_answer(row: Row) -> bool:
    """Whether a row asks for an answer that text, a number or an expression settles."""
    return bool(row.get("answer")) and not has_tests(row)


def grade_answers(completions: Sequence, rows: Sequence[Row], style: str = "hash") -> "list[Grade | None]":
    """Grades of [`schoolhouse.graders.grade_many`]; `None` where the row has no answer to compare with."""
    from schoolhouse.graders import grade_many

    return _on_rows(
        has_answer,
        lambda texts, asked: grade_many(texts, [str(row["answer"]) for row in asked], style),
        completions,
        rows,
    )


def grade_code(completions: Sequence, rows: Sequence[Row]) -> "list[CodeGrade | None]":
    """Grades of [`schoolhouse.graders.code.grade_programs`]; `None` where the row has no tests."""

    def graded(texts: list[str], asked: list[Row]) -> "list[CodeGrade]":
        from schoolhouse.graders.code import grade_programs

        keys = ("tests", "entry_point", "prelude", "stub")  # `hidden_tests` are for the eval
        return grade_programs(texts, [{key: row.get(key) for key in keys} for row in asked])

    return _on_rows(has_tests, graded, completions, rows)


def _on_rows(applies: Callable[[Row], bool], graded: Callable, completions: Sequence, rows: Sequence[Row]) -> list:
    """`graded` called once, with those completions whose row it applies to; `None` for the others."""
    chosen = [index for index, row in enumerate(rows) if applies(row)]
    grades: list = [None] * len(rows)
    if chosen:
        found = graded([text_of(completions[index]) for index in chosen], [rows[index] for index in chosen])
        for index, grade in zip(chosen, found, strict=True):
            grades[index] = grade
    return grades
