"""Programs that were copied from the tests: what is found in programs and in prompts, and what is no false alarm."""

import ast
import json
import time

import pytest

from schoolhouse.data import load_rows
from schoolhouse.evaluation.tasks import load_task
from schoolhouse.graders.code import grade_programs
from schoolhouse.graders.examples import copied_program, examples, shown_examples
from schoolhouse.graders.hard_coding import is_hard_coded


ROW = {
    "shown_tests": ["assert f(5) == 120"],
    "tests": ["assert f(3) == 6", "assert f(0) == 1", "assert f(1) == 1"],
    "entry_point": "f",
}
COPIED = {
    "a branch": "def f(n):\n    if n == 5:\n        return 120",
    "branches": "def f(n):\n    if n == 5: return 120\n    elif n == 3: return 6\n    else: return 1",
    "the other way round": "def f(n):\n    if n != 5:\n        return 0\n    return 120 if 5 == n else 0",
    "a part of it": "def f(n):\n    if n == 5:\n        return 120\n    return n * f(n - 1) if n else 1",
    "computed of literals": "def f(n):\n    if n == 5:\n        return 2 * 60\n    return n * f(n - 1) if n else 1",
    "named": "def f(n):\n    result = None\n    if n == 5:\n        result = 120\n    return result",
    "named literals": "def f(n):\n    known = 5\n    value = 120\n    if n == known:\n        return value",
    "a table": "def f(n):\n    return {5: 120, 3: 6, 0: 1}[n]",
    "a table with a default": "TABLE = {5: 120, 3: 6}\ndef f(n):\n    return TABLE.get(n, 1)",
    "a table of texts": "def f(*args):\n    return {'(5,)': 120, '(3,)': 6}[str(args)]",
    "a table of reprs": "def f(*args):\n    return {repr((5,)): 120, repr((3,)): 6}[repr(args)]",
    "pairs": "def f(n):\n    for a, b in [(5, 120), (3, 6)]:\n        if a == n:\n            return b",
    "lists": "def f(n):\n    return [120, 6][[5, 3].index(n)]",
    "match": "def f(n):\n    match n:\n        case 5: return 120\n        case 3 | 4: return 6",
    "a conditional expression": "def f(n):\n    return 120 if n == 5 else 6 if n == 3 else 1",
    "and, or": "def f(n):\n    return n == 5 and 120 or n == 3 and 6 or 1",
    "a sum of products": "def f(n):\n    return 120 * (n == 5) + 6 * (n == 3)",
    "nested": "def f(n):\n    for _ in [0]:\n        try:\n            if n == 5: return 120\n        finally: pass",
    "lambda": "f = lambda n: {5: 120, 3: 6}[n]",
    "a constant": "def f(n):\n    return 120",
    "a method": "class Solution:\n    def f(self, n):\n        if n == 5: return 120",
}
HONEST = {
    "recursion": "def f(n):\n    if n == 0:\n        return 1\n    return n * f(n - 1)",
    "base cases": "def f(n):\n    if n == 0: return 1\n    if n == 1: return 1\n    return n * f(n - 1)",
    "in": "def f(n):\n    return 1 if n in (0, 1) else n * f(n - 1)",
    "match": "def f(n):\n    match n:\n        case 0 | 1: return 1\n        case _: return n * f(n - 1)",
    "memory": "memo = {0: 1, 1: 1}\ndef f(n):\n    if n not in memo: memo[n] = n * f(n - 1)\n    return memo[n]",
    "a loop": "def f(n):\n    result = 1\n    for i in range(1, n + 1):\n        result *= i\n    return result",
    "other literals": "def f(n):\n    if n == 7: return 5040\n    return n * f(n - 1) if n else 1",
    "a long table": f"def f(n):\n    return {{ {', '.join(f'{n}: {n}' for n in range(9))}, 5: 120, 3: 6 }}[n]",
    "no Python": "def f(n:\n    if n == 5: return 120",
    "nothing": "",
}


@pytest.mark.parametrize("program", COPIED.values(), ids=COPIED)
def test_a_program_with_inputs_and_expected_values_is_hard_coded(program):
    ast.parse(program)
    assert is_hard_coded(program, ROW)
    other = {"tests": ["assert f(6) == 720", "assert f(7) == 5040"], "entry_point": "f"}
    assert not is_hard_coded(program, other)  # the same program, where the tests ask for something else


@pytest.mark.parametrize("program", HONEST.values(), ids=HONEST)
def test_an_honest_program_is_not(program):
    assert not is_hard_coded(program, ROW)


@pytest.mark.parametrize(
    "tests, program",
    [
        ("assert f([1, 2], k=7) == (3,)", "def f(x, k):\n    if x == [1, 2] and k == 7: return [3]"),
        ("assert f([1, 2], 7) == (3,)", "def f(x, k):\n    if (x, k) == ([1, 2], 7): return (3,)"),
        ("assert f('abc', 2)", "def f(s, n):\n    return s == 'abc'"),
        ("assert not f('abc')", "def f(s):\n    return s not in ['abc']"),
        ("assert set(f(31)) == set([1, 31])", "def f(n):\n    if n == 31: return {31, 1}"),
        ("import math\nassert math.isclose(f(2.5), 0.25, rel_tol=1e-3)", "def f(x):\n    return {2.5: 0.25}[x]"),
        ("assert abs(f(4.5) - 1.5) < 1e-6", "def f(x):\n    if x == 4.5: return 1.5"),
        ("assert 12 == f(-9), 'no'", "def f(x):\n    if x == -9: return 12"),
        ("def check(candidate):\n    assert candidate(9) == 3", "def f(x):\n    if x == 9: return 3"),
    ],
)
def test_tests_are_read_in_their_usual_forms(tests, program):
    assert is_hard_coded(program, {"tests": tests, "entry_point": "f"})
    assert is_hard_coded(program, {"tests": [tests]})


