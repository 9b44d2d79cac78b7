r"""Comparison of two answers by computer algebra, for worker processes only: an expression may take for ever.

An answer is taken apart as text first: lists, tuples and sets into items, `\pm` into two. An item is parsed by
math-verify and compared by what it is: numbers to 50 digits, other expressions and equations at many points, sets and
intervals as sets, matrices entry by entry. math-verify's own `verify` takes `1, 2, 2` for `1, 2`, 10^-100 for 10^-101,
`x^2 = 5^2` for 25, and refuses equations that differ by a factor; the cases are in the tests.
"""

import random
import re
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse
from sympy.core.function import AppliedUndef
from sympy.core.relational import Equality, LessThan, Relational, StrictLessThan, Unequality
from sympy.logic.boolalg import And

from schoolhouse.graders.numbers import split_unit


# 50 digits tell closed forms apart that 15 cannot: math-verify's default takes 2^-99 and 2^-98 for one number.
DIGITS = 60
MAX_ITEMS = 50

_MIXED = re.compile(r"(?<![\d}])(\d+)\s*(\\frac\{\d+\}\{\d+\})")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_FUNCTION = r"(?:arc)?(?:sin|cos|tan)|pi|sqrt|log|ln|exp"
_ONE_EXPRESSION = [LatexExtractionConfig(boxed_match_priority=-1)]


def _repeating(match: re.Match[str]) -> str:
    whole, once, repeats = match.groups()
    top = int(whole + once + repeats) - int(whole + once or "0")
    return rf"\frac{{{top}}}{{{'9' * len(repeats)}{'0' * len(once)}}}"


def _exact_latex(text: str) -> str:
    r"""Rewrite an expression so that math-verify reads it exactly.

    Each step is for a case that math-verify alone gets wrong: `1,234\sqrt{2}`; `1\frac{1}{2}x` as a product; `0.1`
    equal to `0.1000001`, since it compares decimals after rounding; `2 sqrt(3)` and `36 pi` without backslashes;
    `\sqrt 10` as $\sqrt{1} \cdot 0$.
    """
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).replace("%", r"\%").replace(r"\log_e", r"\ln")
    text = _REPEATING.sub(_repeating, _MIXED.sub(r"(\1+\2)", text))
    text = _DECIMAL.sub(lambda m: rf"\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}", text)
    text = re.sub(rf"(?<![\\a-zA-Z])({_FUNCTION})(?![a-zA-Z])", r"\\\1", text)
    text = re.sub(rf"\\operatorname\{{({_FUNCTION})\}}", r"\\\1", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"\\sqrt\s+(\d+)", r"\\sqrt{\1}", text)


def _read(text: str) -> Any:
    found = parse(f"${_exact_latex(text)}$", _ONE_EXPRESSION, fallback_mode="no_fallback", parsing_timeout=None)
    if not found or isinstance(found[0], str):
        return None
    value = found[0]
    # math-verify reads `i` as a real number; and f(x) has no value at a point.
    unknown = {symbol: sympy.I for symbol in value.free_symbols if symbol.name == "i"}
    unknown |= {function: sympy.Symbol(str(function), real=True) for function in value.atoms(AppliedUndef)}
    return value.subs(unknown) if unknown else value


# --- The parts of an answer, as text

_TOKEN = re.compile(
    r"(?P<open>\\\{|\\begin(?=\{)|\\langle|[(\[{])|(?P<close>\\\}|\\end(?=\{)|\\rangle|[)\]}])|(?P<equals>(?<![<>!:])=)"
    r"|(?P<comma>(?<!\d),|,(?!\d{3}(?!\d))|;|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z]))"
)
_PLAIN = {r"\langle": "(", r"\rangle": ")", "{": "", "}": ""}
_MEMBER = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?\s*\\in(?![a-zA-Z])\s*")
_NAMED_LIST = re.compile(
    r"(?:[A-Za-z](?:_\{?\w+\}?)?|\([a-z](?:,\s*[a-z])+\))\s*=\s*(?=\(|\[|\\\{|[^=]*,[^=]*$)(?!.*=)", re.DOTALL
)
# "AB", "\frac{NO}{BO}", "\angle ABC", "x_1", "f(x)": what a value may be called.
_NAME = re.compile(r"(?:\\(?:frac|angle|triangle|overline)|[A-Z]+|[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?|[{}/\s])+")


def _split(text: str, kind: str) -> list[str]:
    """Split at separators of that kind that stand outside of all brackets."""
    parts, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += (token.lastgroup == "open") - (token.lastgroup == "close")
        if token.lastgroup == kind and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _unwrap(text: str) -> tuple[str, str]:
    """Split off brackets around all of a text."""
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token.lastgroup == "open") - (token.lastgroup == "close")
        if depth <= 0 and token.end() < len(text):
            break
        opening = _TOKEN.match(text)
        if depth == 0 and token.lastgroup == "close" and opening and not opening[0].startswith(r"\begin"):
            brackets = "".join(_PLAIN.get(bracket[0], bracket[0]) for bracket in (opening, token))
            return brackets, text[opening.end() : token.start()].strip()
    return "", text


