"""MBPP, HumanEval and the tiny programs: every reference passes, and what the results tell about programs."""

import json
from collections import Counter

import pytest

from schoolhouse.data import dataset_names, load_dataset_spec, load_rows
from schoolhouse.evaluation.results import EvalSample
from schoolhouse.evaluation.summary import summarise
from schoolhouse.evaluation.tasks import load_task
from schoolhouse.evaluation.tasks.items import Item
from schoolhouse.sandbox import SandboxError


# Tests of these build objects of a class of the program's, or pass a type: neither crosses the sandbox's border.

ROW = {
    "task_id": 7,
    "text": "Write a function to double a number. ",
    "code": "def helper(x):\r\n    return 2 * x\r\ndef double(x):\r\n    return helper(x)",
    "test_list": ["assert double(1) == 2", "assert helper(double(2)) == 8"],
    "test_setup_code": "",
    "challenge_test_list": ["assert double(0) == 0"],
}


def score_programs(completions, items):
    return [score | score["metrics"] for score in load_task("mbpp").score(completions, items)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_mbpp_shows_one_test_and_grades_the_others(tmp_path):
    (row,) = load_rows("mbpp", "test", path=write(tmp_path / "test.jsonl", [ROW]))
    question = (
        "Write a function to double a number.\n\nIt has to pass tests such as:\n```python\nassert double(1) == 2\n```"
    )
    assert row == {
        "prompt": [{"role": "user", "content": question}],
        "answer": ROW["code"].replace("\r\n", "\n"),
        "tests": ROW["test_list"][1:],
        "shown_tests": ROW["test_list"][:1],
        "hidden_tests": ROW["challenge_test_list"],
        "entry_point": "double",
        "prelude": "",
        "id": "mbpp-7",
    }


def test_mbpp_setup_code_runs_with_the_tests_after_the_program(tmp_path):
    row = ROW | {"test_setup_code": "four = double(2)\r\n", "test_list": ["assert double(four) == 8"]}
    item = load_task("mbpp").build(None, write(tmp_path / "test.jsonl", [row]))[0]
    assert item.row["tests"] == ["four = double(2)", "assert double(four) == 8"]
    assert "four =" not in item.prompt[0]["content"]
    assert score_programs([item.reference], [item])[0]["fraction"] == 1.0


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"text": None}, "'text' is missing"),
        ({"code": ""}, "'code' is empty"),
        ({"test_list": []}, "'test_list' is no list of tests"),
        ({"test_list": "assert double(1) == 2"}, "'test_list' is no list of tests"),
        ({"challenge_test_list": None}, "'challenge_test_list' is no list of tests"),
        ({"test_list": ["assert other(1) == 2"]}, "'test_list' calls no function that column 'code' defines"),
        ({"code": "def double(x:"}, "'test_list' calls no function that column 'code' defines"),
    ],
)
def test_a_malformed_mbpp_row_is_named(tmp_path, change, reason):
    with pytest.raises(ValueError, match=f"train.jsonl:1: column {reason}"):
        load_rows("mbpp", "train", path=write(tmp_path / "train.jsonl", [ROW | change]))


def test_humaneval_is_not_offered_for_training():
    assert not [name for name in dataset_names() if "human" in name and "eval" in name]
    assert not [name for name in dataset_names() if "humaneval" in load_dataset_spec(name).model_dump_json()]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"canonical_solution": None}, "'canonical_solution' is missing"),
        ({"entry_point": "other"}, "'prompt' does not begin the function 'other'"),
        ({"test": "assert True"}, "'test' defines no function check"),
    ],
)
def test_a_malformed_humaneval_row_is_named(tmp_path, change, reason):
    row = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }
    (item,) = load_task("humaneval").build(None, write(tmp_path / "test.jsonl", [row]))
    assert score_programs(["return x"], [item])[0]["correct"]
    with pytest.raises(ValueError, match=f"test.jsonl:1: column {reason}"):
        load_task("humaneval").build(None, write(tmp_path / "test.jsonl", [row | change]))


@pytest.fixture(scope="module")
def humaneval(shared):
    rows = [json.loads(line) for line in (shared / "humaneval/test.jsonl").read_text().splitlines()]
    return rows, load_task("humaneval").build(None, str(shared / "humaneval"))


@pytest.fixture(scope="session")
def shared(shared):
    return shared / "data"


def alone(row):
    return row["prompt"][row["prompt"].rindex(f"def {row['entry_point']}(") :] + row["canonical_solution"]


@pytest.mark.parametrize(
    "write_down",
    [
        lambda row: row["prompt"] + row["canonical_solution"],
        lambda row: row["canonical_solution"],
        lambda row: f"Sure, here's it:\n\n{alone(row)}\nIt doesn't fail:\n- a list (of reasons",
        lambda row: f"```python\n{alone(row)}\n```\nIt doesn't fail.",
    ],
    ids=["program", "body", "function alone", "function alone in a fence"],
)
def test_humaneval_references_pass_in_every_form(humaneval, write_down):
    rows, items = humaneval
    scores = score_programs([write_down(row) for row in rows], items)
    assert len(scores) == 164
    assert [item.id for item, score in zip(items, scores, strict=True) if not score["correct"]] == []
    assert all(score["format_ok"] and score["status"] == "passed" for score in scores)