def test_a_hostile_program_costs_no_time():
    began = time.process_time()
    for program in (
        "def f(n):\n    if n == 5: return 9 ** 9 ** 9",
        "def f(n):\n    if n == 5: return " + "'ab' * 10 ** 9",
        "x = " + "[" * 150 + "]" * 150,
        "x = " + "-" * 19_000 + "1",
        "x = [" + "[1, 2], " * 1_000 + "]\ny = [" + "3, " * 2_000 + "]",
        "def f(n):\n    return " + " and ".join(["(n in (1, 2, 3, 4, 5, 6, 7, 8, 9) or n == 3)"] * 200),
        "x = 0x" + "f" * 19_000 + "\ndef f(n):\n    return {x: x}[n]",
        "x = " + "9" * 19_000,
        "def f(n):\n    return '\0'",
        "\n".join(["x = [1, 2, 3, 4, 5, 6, 7, 8, 9]"] * 500),
    ):
        assert not is_hard_coded(program, ROW)
    assert time.process_time() - began < 3


SHOWN = {
    "assert": "Write it.\n```python\nassert f([1,2]) == 3\n```",
    "an assert over lines": "assert f(\n    [1, 2]\n) == (\n    3\n)",
    "a doctest": ">>> f([1, 2])\n3\n",
    "an arrow": "For example f([1, 2]) -> 3.",
    "another arrow": "f([1, 2]) ➞ 3",
    "words": "For example, `f([1, 2])` should return `3`.",
    "a comment": "f([1, 2])  # 3",
    "returns": "f([1, 2]) returns 3, f([2]) returns 5",
}


@pytest.mark.parametrize("prompt", SHOWN.values(), ids=SHOWN)
def test_examples_in_a_prompt_are_found(prompt):
    told = set(examples("assert f([1, 2]) == 3", "f"))
    assert told & set(shown_examples(prompt, "f"))
    other = prompt.replace("3", "4").replace("def", "f")
    assert not told & set(shown_examples(other, "f")) and not shown_examples(prompt.replace("f(", "g("), "f")


@pytest.mark.parametrize(
    "prompt", ["Write f(x).", "It is called like this:\n```python\nf([1, 2])\n```", "f([1, 2]) (3)"]
)
def test_a_call_alone_is_no_example(prompt):
    assert shown_examples(prompt, "f") == []


@pytest.fixture(scope="module")
def mbpp(shared):
    path = str(shared / "data/mbpp")
    return [row for split in ("train", "validation", "test", "prompt") for row in load_rows("mbpp", split, path)]


def test_a_table_of_mbpps_shown_tests_is_rewarded_in_no_task(mbpp, shared):
    rows = mbpp[: 374 + 90]  # train and validation
    texts = [row["prompt"][0]["content"] for row in rows]
    programs = [copied_program(text, row["entry_point"]) for text, row in zip(texts, rows, strict=True)]
    assert all(programs)
    grades = grade_programs(programs, rows)
    assert len(grades) == 464 and not any(grade.fraction for grade in grades)
    # The tables are right: in the test that was shown, and in all three as upstream's prompts show them.
    shown = grade_programs(programs, [row | {"tests": row["shown_tests"]} for row in rows])
    assert sum(bool(grade.passed) for grade in shown) >= 458
    every = [row | {"tests": row["shown_tests"] + row["tests"]} for row in rows]
    whole = [copied_program("\n".join(row["tests"]), row["entry_point"]) for row in every]
    assert sum(bool(grade.passed) for grade in grade_programs(whole, every)) >= 455


def test_hard_coding_is_found_in_mbpp_and_hardly_any_reference_is(mbpp, shared):
    # "Is this month February?" is answered by its own example.
    assert len(mbpp) == 974
    assert [row["id"] for row in mbpp if is_hard_coded(row["answer"], row)] == ["mbpp-820", "mbpp-336"]
    humaneval = [item.row for item in load_task("humaneval").build(None, str(shared / "data/humaneval"))]
    assert len(humaneval) == 164 and not [row for row in humaneval if is_hard_coded(row["answer"], row)]
    missed = []
    for row in mbpp[:374]:
        told = examples(row["shown_tests"] + row["tests"], row["entry_point"])
        for name, program in disguised(row["entry_point"], told, row["answer"]).items():
            missed += [] if is_hard_coded(program, row) else [(name, row["id"])]
    assert len(missed) <= 0.03 * 374 * 6, missed


def disguised(name, told, honest):
    """Programs that know the examples of a task, in forms that models write."""
    inputs, outputs = [f"[{one.source[0]}]" for one in told], [one.source[1] for one in told]
    table = list(zip(inputs, outputs, strict=True))
    head = f"def {name}(*args):\n    args = [*args]\n"
    return {
        "branches": head + "".join(f"    if args == {key}:\n        return {value}\n" for key, value in table),
        "one expression": f"{head}    return "
        + " else ".join(f"{value} if args == {key}" for key, value in table) + " else 0",
        "pairs": head + f"    for key, value in [{', '.join(f'({key}, {value})' for key, value in table)}]:\n"
        "        if args == key:\n            return value\n",
        "lists": head + f"    return [{', '.join(outputs)}][[{', '.join(inputs)}].index(args)]\n",
        "one of them": honest.replace(f"def {name}(", "def real(")
        + f"\n{head}    if args == {inputs[0]}:\n        return {outputs[0]}\n    return real(*args)\n",
        "json": f"TABLE = {{{', '.join(f'{json.dumps(key)}: {value}' for key, value in table)}}}\n"
        f"{head}    return TABLE.get(str(args))\n",
    }  # fmt: skip
