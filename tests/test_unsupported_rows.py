"""Rows whose tests no program can pass are told, with the reason, before weights load."""

import json
import logging
import sys

import pytest
from datasets import Dataset

from schoolhouse.evaluation.run_task import _warn_of_unsupported
from schoolhouse.evaluation.tasks import Item, load_task
from schoolhouse.graders.code import unsupported_reasons
from schoolhouse.rewards import build_rewards
from schoolhouse.training.checks import MAX_TRIED, find_unsupported


if sys.platform != "linux":
    pytest.skip("programs run on Linux only", allow_module_level=True)

GOOD = "assert f(1) == 2"
ROWS = [
    # tests, reference solution, word of the reason
    (GOOD, "def f(x): return x + 1", ""),
    (GOOD, "```python\ndef f(x): return x + 1\n```", ""),
    (GOOD, None, ""),
    ("s = Stack()\ns.push(1)\nassert s.pop() == 1", None, ""),
    ("assert total([Pair(1, 2)]) == 3", None, ""),
    ("assert Vector(1, 2) + Vector(1, 1) == Vector(2, 3)", None, "'Vector'"),
    ("assert Version('1.2') < Version('1.10')", None, "'Version'"),
    ("assert f(lambda x: x) == 2", None, "function"),
    ("assert apply(f, 1) == 2", None, "'apply'"),
    ("import numpy_like\nassert f(1) == numpy_like.array(2)", None, "numpy_like"),
    ("from solution import f\nassert f(1) == 2", "def f(x): return x + 1", "no function"),
    ("def test_f():\n    assert f(1) == 2", None, "never call"),
    ("assert f(1 == 2", None, "do not parse"),
    ("assert True", None, "no function"),
    (GOOD, "def f(x): return x", "the reference solution fails its tests: wrong_answer"),
    (GOOD, "def g(x): return x + 1", "the reference solution fails its tests: exception"),
    ("assert f([1] * 3_000_000) == 3_000_000", "def f(x): return len(x)", ""),
]


def test_each_reason_is_named_and_no_good_row_has_one():
    reasons = unsupported_reasons([{"tests": tests, "answer": answer} for tests, answer, _ in ROWS])
    assert [bool(reason) for reason in reasons] == [bool(word) for _, _, word in ROWS], reasons
    assert all(word in reason for reason, (_, _, word) in zip(reasons, ROWS, strict=True)), reasons


def reward_of(name="code"):
    return build_rewards([{"name": name}], 64)[0]


@pytest.mark.parametrize("name", ["code", "cosine"])
def test_a_reward_tells_how_many_rows_it_can_never_reward_and_why(name):
    bad = {"tests": "assert f(lambda x: x) == 2", "entry_point": "f"}
    good = {"tests": GOOD, "entry_point": "f"}
    rows = Dataset.from_list([good, bad, bad, {"tests": None, "entry_point": None}, good, good, bad, bad])
    found = find_unsupported(reward_of(name), rows)
    assert list(found.reasons) == [1, 2, 6, 7]
    assert str(found).startswith("4 of 7 rows: ") and "function" in str(found) and "(row 1, 2, 6, …)" in str(found)
    assert find_unsupported(reward_of(name), Dataset.from_list([good])) is None
    assert find_unsupported(reward_of("math"), Dataset.from_list([{"answer": "4"}])) is None


def test_of_many_rows_a_thousand_are_tried():
    rows = Dataset.from_list([{"tests": "assert f(1", "entry_point": "f"}] * (2 * MAX_TRIED + 2))
    found = find_unsupported(reward_of(), rows)
    assert f"{found.tried:,} of them tried" in str(found) and found.applies_to == 2 * MAX_TRIED + 2
    assert MAX_TRIED / 2 < found.tried <= MAX_TRIED


def test_an_evaluation_names_the_items_and_gives_them_no_verdict(caplog):
    task = load_task("mbpp")
    rows = {"good": GOOD, "bad": "assert f(lambda x: x) == 2"}
    items = [Item(name, "?", "", row={"tests": tests, "entry_point": "f"}) for name, tests in rows.items()]
    with caplog.at_level(logging.WARNING):
        _warn_of_unsupported(task, items)
    assert "on 1 of 2 items no answer can be right: bad (" in caplog.text
    good, bad = task.score(["def f(x): return x + 1"] * 2, items)
    assert (good["correct"], good["metrics"]["unsupported_because"]) == (True, None)
    assert (bad["correct"], bad["metrics"]["status"]) == (None, "unsupported")
    assert "function" in bad["metrics"]["unsupported_because"]


def test_every_row_of_the_public_sets_can_be_rewarded(shared):
    lines = (shared / "data/humaneval/test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    items = [
        {"tests": row["test"], "entry_point": row["entry_point"], "prelude": row["prompt"],
         "answer": row["prompt"] + row["canonical_solution"]}
        for row in rows
    ]  # fmt: skip
    assert set(unsupported_reasons(items, timeout_s=10)) == {""}
