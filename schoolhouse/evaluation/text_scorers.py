"""Scorers that compare what an answer says with the reference: as text, as a choice or as JSON."""

import itertools
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from schoolhouse.core.escape import response_of
from schoolhouse.core.files import parse_json
from schoolhouse.evaluation.choices import LETTERS, choices_of, read_choice, right_choice
from schoolhouse.evaluation.scorer import Score, Scorer
from schoolhouse.evaluation.tasks.items import Item, Row


_MOST_JSON = 1000  # brackets of one answer at which a value may begin


class ExactScorer(Scorer):
    """
    Compare the whole response with the reference; white space around both does not count.

    Args:
        ignore_case (`bool`, *optional*, defaults to `False`):
            Compare without regard to case.
        normalize (`bool`, *optional*, defaults to `False`):
            Compare without regard to case, kinds of characters (NFKC), amounts of white space and a full stop at the
            end.
    """

    ignore_case: bool = False
    normalize: bool = False

    def check_row(self, row: Row, reference: str) -> str | None:
        # Every answer contains an empty reference.
        return None if reference.strip() else "the reference is empty: name its column with the key reference"

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        answers = [response_of(completion).strip() for completion in completions]
        return [
            {"correct": bool(answer) and self._form(answer) == self._form(item.reference.strip()), "extracted": answer}
            for answer, item in zip(answers, items, strict=True)
        ]

    def _form(self, text: str) -> str:
        if self.normalize:
            text = " ".join(unicodedata.normalize("NFKC", text).split()).removesuffix(".").rstrip() or text
        return text.casefold() if self.ignore_case or self.normalize else text


class ContainsScorer(ExactScorer):
    """
    Look for the reference anywhere in the response; a thought that weighs every choice states none.

    Its parameters are those of [`ExactScorer`].
    """

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        return [
            {"correct": self._form(item.reference.strip()) in self._form(response_of(completion))}
            for completion, item in zip(completions, items, strict=True)
        ]


class ChoiceScorer(Scorer):
    """
    Read the letter or the text of a choice from the response. `{choices}` in a prompt stands for the choices as lines
    with letters; the reference may be a choice's text, its letter, or its number from 0.

    An answer that names no choice, or several, is wrong, and wrong in form too.

    Args:
        choices (`str` or `list[str]`, *optional*, defaults to `"choices"`):
            Column of the choices, a list of texts; or several columns with a choice each.
    """

    choices: str | list[str] = "choices"

    def template_values(self, row: Row) -> Row:
        return {"choices": choices_of(row, self.choices)}

    def reference_of(self, value: Any, text: str, row: Row) -> str:
        return LETTERS[right_choice(value, choices_of(row, self.choices))]

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        scores: list[Score] = []
        for completion, item in zip(completions, items, strict=True):
            named = read_choice(response_of(completion), choices_of(item.row, self.choices))
            letter = None if named is None else LETTERS[named]
            scores.append({"correct": letter == item.reference, "extracted": letter, "format_ok": letter is not None})
        return scores


class JsonScorer(Scorer):
    """
    Compare the JSON value in the response with the reference's: order of keys, layout, and `1` or `1.0` do not count.

    The value may stand in a code block, or behind and before words. `format_ok` tells whether there is one; the metric
    `fields` is the share of an object's keys whose values are right.
    """

    def check_row(self, row: Row, reference: str) -> str | None:
        try:
            parse_json(reference)
        except ValueError as error:
            return f"the reference is no JSON: {error}"
        return None

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        scores: list[Score] = []
        for completion, item in zip(completions, items, strict=True):
            reference, found = parse_json(item.reference), read_json_value(response_of(completion))
            value = found[0] if found else None
            score: Score = {
                "correct": bool(found) and _same_json(value, reference),
                "extracted": json.dumps(value, ensure_ascii=False) if found else None,
                "format_ok": bool(found),
            }
            if isinstance(reference, dict) and reference:
                given = value if isinstance(value, dict) else {}
                right = [key in given and _same_json(given[key], wanted) for key, wanted in reference.items()]
                score["metrics"] = {"fields": sum(right) / len(right)}
            scores.append(score)
        return scores


def read_json_value(text: str) -> list[Any]:
    """Return the JSON value that a text is or holds, as a list of one; of several the last object or array."""
    blocks = re.findall(r"```(?:json)?\s*\n(.*?)```", text, re.DOTALL)
    text = (blocks[0] if len(blocks) == 1 else text).strip()
    try:
        return [parse_json(text)]
    except ValueError:
        pass
    values: list[Any] = []
    end = 0
    for opened in itertools.islice(re.finditer(r"[{\[]", text), _MOST_JSON):
        if opened.start() < end:  # inside of the value before
            continue
        try:
            value, end = json.JSONDecoder().raw_decode(text, opened.start())
            values.append(value)
        except (ValueError, RecursionError):
            pass
    return values[-1:]


def _same_json(one: Any, other: Any) -> bool:
    """Equality of JSON values, in which `True` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return bool(one == other)
