"""Tiny Python functions: a chain of one to five operations, described in words, with tests."""

import ast
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schoolhouse.data.tiny.splits import split_of


LEVELS = [1, 2, 3, 4, 5]  # number of operations
READ = [1, 2, 3]  # levels in the corpus of the base model
SHOWN = [*READ * 3, 4, 5]  # levels of the SFT examples: few long ones
# Share of the SFT examples with an operation a line: most models are right more often that way, as GRPO finds out.
IN_STEPS = 0.4
NAMES = ["f", "solve", "run", "apply", "make"]

# kind of input -> operation -> (words, code, what it does). `{k}` is a number from 2 to 9, the same in all three.
_STEPS: dict[str, dict[str, tuple[str, str, Callable[..., Any]]]] = {
    "xs": {
        "even": (
            "keeps the even numbers",
            "xs = [x for x in xs if x % 2 == 0]",
            lambda v, k: [x for x in v if x % 2 == 0],
        ),
        "odd": (
            "keeps the odd numbers",
            "xs = [x for x in xs if x % 2 == 1]",
            lambda v, k: [x for x in v if x % 2 == 1],
        ),
        "above": (
            "keeps the numbers above {k}",
            "xs = [x for x in xs if x > {k}]",
            lambda v, k: [x for x in v if x > k],
        ),
        "add": ("adds {k} to each number", "xs = [x + {k} for x in xs]", lambda v, k: [x + k for x in v]),
        "times": ("multiplies each number by {k}", "xs = [x * {k} for x in xs]", lambda v, k: [x * k for x in v]),
        "reverse": ("reverses the list", "xs = xs[::-1]", lambda v, k: v[::-1]),
        "sort": ("sorts the list", "xs = sorted(xs)", lambda v, k: sorted(v)),
        "rest": ("drops the first number", "xs = xs[1:]", lambda v, k: v[1:]),
    },
    "n": {
        "add": ("adds {k}", "n = n + {k}", lambda v, k: v + k),
        "minus": ("subtracts {k}", "n = n - {k}", lambda v, k: v - k),
        "times": ("multiplies by {k}", "n = n * {k}", lambda v, k: v * k),
        "square": ("squares the number", "n = n * n", lambda v, k: v * v),
        "half": ("halves the number", "n = n // 2", lambda v, k: v // 2),
    },
    "s": {
        "upper": ("makes it upper case", "s = s.upper()", lambda v, k: v.upper()),
        "reverse": ("reverses the text", "s = s[::-1]", lambda v, k: v[::-1]),
        "repeat": ("repeats it {k} times", "s = s * {k}", lambda v, k: v * k),
        "rest": ("drops the first letter", "s = s[1:]", lambda v, k: v[1:]),
        "mark": ("adds a dot", 's = s + "."', lambda v, k: v + "."),
    },
}
_RETURNS: dict[str, dict[str, tuple[str, str, Callable[..., Any]]]] = {
    "xs": {
        "list": ("returns the list", "xs", lambda v: v),
        "sum": ("returns the sum", "sum(xs)", sum),
        "len": ("returns how many there are", "len(xs)", len),
    },
    "n": {
        "number": ("returns the number", "n", lambda v: v),
        "even": ("returns whether it is even", "n % 2 == 0", lambda v: v % 2 == 0),
    },
    "s": {"text": ("returns the text", "s", lambda v: v), "len": ("returns its length", "len(s)", len)},
}


@dataclass(frozen=True)
class Program:
    """
    A function to write.

    Args:
        code: A right answer, an operation a line.
        one_line: The same as one expression.
        tests: `assert` statements on the entry point that the prompt's author would show.
        hidden_tests: More of them, never used as a reward.
        level: Number of operations, one of [`LEVELS`].
    """

    question: str
    code: str
    one_line: str
    entry_point: str
    tests: list[str]
    hidden_tests: list[str]
    level: int
    split: str


def _value(rng: random.Random, kind: str) -> object:
    if kind == "xs":
        return [rng.randint(0, 12) for _ in range(rng.randint(3, 5))]
    if kind == "n":
        return rng.randint(0, 20)
    return "".join(rng.choice("abcdehlmnorst") for _ in range(rng.randint(3, 5)))


def program(rng: random.Random, level: int | None = None) -> Program:
    """A function of the given level, or of any that the base reads."""
    level = level or rng.choice(READ)
    # Draw different operations, each with its number, and what the function returns.
    kind = rng.choice(list(_STEPS))
    chosen = [(name, rng.randint(2, 9)) for name in rng.sample(list(_STEPS[kind]), level)]
    final = rng.choice(list(_RETURNS[kind]))
    name = rng.choice(NAMES)

    def run(value: Any) -> Any:
        for step, k in chosen:
            value = _STEPS[kind][step][2](value, k)
        return _RETURNS[kind][final][2](value)

    words = [_STEPS[kind][step][0].format(k=k) for step, k in chosen] + [_RETURNS[kind][final][0]]
    lines = [_STEPS[kind][step][1].format(k=k) for step, k in chosen] + [f"return {_RETURNS[kind][final][1]}"]
    code = "\n".join([f"def {name}({kind}):", *(f"    {line}" for line in lines)])
    # The same as one expression: each line becomes the operand of the next one.
    nested = kind
    for line in lines:
        nested = re.sub(rf"\b{kind}\b", f"({nested})", line.removeprefix(f"{kind} = "))
    nested = ast.unparse(ast.parse(nested)).replace("'", '"')  # only the brackets that it needs
    inputs = [_value(rng, kind) for _ in range(6)]
    asserts = [f"assert {name}({value!r}) == {run(value)!r}" for value in inputs]
    # A number belongs to the key of the split only where the question tells it.
    shape = [step + (str(k) if "{k}" in _STEPS[kind][step][0] else "") for step, k in chosen]
    return Program(
        question=f"Write a function {name}({kind}) that {', '.join(words[:-1])} and {words[-1]}.",
        code=code,
        one_line=f"def {name}({kind}):\n    {nested}",
        entry_point=name,
        tests=asserts[:3],
        hidden_tests=asserts[3:],
        level=level,
        split=split_of("program", kind, *shape, final),
    )


def listing(rng: random.Random) -> str:
    """Document of the corpus: a program with its description or its tests."""
    while (item := program(rng)).split != "train":
        pass
    style = rng.random()
    if style < 0.4:
        return f"# {item.question}\n{item.code}"
    if style < 0.8:
        return f"{item.question}\n{item.code}"
    return f"{item.code}\n" + "\n".join(item.tests[:2])
