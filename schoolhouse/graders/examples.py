"""Examples in tests and prompts: a call of the function asked for, and the value that is expected."""

import ast
import functools
import re
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schoolhouse.sandbox import entry_point_of


Value = Hashable
LINES = 20  # of a prompt, over which an assert statement may go on
_ASSERT = re.compile(r"^\s*assert\b")
# Between a call and its value in words and docstrings: `f(1) == 2`, `f(1) -> 2`, `>>> f(1)` and 2 in the next line.
_GIVES = re.compile(
    r"[\s`]*(?:==|=>|->|[=→➞⇒#:]|is\b|(?:should |must |will |to )?(?:returns?|be|give|equals?)\b|\n)[\s`#]*"
)
_CONTAINERS = ("set", "frozenset", "list", "tuple", "dict", "sorted")
_LARGEST = 10**30  # of numbers that are computed with


@dataclass(frozen=True)
class Example:
    """
    A call and its expected value; two examples are equal if they say the same.

    Args:
        arguments (`tuple`):
            Value of each argument, as [`fold`] gives it; of one that is no literal, its source text.
        expected (`Hashable`):
            The value, in the same form.
        source (`tuple[str, str]`, *optional*):
            Source texts of the arguments, as in the call, and of the value.
    """

    arguments: tuple[Value, ...]
    expected: Value
    source: tuple[str, str] = field(default=("", ""), compare=False)


def fold(node: ast.AST, names: Mapping[str, ast.expr] | None = None) -> Value:
    """
    Return the value of a literal, or of literals that are added, multiplied and the like, in a hashable form.

    Numbers, texts and `None` stand for themselves; lists and tuples are the same, as a table's key cannot be a list.
    `names` gives the expressions that names stand for. Nothing is executed, and nothing large is computed. Any other
    expression is a `ValueError`.
    """
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return "sequence", *(fold(item, names) for item in node.elts)
    if isinstance(node, ast.Set):
        return "set", frozenset(fold(item, names) for item in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return "dict", frozenset((fold(key, names), fold(value, names)) for key, value in pairs if key)
    if isinstance(node, ast.Name) and names and node.id in names:
        return fold(names[node.id])
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) in _CONTAINERS and len(node.args) == 1:
        inner = fold(node.args[0], names)
        is_set = node.func.id in ("set", "frozenset") and isinstance(inner, tuple) and inner[:1] == ("sequence",)
        return ("set", frozenset(inner[1:])) if is_set else inner
    if isinstance(node, ast.UnaryOp | ast.BinOp):
        return _compute(node, names)
    raise ValueError(f"no literal: {type(node).__name__}")


def _compute(node: ast.UnaryOp | ast.BinOp, names: Mapping[str, ast.expr] | None) -> Value:
    parts = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
    values: list[Any] = [fold(part, names) for part in parts]
    if isinstance(node.op, ast.Add) and all(isinstance(value, str) for value in values):
        return "".join(values)
    if not all(isinstance(value, int | float | complex) and abs(value) < _LARGEST for value in values):
        raise ValueError("not computed")
    match node.op, values:
        case ast.USub(), [value]:
            return -value
        case ast.UAdd(), [value]:
            return +value
        case ast.Not(), [value]:
            return not value
        case ast.Add(), [left, right]:
            return left + right
        case ast.Sub(), [left, right]:
            return left - right
        case ast.Mult(), [left, right]:
            return left * right
        case ast.Div() | ast.FloorDiv(), [left, right] if right and not isinstance(left, complex):
            return left / right if isinstance(node.op, ast.Div) else left // right
    raise ValueError("not computed")


def examples(tests: str | Sequence[str] | None, entry_point: str) -> list[Example]:
    """
    Return the examples in the `assert` statements of tests, each once, in order.

    These are read: `f(1) == 2` either way round, `f(1)` and `not f(1)`, a value beside the call in another function
    (`set(f(1)) == {2}`, `isclose(f(1), 2.0)`, `abs(f(1) - 2.0) < 1e-9`); `f` is also HumanEval's `candidate`.
    """
    return list(_examples(tests if isinstance(tests, str) else "\n".join(tests or []), entry_point))


