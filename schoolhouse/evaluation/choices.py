"""Choices of a question and their letters: how they are shown, named in data, and read from an answer."""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any


LETTERS = string.ascii_uppercase

# A and I are words too, so they need a mark or the end of the line after them.
_LETTER = r"([B-HJ-Z](?![\w'])|[AI](?=\s*(?:$|\n|[).:,;\]}*_$])))"
# "The answer is (B)", "Answer: B", "\boxed{B}", "#### B"
_STATED = re.compile(rf"(?:\b[Aa]nswer(?: is|:)|\\boxed\{{|####)[\s:*_(\[\"'$]*{_LETTER}")
_ALONE = re.compile(r"^[\s*_(\[\"'$]*([A-Z])(?:[).:\]*_]+|\s*$)", re.MULTILINE)  # "B", "(B)", "**B**", "B. Paris"


def lettered(choices: Sequence[str]) -> str:
    """Return choices as lines with letters: `A. red`, `B. green`."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def choices_of(row: Mapping[str, Any], columns: str | list[str], distinct: bool = True) -> list[str]:
    """
    Return the choices of a row: a column that holds a list of texts, or several columns with a choice each, of which
    those at the end may be empty.

    Choices that are no texts, too few, too many or, where they must be `distinct`, equal are a `ValueError`.
    """
    choices: Any
    if isinstance(columns, list):
        label = ", ".join(columns)
        choices = [value if isinstance(value, str) else _number(value) for value in map(row.get, columns)]
        while choices and not choices[-1]:
            choices.pop()
    else:
        label, choices = columns, row.get(columns) or []
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(x, str) and x for x in choices):
        raise ValueError(f"column {label!r} is no list of two or more texts")
    if distinct and len(set(choices)) < len(choices):
        raise ValueError(f"column {label!r} has the same choice twice")
    if len(choices) > len(LETTERS):
        raise ValueError(f"column {label!r} has {len(choices)} choices, and there are {len(LETTERS)} letters")
    return list(choices)


def _number(value: Any) -> str:
    """A choice that a table read as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def right_choice(answer: Any, choices: Sequence[str]) -> int:
    """
    Return the index of the choice that data names as right: by its number from 0, by its text or by its letter.

    A text that is one choice and the letter of another is a `ValueError`, as is one that is neither.
    """
    # Numbers from 0 come as floats from a table that lacks some; `True` is no number of a choice.
    if type(answer) is int or (isinstance(answer, float) and answer.is_integer()):
        if 0 <= answer < len(choices):
            return int(answer)
    elif isinstance(answer, str):
        text = answer.strip()
        by_text = next((index for index, choice in enumerate(choices) if choice.strip() == text), None)
        by_letter = LETTERS.find(text) if len(text) == 1 else -1
        if by_text is None and text.isascii() and text.isdigit():
            by_text = int(text) if int(text) < len(choices) else None
        if not 0 <= by_letter < len(choices):
            by_letter = -1
        if by_text is not None and by_letter not in (-1, by_text):
            raise ValueError(
                f"the answer {text!r} is the text of one choice and the letter of another: give its number from 0"
            )
        if by_text is not None or by_letter >= 0:
            return by_letter if by_text is None else by_text
    raise ValueError(f"the answer {answer!r} is neither a choice nor its number from 0, nor its letter")


def read_choice(response: str, choices: Sequence[str]) -> int | None:
    """
    Return the index of the choice that a response names, by its letter or its text; `None` where it names none, or
    several.

    A letter counts where it is stated as the answer, or where the response begins with it as a letter: the article in
    "A dog" does not. Without a letter the one choice whose text stands in the response is taken. A letter with the
    text of another choice names both.
    """
    text = response.strip()
    words = text.strip(" .*_\"'`").casefold()
    whole = [index for index, choice in enumerate(choices) if choice.strip().casefold() == words]
    if whole and len(words) > 1:
        return whole[0]
    found = [*_STATED.finditer(text)][-1:] or ([*_ALONE.finditer(text)] if _ALONE.match(text) else [])
    letters = {one[1] for one in found}
    if not letters:
        mentioned = _mentioned(text, choices)
        return mentioned[0] if len(mentioned) == 1 else None
    if len(letters) > 1 or (named := LETTERS.index(found[0][1])) >= len(choices):  # such as a copy of all choices
        return None
    after = text[found[0].end(1) :].lstrip(" ).:]*_-\"'$").casefold()
    said = [index for index, choice in enumerate(choices) if re.match(rf"{re.escape(choice.casefold())}(?!\w)", after)]
    return named if not said or named in said else None


def _mentioned(text: str, choices: Sequence[str]) -> list[int]:
    """Choices whose text stands in `text` as whole words, without those inside of a longer one's."""
    folded, spans = text.casefold(), []
    for index, choice in enumerate(choices):
        pattern = rf"(?<!\w){re.escape(choice.strip().casefold())}(?!\w)"
        spans += [(found.start(), found.end(), index) for found in re.finditer(pattern, folded)]
    outer = [
        index
        for start, end, index in spans
        if not any(first <= start and end <= last and (first, last) != (start, end) for first, last, _ in spans)
    ]
    return sorted(set(outer))
