"""Share of the test statements that a program passes: each counts once, however often it runs."""

import random
import sys

import pytest

from schoolhouse.sandbox import Job, Sandbox, Verdict


if sys.platform != "linux":
    pytest.skip("programs run on Linux only", allow_module_level=True)

CHECK = "def check(candidate):\n" + "".join(f"    assert candidate({n}) == {n}\n" for n in range(4))
RIGHT = "def f(x): return x"
WRONG = "def f(x): return x if x else -1"  # three of four right


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, cache_size=0) as sandbox:
        yield sandbox


def fractions(sandbox, tests, *programs):
    return [verdict.fraction for verdict in sandbox.run([Job(program, tests, "f") for program in programs])]


@pytest.mark.parametrize(
    "call",
    [
        "",
        "check(f)",
        "check(f)\ncheck(f)",
        "for _ in range(3):\n    check(f)",
        "def main():\n    check(f)\nmain()",
        "if __name__ == '__main__':\n    check(f)",
        "check(lambda x: f(x))",
    ],
)
def test_each_statement_of_check_counts_once_whoever_calls_it(sandbox, call):
    assert fractions(sandbox, f"{CHECK}\n{call}\n", RIGHT, WRONG) == [1.0, 3 / 4]


def test_a_statement_that_runs_several_times_passes_if_it_passes_each_time(sandbox):
    flaky = (
        "calls = []\ndef f(x):\n    calls.append(x)\n    return x if len(calls) > 4 else -1"  # right from the 5th on
    )
    assert fractions(sandbox, f"{CHECK}\ncheck(f)\ncheck(f)", flaky) == [0.0]
    loop = "for x in (0, 1, 2):\n    assert f(x) == x\nassert f(5) == 5"
    assert fractions(sandbox, loop, RIGHT, WRONG) == [1.0, 1 / 2]


def test_statements_beside_check_and_functions_that_assert_count_too(sandbox):
    tests = f"{CHECK}\nassert f(0) == 0\nassert f(1) == 1\ncheck(f)"
    assert fractions(sandbox, tests, RIGHT, WRONG) == [1.0, 4 / 6]
    tests = "def same(x):\n    assert f(x) == x\ndef both(x):\n    same(x)\nsame(0)\nsame(1)\nboth(2)"
    assert fractions(sandbox, tests, RIGHT, WRONG) == [1.0, 2 / 3]


@pytest.mark.parametrize("last", ["f(9)", "x = f(9) + 1", "import sys\nsys.exit(f(9) != 9)"])
def test_a_failure_outside_the_statements_that_count_leaves_less_than_everything(sandbox, last):
    program = "def f(x):\n    if x == 9:\n        raise ValueError\n    return x"
    assert fractions(sandbox, f"assert f(1) == 1\n{last}", RIGHT, program) == [1.0, 1 / 2]


def test_tests_that_exit_say_so_by_their_code(sandbox):
    tests = "import sys\nassert f(1) == 1\nsys.exit(0 if f(0) == 0 else 1)"
    assert fractions(sandbox, tests, RIGHT, WRONG) == [1.0, 1 / 2]


def _random_tests(rng):
    """A test text, and for each of its statements the arguments that it calls `f` with."""
    lines, statements = [], []

    def some():
        return [rng.randrange(12) for _ in range(rng.randrange(1, 4))]

    def statement(name, indent):
        arguments = some()
        kind = rng.choice(["plain", "loop", "with", "if", "helper", "while"])
        statements.append(arguments)
        body = [f"assert {name}({x}) == {x}" for x in arguments]
        if kind == "plain":
            body = ["assert " + " and ".join(f"{name}({x}) == {x}" for x in arguments)]
        elif kind == "loop":
            body = [f"for x in {arguments}:", f"    assert {name}(x) == x"]
        elif kind == "helper":
            body = [f"same({name}, {arguments})"]
        elif kind == "while":
            body = [f"for _ in range({rng.randrange(1, 3)}):", *("    " + line for line in body)]
        else:
            body = ["with contextlib.nullcontext():" if kind == "with" else "if True:", *("    " + x for x in body)]
        lines.extend(indent + line for line in body)

    lines += ["def same(g, values):", "    for x in values:", "        assert g(x) == x"]
    for _ in range(rng.randrange(3)):
        statement("f", "")
    if not statements or rng.random() < 0.7:
        lines.append("def check(candidate):")
        for _ in range(rng.randrange(1, 5)):
            lines.append("    y = 1")
            statement("candidate", "    ")
        lines += ["check(f)"] * rng.randrange(4)
        for _ in range(rng.randrange(2)):
            statement("f", "")
        if not any(line == "check(f)" for line in lines):
            lines.append("")
    return "\n".join(lines), statements


def test_the_fraction_is_that_of_a_naive_count_and_never_above_one(sandbox):
    rng = random.Random(0)
    jobs, expected = [], []
    for _ in range(200):
        tests, statements = _random_tests(rng)
        wrong = {x for x in range(12) if rng.random() < rng.choice([0, 0.1, 0.5])}
        jobs.append(Job(f"def f(x): return -1 if x in {sorted(wrong)} else x", tests, "f"))
        expected.append(sum(wrong.isdisjoint(arguments) for arguments in statements) / len(statements))
    found = [verdict.fraction for verdict in sandbox.run(jobs)]
    assert found == expected
    assert 20 < expected.count(1.0) < 180 and len(set(expected)) > 8


@pytest.mark.parametrize(
    ("status", "fraction"),
    [("passed", 1.5), ("wrong_answer", 1.5), ("wrong_answer", 1.0), ("passed", 0.5), ("timeout", -0.1),
     ("unsupported", 0.0), ("exception", None)],
)  # fmt: skip
def test_a_verdict_with_an_impossible_fraction_is_an_error(status, fraction):
    with pytest.raises(AssertionError):
        Verdict(status, fraction)
