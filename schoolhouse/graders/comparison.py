"""Reference answers, and comparisons with them that need no computer algebra.

Most of the rules here say *no* where math-verify alone would say *yes*: `48 + 24` stated for 72, `x^2 = 25` for 25,
`1, 2, 2` for `1, 2` (its sets forget how often an item comes). The cases are in `tests/test_math_answer.py`.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from schoolhouse.graders.extraction import final_answer
from schoolhouse.graders.normalize import clean, plain
from schoolhouse.graders.numbers import (
    MAX_BITS,
    MAX_DIGITS,
    MAX_EXPRESSION,
    SCALED_SYMBOL,
    SYMBOL,
    UNITS,
    Number,
    lists_agree,
    read_list,
    read_number,
    right_hand_side,
    split_items,
    split_unit,
)


@dataclass(frozen=True)
class Reference:
    """A reference answer, read once: `kind` decides how answers are compared with it."""

    text: str
    kind: Literal["empty", "number", "text", "expression"]
    key: str = ""
    number: Number | None = None
    symbol: str | None = None
    unit: frozenset[str] = frozenset()
    letter: str | None = None


_FUNCTIONS = r"arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|max|min|gcd|lcm|inf|infty|or|and"
_PRODUCT = r"[abcd]{2,4}|[xyz]{2,3}|[kmn]{2,3}|[pqr]{2,3}|[uvw]{2,3}"  # of variables: `2xy`
_SEGMENT = r"[A-Z]{2,4}\s*[=}]"  # `AB = 4`
_PROSE_WORD = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS}|{_PRODUCT})(?![a-zA-Z])|{_SEGMENT})[a-zA-Z]{{2,}}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]{1,20}\*?\}(?:\{[clr|\s]*\})?")
_FREE_SYMBOL = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_FUNCTIONS})(?![a-zA-Z]))[a-zA-Z]")
_BASED = re.compile(r"\(?([0-9a-zA-Z]+)\)?\s*(?:_\s*\{?\s*(\d+)\s*\}?|(?:in )?base[ -](\d+))")
_TIME_RANGE_DATE = re.compile(r"\d\s*:\s*\d|^\d+-\d+(?:-\d+)?$|^\d+/\d+/\d+$")
_MEASURES = re.compile(rf"\d\s*(?:{'|'.join(UNITS)})\b[\s,]*(?:and\s+)?\d")  # 4 feet 6 inches
_MATHEMATICAL = re.compile(r"[\d\\^+*/=<>|()\[\]{},]|(?<!\w)-|^pi$")


# "June 20", "Room 12", "at most 7": words before a number say which number it is, and are part of the answer.
_NAMED = re.compile(r"\W*(?!(?:negative|minus|rs)\b)[A-Za-z][a-z.']+,?\s[^=]*\d", re.IGNORECASE)
_MONTH = re.compile(
    r"\b(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b",
    re.IGNORECASE,
)
# A multiple choice: "B", "(B)", "option B", "B) 12 apples".
_CHOICE = re.compile(
    r"(?i:(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:option|choice|answer)\s+(?:is\s+)?)?"
    r"\(?(?P<letter>[A-J])(?:\s*[).:\]]+\s*|\s*$)(?P<content>.*)",
    re.DOTALL,
)


def _text_key(text: str) -> str:
    """Text without case, article, white space and periods; a period between digits stays."""
    text = text.rpartition("=")[2] if ":" in text else text  # `V_1 : V_2 = 2 : 3`
    text = re.sub(r"^(?:the|an?)\s+", "", text.casefold())
    if any(map(str.isdigit, text)):  # `4 ft 6 in` is `4 feet 6 inches`, `20 June` is `June 20th`
        words = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b|\b(?:and|of|the)\b|,(?!\d)", " ", text).split()
        words = [UNITS.get(word, word) for word in words]
        text = " ".join(sorted(words) if _MONTH.search(text) else words)
    return re.sub(r"\s+|(?<!\d)\.|\.(?!\d)", "", text).strip("()")


def _expression_key(text: str) -> str:
    """An expression without white space, with `1010_2`, `1010_{2}` and `1010 base 2` written alike."""
    based = _BASED.fullmatch(text)
    if based:
        return f"{based[1]}_{based[2] or based[3]}"
    key = re.sub(r"(?<=[\^_])\{(\w)\}", r"\1", "".join(text.split()))
    if len(key) > MAX_DIGITS:  # too long to be read as a number; an integer stays the same with zeros in front
        digits = re.fullmatch(r"(-?)\+?0*(\d[\d,]*)(?:\.0*)?", key)
        return digits[1] + digits[2].replace(",", "") if digits else key
    return key


_ANSWER_FIRST = re.compile(r"\W*(?:(?:the|final|correct)\W+)*answer\b", re.IGNORECASE)
MAX_TEXT = 100  # characters of an answer in words; a longer text is an explanation


def _stated_in(reference: str) -> str:
    r"""
    Return the final answer of a worked solution: what `#### N`, `\boxed{N}`, `<answer>N</answer>` or "the answer is N"
    states; else the whole reference.
    """
    _, mark, text = reference.rpartition("####")
    if text.strip().isdecimal():  # most references are
        return text
    text = plain(text)
    contents, statement = final_answer(text, with_words=bool(mark or _ANSWER_FIRST.match(text)))
    if statement is None or statement.style == "last line":
        return text
    # A reference is right whatever follows its statement: nothing withdraws it or offers another answer.
    return ", ".join(contents) if len(contents) > 1 and "another" not in contents else statement.content


@lru_cache(maxsize=16_384)
def read_reference(reference: str) -> Reference:
    r"""
    Read a reference answer: plain text or LaTeX, or a whole worked solution that states its final answer, as GSM8K's
    (`#### N`) and MATH's (`\boxed{N}`) do.
    """
    text = clean(_stated_in(reference))
    if not text:
        return Reference(text, "empty")
    integer = text.isdecimal()
    choice = None if integer else _CHOICE.fullmatch(text)
    if choice:
        return Reference(choice["content"], "text", _text_key(text), letter=choice["letter"])
    number = read_number(text) if integer or not (_NAMED.match(text) or _MONTH.search(text)) else None
    if number is not None:
        symbol, _ = (None, text) if integer else right_hand_side(text)
        symbol = symbol if symbol and SYMBOL.fullmatch(symbol) else None
        key = str(number)
        return Reference(key, "number", key, number, symbol, number.unit)
    bare, unit = split_unit(text)
    based, numbers, measures = _BASED.fullmatch(text), read_list(text), _MEASURES.search(text)
    if numbers or measures or is_prose(bare):  # `3x + 2 dollars` has a unit; `a leap year` is text
        unit = frozenset()
    else:
        text = bare
    words = measures or _TIME_RANGE_DATE.search(text) or is_prose(text) or not _MATHEMATICAL.search(text)
    if words and not based and not numbers:
        return Reference(text, "text", _text_key(text))
    return Reference(text, "expression", _expression_key(text), unit=unit)


def why_unreadable(reference: object) -> str | None:
    """Return why a value of a row is no reference answer that completions can be compared with, or `None`."""
    if not isinstance(reference, str | int | float):
        return f"the reference answer is a {type(reference).__name__}, not text or a number: {str(reference)[:80]!r}"
    read = read_reference(text := str(reference))
    if read.kind == "empty":
        return f"the reference answer {text[:80]!r} states nothing"
    if read.kind == "text" and (len(read.text) > MAX_TEXT or "\n" in read.text):
        return (
            "the reference is a text without a final answer (\\boxed{7}, #### 7, The answer is 7) and ends in "
            f"{text.strip()[-80:]!r}"
        )
    return None


def canonical(text: str) -> str:
    """Return a cleaned answer in a form that is equal for `18`, `18.0` and `$18`, so that votes can be counted."""
    number = read_number(text)
    if number is not None:
        return str(number)
    return " ".join(text.split()) if is_prose(text) else _expression_key(text)


def is_prose(text: str) -> bool:
    """Check if a cleaned answer has words other than names of functions, commands and environments."""
    return _PROSE_WORD.search(_ENVIRONMENT.sub("", text)) is not None


def is_readable(text: str) -> bool:
    """Check if a cleaned answer is a number, perhaps among words, or numbers or an expression, perhaps with a unit."""
    return bool(read_number(text) or (len(text) <= MAX_EXPRESSION and read_list(text))) or not is_prose(
        split_unit(text)[0]
    )


def _is_parsable(text: str) -> bool:
    return 0 < len(text) <= MAX_EXPRESSION and not is_prose(text)


_CLOSED_FORM = re.compile(r"\\(?!frac|times|cdot|div|[lc]?dots)[a-zA-Z]+|\^|!|sqrt|log|ln")
_NO_VALUE = re.compile(
    r"\\(?:neq?|leq?|geq?|[lg]t|pm|mp|sim|cong|equiv|in|[lc]?dots|overline|bar|hat)(?![a-zA-Z])|[<>]"
)
_BOUND_SYMBOLS = re.compile(r"\\(?:sum|prod|int|lim)")
_TOWER = re.compile(r"\d+!?(?:\^[{(]*\d+!?)*[)}]*")


def _is_tower_out_of_reach(text: str) -> bool:
    """Check for a tower of powers and factorials of more than some 2,000 bits, as `9^{9^9}`: no worker need try it."""
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
    r"""Check if a cleaned answer may state one number that computer algebra can find, as `\sqrt{16}` does.

    Sums and products that were left standing, relations, lists and expressions with a free symbol do not.
    """
    left, right = right_hand_side(text)
    if left is not None and re.search("[a-zA-Z]", left) and SCALED_SYMBOL.search(left):
        return False
    if not (_CLOSED_FORM.search(right) and _is_parsable(right)) or _NO_VALUE.search(right):
        return False
    if _BOUND_SYMBOLS.search(right):
        return True
    free = set(_FREE_SYMBOL.findall(right))
    return free <= {"e", "i", "C"} and len(split_items(right)) <= 1


def _compare_choice(reference: Reference, text: str) -> bool | None:
    """Compare with a multiple choice: its letter, its letter and content, or its content alone."""
    choice = _CHOICE.fullmatch(text)
    if not choice:
        return compare(read_reference(reference.text), text) if reference.text else False
    if choice["letter"] != reference.letter or re.search(r"\b[A-J]\b", choice["content"]):
        return False
    if not (reference.text and choice["content"]):
        return True
    return compare(read_reference(reference.text), choice["content"])


def compare(reference: Reference, text: str) -> bool | None:
    """
    Compare a cleaned answer with a reference that is not empty: as normalised text, then as exact rationals. `None`
    where only computer algebra can tell.
    """
    if reference.letter:
        return _compare_choice(reference, text)
    if reference.kind == "text":
        return _text_key(text) == reference.key
    if r"\approx" in text and any(map(str.isdigit, text.partition(r"\approx")[0])):
        exact, _, rounded = text.partition(r"\approx")  # `2/3 \approx 0.67` states 2/3, or 0.67 where that was asked
        verdict = compare(reference, exact.strip())
        return None if verdict is False and compare(reference, rounded.strip()) else verdict
    if reference.number is None:
        text, unit = split_unit(text) if not read_list(text) else (text, reference.unit)
        if unit and reference.unit and not unit & reference.unit:
            return False
        reference_list, answer_list = read_list(reference.text), read_list(text)
        if reference_list and (answer_list or read_number(text)):
            return bool(answer_list) and lists_agree(reference_list, answer_list)
        if _expression_key(text) == reference.key:
            return True
        if _BASED.fullmatch(reference.text) or _BASED.fullmatch(text):
            return False
        return None if _is_parsable(text) else False
    number = read_number(text)
    if number is not None:
        symbol, _ = right_hand_side(text)  # `y = 2` is not an answer to `x = 2`
        if reference.symbol and symbol and SYMBOL.fullmatch(symbol) and symbol != reference.symbol:
            return False
        return reference.number.agrees_with(number)
    text, unit = split_unit(text)
    if not _is_closed_form(text) or (unit and reference.unit and not unit & reference.unit):
        return False
    small = reference.number.value.numerator.bit_length() < MAX_BITS // 4
    return False if small and _is_tower_out_of_reach(text) else None