def _items(text: str) -> tuple[str, list[str]]:
    r"""Return the brackets and items of a list, tuple or set; one item without brackets where it is something else."""
    text = _MEMBER.sub("", text.strip(), count=1)
    named = _NAMED_LIST.match(text)
    if named and (len(_split(text, "comma")) > 1 or _unwrap(text[named.end() :])[0]):
        text = text[named.end() :]
    brackets, inner = _unwrap(text)
    items = _split(inner, "comma")
    if len(items) == 1 and brackets not in ("", r"\{\}"):  # parentheses around one item
        return _items(inner)
    signed = []
    for item in items:
        plus, minus = item.replace(r"\pm", "+").replace(r"\mp", "-"), item.replace(r"\pm", "-").replace(r"\mp", "+")
        signed += [item] if plus == minus else [plus, minus]
    return brackets, signed


def _name_of(item: str) -> str | None:
    left, *right = _split(item, "equals")
    return left if right and _NAME.fullmatch(left) else None


def _compare(reference: str, answer: str) -> bool:
    (expected_brackets, expected), (brackets, items) = _items(reference), _items(answer)
    if len(expected) == len(items) == 1:
        return _same_item(expected[0], items[0])
    if len(expected) != len(items) or (expected_brackets and brackets and expected_brackets != brackets):
        return _same_set(reference, answer)
    if len(items) > MAX_ITEMS:
        return False
    names = {re.sub(r"_.*", "", name) for item in expected if (name := _name_of(item))}
    if not {expected_brackets, brackets} <= {"", r"\{\}"} or (len(names) > 1 and not any(map(_name_of, items))):
        return all(map(_compare, expected, items))
    # In any order, but as often: `1, 1` is not `1, 2`, nor `1`.
    for one in expected:
        same = next((other for other in items if _compare(one, other)), None)
        if same is None:
            return False
        items.remove(same)
    return True


# --- One item


_SUMS = sympy.Sum, sympy.Product, sympy.Integral


def _is_number(value: object) -> bool:
    return isinstance(value, sympy.Expr) and not value.free_symbols


def _same_number(reference: sympy.Expr, answer: sympy.Expr) -> bool:
    """Compare to 50 significant digits. math-verify compares absolute differences, where 10^-100 equals 10^-101."""
    if reference.is_Rational and answer.is_Rational:
        return False
    one, other = sympy.N(reference, DIGITS), sympy.N(answer, DIGITS)
    if not (one.is_finite and other.is_finite):
        return False
    distance, size = abs(one - other), max(abs(one), abs(other))
    if distance <= size * sympy.Float(10) ** (10 - DIGITS):
        return True
    # Both are next to zero, where relative precision is lost: only algebra can tell.
    return bool(distance < sympy.Float(10) ** (20 - DIGITS) and sympy.simplify(reference - answer) == 0)


def _at_points(*expressions: sympy.Expr) -> list[list[sympy.Expr]]:
    """Return the values of expressions at the same points, where all have one."""
    symbols = sorted(set[sympy.Symbol]().union(*(expression.free_symbols for expression in expressions)), key=str)
    drawn, rows = random.Random(0), []
    for _ in range(8):
        point = {symbol: sympy.Rational(drawn.randint(-4000, 4000), 997) for symbol in symbols}
        row = [sympy.N(expression.subs(point), DIGITS) for expression in expressions]
        if all(value.is_number and value.is_finite for value in row):
            rows.append(row)
    return rows


def _is_close(one: sympy.Expr, other: sympy.Expr) -> bool:
    return bool(abs(one - other) <= max(abs(one), abs(other)) * sympy.Float(10) ** (20 - DIGITS))


def _same_expression(one: sympy.Expr, other: sympy.Expr) -> bool:
    one, other = one.doit(), other.doit()
    if one == other:
        return True
    if _is_number(one) and _is_number(other):
        return _same_number(one, other)
    if one.has(*_SUMS) or other.has(*_SUMS):
        return bool(sympy.simplify(one - other) == 0)
    rows = _at_points(one, other)
    return len(rows) > 2 and all(_is_close(*row) for row in rows)


