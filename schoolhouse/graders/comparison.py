"""Gold answers, and the comparisons with them that need no computer algebra."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from schoolhouse.graders.normalize import clean
from schoolhouse.graders.numbers import (
    MAX_BITS,
    MAX_DIGITS,
    MAX_EXPRESSION,
    SCALED_SYMBOL,
    SYMBOL,
    Number,
    lists_agree,
    read_list,
    read_number,
    right_hand_side,
    split_items,
    without_unit,
)


@dataclass(frozen=True)
class Gold:
    """A gold answer, read once: `kind` says how answers are compared with it."""

    text: str
    kind: Literal["empty", "number", "text", "expression"]
    key: str = ""
    number: Number | None = None
    symbol: str | None = None


_FUNCTIONS = r"sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|max|min|gcd|lcm|inf|infty|or|and"
_PROSE_WORD = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-zA-Z]))[a-zA-Z]{{2,}}")
_FREE_SYMBOL = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-zA-Z]))[a-zA-Z]")
_BASED = re.compile(r"\(?([0-9a-zA-Z]+)\)?\s*(?:_\s*\{?\s*(\d+)\s*\}?|(?:in )?base[ -](\d+))")
_TIME_RANGE_DATE = re.compile(r"\d\s*:\s*\d|^\d+-\d+(?:-\d+)?$|^\d+/\d+/\d+$")
_MATHEMATICAL = re.compile(r"[\d\\^+*/=<>|()\[\]{},]|(?<!\w)-|^pi$")


def _text_key(text: str) -> str:
    text = re.sub(r"^(?:the|an?)\s+", "", text.casefold())
    return re.sub(r"\s+|(?<!\d)\.|\.(?!\d)", "", text).strip("()")


def _expression_key(text: str) -> str:
    based = _BASED.fullmatch(text)
    if based:
        return f"{based[1]}_{based[2] or based[3]}"
    key = re.sub(r"(?<=[\^_])\{(\w)\}", r"\1", "".join(text.split()))
    if len(key) > MAX_DIGITS:  # too long to be read as a number, and still the same integer with zeros in front
        digits = re.fullmatch(r"(-?)\+?0*(\d[\d,]*)(?:\.0*)?", key)
        return digits[1] + digits[2].replace(",", "") if digits else key
    return key


@lru_cache(maxsize=16_384)
def read_gold(gold: str) -> Gold:
    """Reads a gold answer.

    Args:
        gold (`str`): The answer in plain text or LaTeX, or a whole GSM8K rationale ending in `#### N`.

    Returns:
        [`Gold`]
    """
    text = clean(gold.rpartition("####")[2])
    if not text:
        return Gold(text, "empty")
    number = read_number(text)
    if number is None:
        text = without_unit(text)
    else:
        symbol, _ = right_hand_side(text)
        return Gold(text, "number", str(number), number, symbol if symbol and SYMBOL.fullmatch(symbol) else None)
    if _BASED.fullmatch(text):
        return Gold(text, "expression", _expression_key(text))
    if _TIME_RANGE_DATE.search(text) or is_prose(text) or not _MATHEMATICAL.search(text):
        return Gold(text, "text", _text_key(text))
    return Gold(text, "expression", _expression_key(text))


def answer_key(text: str) -> str:
    """A canonical form of a cleaned answer, equal for `18`, `18.0` and `$18`, so that votes can be counted."""
    number = read_number(text)
    if number is not None:
        return str(number)
    return " ".join(text.split()) if is_prose(text) else _expression_key(text)


def is_prose(text: str) -> bool:
    """Whether a cleaned answer has words that are no function's or command's name."""
    return _PROSE_WORD.search(text) is not None


def _is_parsable(text: str) -> bool:
    return 0 < len(text) <= MAX_EXPRESSION and not is_prose(text)


_CLOSED_FORM = re.compile(r"\\(?!frac|times|cdot|div|[lc]?dots)[a-zA-Z]+|\^|!|sqrt|log|ln")
_NO_VALUE = re.compile(
    r"\\(?:neq?|leq?|geq?|[lg]t|pm|mp|sim|cong|equiv|in|[lc]?dots|overline|bar|hat)(?![a-zA-Z])|[<>]"
)
_BOUND_SYMBOLS = re.compile(r"\\(?:sum|prod|int|lim)")
_TOWER = re.compile(r"\d+!?(?:\^[{(]*\d+!?)*[)}]*")


def _is_tower_out_of_reach(text: str) -> bool:
    """Whether this is a tower of powers and factorials of more than some 2,000 bits: larger than any gold number."""
    text = "".join(text.split())
    if not _TOWER.fullmatch(text):
        return False
    value = 1
    for digits, factorial in reversed(re.findall(r"(\d+)(!?)", text)):
        if len(digits) > 9 or (factorial and int(digits) > 500):
            return True
        base = math.factorial(int(digits)) if factorial else int(digits)
        if base > 1 and value * base.bit_length() > MAX_BITS:
            return True
        value = base**value if base > 1 else base
    return False


def _is_closed_form(text: str) -> bool:
    r"""Whether a cleaned answer may state one number that computer algebra can find, as `\sqrt{16}` does."""
    left, right = right_hand_side(text)
    if left is not None and re.search("[a-zA-Z]", left) and SCALED_SYMBOL.search(left):
        return False
    if not (_CLOSED_FORM.search(right) and _is_parsable(right)) or _NO_VALUE.search(right):
        return False
    if _BOUND_SYMBOLS.search(right):
        return True
    free = set(_FREE_SYMBOL.findall(right))
    return free <= {"e", "i", "C"} and len(split_items(right)) <= 1


def compare(gold: Gold, text: str) -> bool | None:
    """Compares a cleaned answer with a gold answer: normalised text, then exact rationals.

    Args:
        gold ([`Gold`]): A gold answer that is not empty.
        text (`str`): The answer, cleaned.

    Returns:
        `bool` or `None`: `None` where only computer algebra can tell.
    """
    if gold.kind == "text":
        return _text_key(text) == gold.key
    if gold.kind == "expression":
        text = without_unit(text)
        if _expression_key(text) == gold.key:
            return True
        if _BASED.fullmatch(gold.text) or _BASED.fullmatch(text):
            return False
        gold_list, answer_list = read_list(gold.text), read_list(text)
        if gold_list and answer_list:
            return lists_agree(gold_list, answer_list)
        return None if _is_parsable(text) else False
    number = read_number(text)
    if number is not None:
        symbol, _ = right_hand_side(text)
        if gold.symbol and symbol and SYMBOL.fullmatch(symbol) and symbol != gold.symbol:
            return False
        return gold.number.agrees_with(number)
    if text == gold.text:
        return True
    text = without_unit(text)
    if not _is_closed_form(text):
        return False
    small = gold.number.value.numerator.bit_length() < MAX_BITS // 4
    return False if small and _is_tower_out_of_reach(text) else None