@functools.lru_cache(maxsize=4096)
def _examples(tests: str, entry_point: str) -> tuple[Example, ...]:
    try:
        asserts = [node for node in ast.walk(parse(tests)) if isinstance(node, ast.Assert)]
        return tuple(dict.fromkeys(one for node in asserts for one in _of_assert(node.test, entry_point)))
    except (ValueError, RecursionError):
        return ()


def tested_function(tests: str | Sequence[str]) -> str:
    """Name of the function that tests are about; empty where they call none."""
    try:
        return entry_point_of(tests if isinstance(tests, str) else "\n".join(tests))
    except ValueError:
        return ""


def parse(program: str) -> ast.Module:
    """Parse without the warnings about a program's own strings; a `ValueError` where it is no Python."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(program)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"no Python: {error}") from None


def _of_assert(test: ast.expr, entry_point: str) -> Iterator[Example]:
    for part in test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]:
        calls = [node for node in ast.walk(part) if isinstance(node, ast.Call)]
        call = next((node for node in calls if ast.unparse(node.func) in (entry_point, "candidate")), None)
        if call is None:
            continue
        inside = set(ast.walk(call))
        beside: list[ast.expr]
        if part is call:
            beside = [ast.Constant(True)]
        elif isinstance(part, ast.UnaryOp) and part.operand is call:
            beside = [ast.Constant(False)]
        else:  # the largest literal comes first, since the walk goes from the outside to the inside
            if isinstance(part, ast.Compare) and not isinstance(part.ops[0], ast.Eq | ast.Is):
                part = next((side for side in (part.left, *part.comparators) if call in ast.walk(side)), part)
            beside = [node for node in ast.walk(part) if isinstance(node, ast.expr) and node not in inside]
        for node in beside:
            try:
                expected = fold(node)
            except ValueError:
                continue
            given = [*call.args, *(keyword.value for keyword in call.keywords)]
            source = ", ".join(map(ast.unparse, [*call.args, *call.keywords])), ast.unparse(node)
            yield Example(tuple(map(_value, given)), expected, source)
            break


def _value(node: ast.expr) -> Value:
    try:
        return fold(node)
    except ValueError:
        return "code", ast.unparse(node)


def shown_examples(prompt: str, entry_point: str) -> list[Example]:
    """Return the examples that a prompt shows: `assert` statements, doctests, and words such as `f(1) returns 2`."""
    found: dict[Example, None] = {}
    lines, others, number = prompt.split("\n"), [], 0
    while number < len(lines):
        ends = range(number + 1, min(number + LINES, len(lines)) + 1) if _ASSERT.match(lines[number]) else []
        asserted = ((end, examples("\n".join(lines[number:end]).strip(), entry_point)) for end in ends)
        end, told = next((found for found in asserted if found[1]), (number + 1, []))
        found |= dict.fromkeys(told)
        others += [] if told else [lines[number]]
        number = end
    text, name = "\n".join(others), entry_point.rpartition(".")[2]
    for start in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
        if example := _told(text[start.start() :], name):
            found[example] = None
    return list(found)


def _told(text: str, name: str) -> Example | None:
    """The example that a text begins with: a call, and its value in the same line or the next."""
    for end in [place.end() for place in re.finditer(r"\)", text[:2000])][:LINES]:
        rest = _GIVES.match(text, end)
        if rest is None:
            continue
        value = text[rest.end() :].partition("\n")[0]
        for stated in (value, value.split("#")[0], re.split(r"[.,;`]?(?:\s|$)", value)[0], value.rstrip(".,;`) ")):
            # In brackets each has to be an expression of its own.
            if stated.strip() and (told := examples(f"assert ({text[:end]}) == ({stated.strip()})", name)):
                return told[0]
    return None


def copied_program(prompt: str, entry_point: str) -> str:
    """Return a program that knows only the examples that a prompt shows, in a table; empty where it shows none."""
    table = [f"repr([{arguments}]): {value}" for arguments, value in _sources(shown_examples(prompt, entry_point))]
    if not table or not entry_point.isidentifier():
        return ""
    return f"def {entry_point}(*args):\n    return {{{', '.join(table)}}}[repr([*args])]"


def _sources(found: Sequence[Example]) -> Iterator[tuple[str, str]]:
    for example in found:
        yield re.sub(r"\b[A-Za-z_]\w*=(?!=)", "", example.source[0]), example.source[1]