def _same_relation(one: Relational, other: Relational) -> bool:
    """Compare what is left when one side is subtracted: up to a factor, which an inequality needs positive."""
    one, other = (side.reversed if isinstance(side, StrictLessThan | LessThan) else side for side in (one, other))
    if type(one) is not type(other) or one.free_symbols != other.free_symbols:
        return False
    if one.has(*_SUMS) or other.has(*_SUMS):
        return one == other or one.simplify() == other.simplify()
    rows = _at_points(one.lhs - one.rhs, other.lhs - other.rhs)
    rows = [row for row in rows if row[0] != 0 and row[1] != 0]
    if len(rows) < 3 or not all(_is_close(a * rows[0][1], b * rows[0][0]) for a, b in rows):
        return False
    return isinstance(one, Equality | Unequality) or bool(rows[0][0] / rows[0][1] > 0)


def _parts(value: Any) -> list[Relational]:
    return [*value.args] if isinstance(value, And) else [value]


def _is_solved(value: Any) -> bool:
    """Check if each relation is between a symbol and what does not hold it: `x < 3`, not `2x < 6`."""
    return all(
        any(
            isinstance(side, sympy.Symbol) and side not in rest.free_symbols
            for side, rest in (part.args, part.args[::-1])
        )
        for part in _parts(value)
    )


def _as_set(text: str, solved: bool) -> sympy.Set | None:
    """Read `x < 3`, `1 < x < 2`, `x < 1 or x > 2`, `x \\neq 3`, intervals and their unions as a set."""
    found: list[sympy.Set] = []
    items = _split(_MEMBER.sub("", text.strip()), "comma")
    for value in map(_read, items[:MAX_ITEMS]):
        if isinstance(value, Relational | And):
            if len(value.free_symbols) != 1 or (solved and not _is_solved(value)):
                return None
            value = sympy.Intersection(*(part.as_set() for part in _parts(value)))
        elif len(items) > 1:  # `(1, 2), (3, 4)` are points
            return None
        if not isinstance(value, sympy.Set):
            return None
        found.append(value)
    alternatives = re.search(r"(?<![a-z])or(?![a-z])", text)
    whole = sympy.Union(*found) if alternatives else sympy.Intersection(*found)
    # `x > 2 or x > 3` offers two answers, though the first holds the second.
    return None if len(found) > 1 and whole in found else whole


def _same_set(reference: str, answer: str) -> bool:
    one, other = _as_set(reference, solved=False), _as_set(answer, solved=True)
    return one is not None and other is not None and (one == other or one.symmetric_difference(other).is_empty is True)


def _same_item(reference: str, answer: str) -> bool:
    reference, answer = split_unit(reference)[0], split_unit(answer)[0]
    if "".join(reference.split()) == "".join(answer.split()):
        return True
    equal = _split(answer, "equals")
    if len(equal) > 2:  # a chain of equalities states its last member
        answer = f"{equal[0]} = {equal[-1]}"
    one = _read(reference)
    other = None if one is None else _read(answer)
    if isinstance(one, Equality) and isinstance(other, Equality):
        if isinstance(one.lhs, sympy.Symbol) and not one.rhs.free_symbols:  # `2x = 4` does not state `x = 2`
            return bool(one.lhs == other.lhs) and _same_expression(one.rhs, other.rhs)
        return _same_relation(one, other)
    if isinstance(one, Equality) and _name_of(reference) and one.lhs not in one.rhs.free_symbols:
        one = one.rhs
    elif isinstance(other, Equality):
        left, right = _split(answer, "equals")
        derived = "".join(left.split()) != "".join(right.split()) and _same_expression(other.lhs, other.rhs)
        if not derived and (not _name_of(answer) or other.lhs.free_symbols & other.rhs.free_symbols):
            return False
        other = other.rhs
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        return one.shape == other.shape and all(map(_same_expression, one, other))
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        return _same_expression(one, other)
    if isinstance(one, Relational | And) and isinstance(other, Relational | And):
        if len(_parts(one)) == len(_parts(other)) and (_is_solved(other) or not _is_solved(one)):
            rest = _parts(other)
            for part in _parts(one):
                rest = [each for each in rest if not _same_relation(part, each)]
            if not rest:
                return True
        if one.free_symbols != other.free_symbols:
            return False
    return _same_set(reference, answer)


def same_value(reference: str, answer: str) -> bool:
    r"""Compare two cleaned answers; of `\sqrt{2} \approx 1.41` either side counts, if they are about the same."""
    exact, approximate, rounded = answer.partition(r"\approx")
    if not (approximate and any(map(str.isdigit, exact))):
        return _compare(reference, rounded if approximate else exact)
    if _compare(reference, exact):
        return True
    one, other = _read(_split(exact, "equals")[-1]), _read(rounded)
    near = _is_number(one) and _is_number(other) and abs(sympy.N(one - other)) <= abs(sympy.N(one)) / 100
    return bool(near and _compare(reference, rounded))


def can_be_evaluated(reference: str, _answer: str) -> bool:
    """Evaluate a reference alone: `True` if that comes to an end."""
    for value in map(_read, _items(reference)[1]):
        if _is_number(value):
            sympy.N(value.doit(), DIGITS)
    return True