def test_humaneval_prompts_themselves_score_nothing(humaneval):
    rows, items = humaneval
    for echo in ([row["prompt"] for row in rows], [item.prompt[0]["content"] for item in items]):
        assert not any(score["correct"] for score in score_programs(echo, items))


def test_every_mbpp_reference_passes(shared):
    rows = [row for split in ("train", "validation", "test") for row in load_rows("mbpp", split, str(shared / "mbpp"))]
    items = [Item(row["id"], row["prompt"], row["answer"], row=row) for row in rows]
    assert len(items) == 964
    scores = dict(
        zip((item.id for item in items), score_programs([item.reference for item in items], items), strict=True)
    )
    assert Counter(score["status"] for score in scores.values()) == {"passed": 964}
    assert [score["hidden_passed"] for score in scores.values() if score["hidden_passed"] is not None] == [True] * 11


def test_tiny_references_pass_and_hidden_tests_are_others():
    items = load_task("tiny_code").build(60, None)
    assert {item.row["level"] for item in items} == {1, 2, 3, 4, 5}
    scores = score_programs([item.reference for item in items], items)
    assert all(score["correct"] and score["hidden_passed"] and score["format_ok"] for score in scores)
    for item in items:
        assert item.row["tests"] and set(item.row["hidden_tests"]) - set(item.row["tests"])


DOUBLE = Item(
    "double",
    "?",
    "",
    row={
        "tests": ["assert double(1) == 2", "assert double(2) == 4"],
        "hidden_tests": ["assert double(5) == 10"],
        "entry_point": "double",
        "level": 1,
    },
)
TRIPLE = Item("triple", "?", "", row={"tests": ["assert triple(1) == 3"], "entry_point": "triple", "level": 2})
RIGHT, FITTED = "def double(x):\n    return 2 * x", "def double(x):\n    return {1: 2, 2: 4}[x]"


def test_a_program_fitted_to_the_tests_fails_the_hidden_ones():
    programs = [RIGHT, FITTED, "def double(x):\n    return 2", "double", "def double(x:"]
    scores = score_programs([*programs, "def triple(x):\n    return 3"], [DOUBLE] * 5 + [TRIPLE])
    assert [score["correct"] for score in scores] == [True, True, False, False, False, True]
    assert [score["hidden_passed"] for score in scores] == [True, False, False, False, False, None]
    assert [score["fraction"] for score in scores] == [1, 1, 0.5, 0, 0, 1]
    assert [score["format_ok"] for score in scores] == [True, True, True, False, False, True]
    assert [score["status"] for score in scores][-2:] == ["syntax", "passed"]


def test_results_tell_pass_at_k_statuses_hidden_tests_and_levels():
    unsupported = TRIPLE.row | {"tests": "assert triple(three()) == 9"}
    items = [DOUBLE] * 4 + [TRIPLE] * 4 + [Item("unsupported", "?", "", row=unsupported)] * 4
    answers = [RIGHT, FITTED, "def double(x:", "def double(x):\n    return 0"]
    answers += ["def triple(x):\n    while True:\n        x += 1 / 0"] * 4 + ["def three(): pass"] * 4
    lines = [
        EvalSample(id=item.id, prompt="?", reference="", level=item.row["level"], completion=answer, **score)
        for item, answer, score in zip(items, answers, load_task("mbpp").score(answers, items), strict=True)
    ]
    result = summarise(load_task("mbpp"), lines).to_json()
    # No program could be right on the third item, so it is left out.
    assert (result["n"], result["items"], result["value"]) == (2, 3, pytest.approx((2 / 4 + 0) / 2))
    assert {level: part["value"] for level, part in result["by_level"].items()} == {"1": 0.5, "2": 0.0}
    expected = {
        "pass@1": 1 / 4,
        "pass@2": (1 - 1 / 6 + 0) / 2,  # of six pairs of samples one has no right one
        "pass@4": 1 / 2,
        "status/passed": 2 / 12,
        "status/syntax": 1 / 12,
        "status/wrong_answer": 1 / 12,
        "status/exception": 4 / 12,
        "status/unsupported": 4 / 12,
        "hidden_passed": 1 / 4,
        "hard_coded": 1 / 2,  # of the two that pass
        "fraction": 2 / 8,
        "ungraded": 0,
        "unsupported": 1,
        "format_ok": 7 / 12,
    }
    assert {name: result["metrics"][name] for name in expected} == pytest.approx(expected)
    assert not any(name.startswith("maj@") for name in result["metrics"])


@pytest.mark.parametrize("name", ["mbpp", "humaneval", "tiny_code"])
def test_a_machine_without_isolation_refuses_before_anything_is_generated(monkeypatch, name):
    def refuse():
        raise SandboxError("programs cannot be isolated here")

    monkeypatch.setattr("schoolhouse.graders.code.shared_sandbox", refuse)
    with pytest.raises(ValueError, match="cannot be isolated"):
        load_task(name).build(1, "no such file")
