"""Sums from one digit to three steps, and word problems, each with a level and a worked solution.

The worked solution splits the second number into its digits from the left: `347+285 = 547+85 = 627+5 = 632`. Each step
is easy, so a small model that writes the steps is right far more often than one that answers at once. Only some of the
SFT examples show the steps: GRPO has to find out that they help.
"""

import random
from dataclasses import dataclass

from schoolhouse.data.tiny.splits import split_of
from schoolhouse.data.tiny.world import people


LEVELS = {
    1: "sums and differences up to 20",
    2: "two digits",
    3: "three digits",
    4: "small products",
    5: "two steps",
    6: "three steps",
}
WORD_LEVELS = {1: "one step, up to 20", 2: "one step, two digits", 3: "two steps", 4: "three steps"}

_ASKS = ["What is {}?", "Compute {}.", "{} = ?", "How much is {}?"]
_THINGS = "apples books coins shells stones cards eggs pears nuts stamps".split()


@dataclass(frozen=True)
class Problem:
    """
    A question with its answer, which is never negative, and the chains of equalities that lead to it, a line each.

    `level` is a key of [`LEVELS`] or [`WORD_LEVELS`], `split` is `"train"` or `"test"`.
    """

    question: str
    answer: int
    steps: list[str]
    level: int
    split: str

    @property
    def worked(self) -> str:
        """The solution with its work, ended by `#### N`."""
        return "\n".join([*self.steps, f"#### {self.answer}"])


def _parts(number: int) -> list[int]:
    """285 -> [200, 80, 5]"""
    digits = str(number)
    return [int(digit) * 10 ** (len(digits) - i - 1) for i, digit in enumerate(digits) if digit != "0"] or [0]


def chain(a: int, operator: str, b: int) -> tuple[str, int]:
    """
    One operation as a chain of equalities, for instance `"347+285 = 547+85 = 627+5 = 632"`, and its value.

    The operator is `"+"`, `"-"` or `"*"`; one of the operands of a product has one digit.
    """
    if operator == "*":
        one, other = min(a, b), max(a, b)
        products = [one * part for part in _parts(other)]
        if len(products) == 1:
            return f"{a}*{b} = {a * b}", a * b
        return f"{a}*{b} = {'+'.join(map(str, products))} = {a * b}", a * b
    sign = 1 if operator == "+" else -1
    links, rest, total = [f"{a}{operator}{b}"], b, a
    for part in _parts(b)[:-1]:
        total, rest = total + sign * part, rest - part
        links.append(f"{total}{operator}{rest}")
    total += sign * rest
    return " = ".join([*links, str(total)]), total


def _one_step(rng: random.Random, level: int) -> tuple[str, list[tuple[int, str, int]]]:
    if level == 4:
        a, b = rng.randint(2, 9), rng.randint(3, 99)
        a, b = (b, a) if rng.random() < 0.5 else (a, b)
        return f"{a}*{b}", [(a, "*", b)]
    operator = rng.choice("+-")
    bounds = {1: (0, 20), 2: (10, 99), 3: (100, 999)}[level]
    a, b = rng.randint(*bounds), rng.randint(*bounds)
    if operator == "-":
        a, b = max(a, b), min(a, b)
    return f"{a}{operator}{b}", [(a, operator, b)]


def _several_steps(rng: random.Random, count: int) -> tuple[str, list[tuple[int, str, int]]]:
    """An expression without brackets: a product of small numbers or a number first, then sums and differences."""
    operations, value = [], rng.randint(10, 99)
    expression = str(value)
    if rng.random() < 0.5:
        a, b = rng.randint(2, 9), rng.randint(2, 12)
        expression, operations, value = f"{a}*{b}", [(a, "*", b)], a * b
    while len(operations) < count:
        operator = "-" if value > 20 and rng.random() < 0.5 else "+"
        number = rng.randint(2, min(value, 99) if operator == "-" else 99)
        operations.append((value, operator, number))
        expression += f"{operator}{number}"
        value += number if operator == "+" else -number
    return expression, operations


def arithmetic(rng: random.Random, level: int | None = None) -> Problem:
    """A bare expression to compute, of the given level or of any."""
    level = level or rng.choice(list(LEVELS))
    expression, operations = _one_step(rng, level) if level <= 4 else _several_steps(rng, level - 3)
    chains = [chain(*operation) for operation in operations]
    question = rng.choice(_ASKS).format(expression)
    return Problem(question, chains[-1][1], [text for text, _ in chains], level, split_of("arithmetic", expression))


# Each story: text, and per number the operator that it brings (None: where the story starts).
_OPENINGS = ["{p} has {0} {t}.", "{p} owns {0} {t}.", "There are {0} {t} in the basket of {p}."]
_CHANGES = {
    "+": [
        "{p} finds {0} more.",
        "A friend gives {p} {0} more.",
        "{p} buys {0} more at the market.",
        "Then {p} gets {0} from a neighbour.",
    ],
    "-": ["{p} gives away {0}.", "{p} loses {0} on the way home.", "Then {p} sells {0} of them.", "{0} are stolen."],
}
_BOXES = ["{p} has {0} boxes with {1} {t} in each.", "{p} fills {0} bags with {1} {t} each."]
_ENDINGS = ["How many {t} does {p} have now?", "How many {t} are there in the end?", "How many {t} does {p} own now?"]


def word_problem(rng: random.Random, level: int | None = None) -> Problem:
    """A word problem of the given level or of any."""
    level = level or rng.choice(list(WORD_LEVELS))
    low, high = (2, 20) if level == 1 else (10, 99)
    shape: list[object] = []
    names = {"p": rng.choice(people()).name.split()[0], "t": rng.choice(_THINGS)}
    operations: list[tuple[int, str, int]] = []
    if level > 1 and rng.random() < 0.4:
        a, b = rng.randint(2, 9), rng.randint(2, 12)
        value, sentences = a * b, [rng.choice(_BOXES).format(a, b, **names)]
        operations.append((a, "*", b))
        shape += ["*", a, b]
    else:
        value = rng.randint(low, high)
        sentences = [rng.choice(_OPENINGS).format(value, **names)]
        shape.append(value)
    while len(operations) < max(1, level - 1):
        operator = "-" if value > 10 and rng.random() < 0.5 else "+"
        number = rng.randint(2, min(value, high) if operator == "-" else high)
        sentences.append(rng.choice(_CHANGES[operator]).format(number, **names))
        operations.append((value, operator, number))
        shape += [operator, number]
        value += number if operator == "+" else -number
    sentences.append(rng.choice(_ENDINGS).format(**names))
    chains = [chain(*operation) for operation in operations]
    return Problem(" ".join(sentences), value, [text for text, _ in chains], level, split_of("story", *shape))


def textbook(rng: random.Random) -> str:
    """Document of the corpus: a problem with or without its steps, sometimes with a corrected mistake."""
    while (problem := (word_problem if rng.random() < 0.35 else arithmetic)(rng)).split != "train":
        pass
    style = rng.random()
    if style < 0.45:
        solution = "\n".join(problem.steps)
    elif style < 0.55:
        wrong = problem.answer + rng.choice([-10, -2, -1, 1, 2, 10])
        solution = f"{abs(wrong)}? Wait, " + "\n".join(problem.steps)
    else:
        solution = ""
    ending = rng.choice(["Answer: {}", "So it is {}.", "#### {}"]).format(problem.answer)
    opening = rng.choice(["Exercise: {}", "Sum. {}", "{}"]).format(problem.question)
    return "\n".join(filter(None, [opening, solution, ending]))
