"""Items of a task, made of the rows of a data set by columns and templates."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schoolhouse.config.errors import nearest
from schoolhouse.core.rows import is_missing
from schoolhouse.evaluation.choices import lettered


Row = Mapping[str, Any]  # whatever columns a data set has
Messages = list[dict[str, Any]]

_COLUMN = re.compile(r"\{\{|\}\}|\{(\w+)\}")


@dataclass(frozen=True)
class Item:
    """
    One question of a task.

    Args:
        id (`str`):
            Name of the item, unique in its task and the same in every run: comparisons are paired by it.
        prompt (`list[dict]` or `str`):
            Messages, rendered with the model's chat template, or a text to be continued as it is; of a bits-per-byte
            task the document.
        reference (`str`):
            The right answer, as the task's scorer reads it.
        level (`int` or `str`, *optional*):
            Group in which the item is reported.
        cluster (`int` or `str`, *optional*):
            Source that the item shares with others.
        row (`Mapping[str, Any]`, *optional*):
            The data set's row, for scorers that read more than the reference.
    """

    id: str
    prompt: Messages | str
    reference: str
    level: int | str | None = None
    cluster: int | str | None = None
    row: Row = field(default_factory=dict)


def columns_in(text: str) -> list[str]:
    """Return the columns that a template names, such as `question` in `"Question: {question}"`."""
    return [name for name in _COLUMN.findall(text) if name]


def fill(text: str, row: Row) -> str:
    """
    Return a template with the row's values in the places of its columns.

    `{column}` stands for a value, `{{` and `}}` for braces; any other brace is text. A list of texts becomes lines
    with letters, `A. red`. A column that the row does not have is a `ValueError`.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        if is_missing(row.get(found[1])):
            raise ValueError(missing_column(found[1], row))
        shown = row[found[1]]
        is_choices = isinstance(shown, list) and all(isinstance(entry, str) for entry in shown)
        return lettered(shown) if is_choices else _text(shown)

    return _COLUMN.sub(value, text)


def text_of(expression: str, row: Row) -> str:
    """
    Return the text that a column, or a template with `{column}` in it, makes of a row; a `ValueError` says what is
    missing.

    A column of messages gives the last one's content, any other list and a mapping their JSON.
    """
    if columns_in(expression):
        return fill(expression, row)
    value = row.get(expression)
    if is_missing(value):
        raise ValueError(missing_column(expression, row))
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "role" in value[-1]:
        value = value[-1]["content"]
    return _text(value)


def missing_column(name: str, columns: Iterable[str]) -> str:
    """Return the error of a column that a row does not have, with the nearest that it has."""
    columns = list(columns)
    advice = nearest(name, columns)
    near = f" {advice}" if advice.startswith("did you mean") else ""
    return f"column {name!r} is missing;{near} the row has {', '.join(columns)}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def prompt_of(expression: str | list[dict[str, str]], row: Row) -> Messages | str:
    """
    Return the prompt that a column of messages or text, a template, or messages with templates in them make of a row.

    A column that the row does not have is a `ValueError`.
    """
    if isinstance(expression, list):
        return [message | {"content": fill(message["content"], row)} for message in expression]
    value = row.get(expression)
    return value if isinstance(value, list) and not isinstance(value[0], str) else text_of(expression, row)
