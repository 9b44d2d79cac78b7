"""Reference answers in rows: which values are answers, and which references can be read."""

import hashlib
import json
import math
import re

import pytest

from schoolhouse.config.arguments import DataArguments
from schoolhouse.data import load_rows, load_training_data
from schoolhouse.evaluation.tasks import load_task
from schoolhouse.rewards import Cosine, Format, Math
from schoolhouse.rewards.columns import has_tests


def ask(reward, completions, **columns):
    """Call a reward as TRL does."""
    size = len(completions)
    return reward(prompts=[""] * size, completions=completions, completion_ids=[[0]] * size, **columns)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# A value, the completion that states it, and one that does not.
ANSWERS = [
    (0, "#### 0", "#### 1"),
    (0.0, "#### 0", "#### 0.1"),
    (-0.0, "#### 0", "#### -1"),
    ("0", "#### 0", "#### 1"),
    (7.0, "#### 7", "#### 70"),
    (False, "#### False", "#### True"),
    (True, "#### True", "#### False"),
    (1e-05, "#### 0.00001", "#### 0"),
]


@pytest.mark.parametrize(("value", "right", "wrong"), ANSWERS, ids=[repr(value) for value, *_ in ANSWERS])
def test_zero_and_false_are_answers(value, right, wrong):
    assert ask(Math(), [right, wrong], answer=[value] * 2) == [1, 0]
    assert None not in ask(Cosine(10), [right, wrong], answer=[value] * 2)
    assert ask(Format(), [right], answer=[value]) == [1]


@pytest.mark.parametrize("value", [None, math.nan, "", "  \n"], ids=repr)
def test_no_value_is_no_answer(value):
    # "nan" is what Python writes for a value that is missing.
    assert ask(Math(), ["#### nan"], answer=[value]) == [None]
    assert ask(Cosine(10), ["#### nan"], answer=[value]) == [None]


@pytest.mark.parametrize("value", [None, math.nan, "", []], ids=repr)
def test_a_row_without_tests_asks_for_an_answer(value):
    assert not has_tests({"tests": value})
    assert ask(Math(), ["#### 7"], answer=["7"], tests=[value]) == [1]


@pytest.mark.parametrize("numbers", [[0, 7, 0, 13], [0] * 4, [0, None, 0, 13]])
def test_rows_whose_answer_is_zero_are_trained_on(tmp_path, numbers):
    rows = [{"prompt": [{"role": "user", "content": f"{n}?"}], "answer": n} for n in numbers]
    data = load_training_data(DataArguments(dataset_name=write_rows(tmp_path / "rows.jsonl", rows)), seed=0)
    assert [Math().applies(row) for row in data.train] == [n is not None for n in numbers]


def test_choices_are_counted_from_zero_also_in_a_table_of_floats(tmp_path):
    row = {"question": "?", "choices": ["a", "b"]}
    build = load_task("multiple_choice").build
    for answer, text in ((0, "a"), (0.0, "a"), (1.0, "b"), ("b", "b")):
        (item,) = build(None, write_rows(tmp_path / "rows.jsonl", [row | {"answer": answer}]))
        assert item.reference == text
    for answer in (0.5, math.nan, None, True, [0], -1, ""):
        with pytest.raises(ValueError, match="neither a choice nor its number from 0"):
            build(None, write_rows(tmp_path / "rows.jsonl", [row | {"answer": answer}]))


def make_task(folder, rows, scorer="exact", reference="answer"):
    """Load a task of the user's own over rows."""
    write_rows(folder / "rows.jsonl", rows)
    level = "level: level\n" if any("level" in row for row in rows) else ""
    (folder / "mine.yaml").write_text(
        "version: 1\ndescription: mine\ndataset: rows.jsonl\nprompt: 'Q: {question}'\n"
        f"reference: '{reference}'\n{level}scorer: {scorer}\n"
    )
    return load_task(str(folder / "mine.yaml"))


def test_an_id_and_a_level_of_zero_are_values_and_nan_is_none(tmp_path):
    rows = [{"question": 0, "answer": 0, "id": n, "level": n} for n in (0, math.nan, 5)]
    items = make_task(tmp_path, rows).build()
    assert [item.id for item in items] == ["0", "1", "5"]
    assert [item.level for item in items] == [0, None, 5]
    assert [(item.prompt, item.reference) for item in items] == [("Q: 0", "0")] * 3


@pytest.mark.parametrize("reference", ["answer", "{answer}"])
def test_a_reference_of_nan_is_missing(tmp_path, reference):
    task = make_task(tmp_path, [{"question": "?", "answer": math.nan}], reference=reference)
    with pytest.raises(ValueError, match="column 'answer' is missing"):
        task.build()


def test_a_split_by_the_hash_of_numbers_knows_zero(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"text": "some", "number": n} for n in range(40)])
    (tmp_path / "mine.yaml").write_text("path: rows.jsonl\nsplit: {by_hash_of: number, test_tenths: 5}\n")
    sides = [set(load_rows(str(tmp_path / "mine.yaml"), split)["number"]) for split in ("train", "test")]
    assert sides[0] | sides[1] == set(range(40)) and not sides[0] & sides[1] and all(sides)
    zero_is_test = int(hashlib.sha256(b"0").hexdigest(), 16) % 10 < 5
    assert (0 in sides[1]) is zero_is_test


# References with the answer that they state, and completions that are right and wrong.
SOLUTIONS = [
    ("We have $2x = 4$, so $x = \\boxed{2}$.", "\\boxed{2}", "\\boxed{4}"),
    ("Let $r = 6$. The area is $\\boxed{36\\pi}$ square cm.", "\\boxed{36\\pi}", "\\boxed{36}"),
    ("It is \\boxed{\\frac{1}{2}}.\n\nThis is not right for $n = 0$.", "#### 1/2", "#### 2"),
    ("\\fbox{(B)} is the only even one.", "\\boxed{B}", "\\boxed{C}"),
    ("So \\boxed{5}, or 5.0 as a decimal.", "#### 5", "#### 6"),
    ("Either $x = \\boxed{1}$ or $x = \\boxed{2}$.", "\\boxed{2, 1}", "\\boxed{1}"),
    ("#### Step 1\nFirst 1 + 1 = 2.\n#### Step 2\nThen \\boxed{3}", "#### 3", "#### 2"),
    ("3 * 6 = <<3*6=18>>18\n#### 18", "#### 18", "#### 3"),
    ("The sun sets.\n#### Monday", "#### Monday", "#### Tuesday"),
    ("#### 4 feet 6 inches", "#### 4 feet 6 inches", "#### 4 feet"),
    ("First 3 + 4 = 7. The answer is 7.", "#### 7", "#### 3"),
    ("Four is even. So the final answer is: Monday.", "The answer is Monday.", "The answer is Friday."),
    ("Answer: Monday", "#### Monday", "#### Friday"),
    ("<think>maybe \\boxed{9}</think> so it is <answer>4</answer>", "#### 4", "#### 9"),
    ("no solution", "#### no solution", "#### 1"),
]


@pytest.mark.parametrize(("reference", "right", "wrong"), SOLUTIONS, ids=[text[:30] for text, *_ in SOLUTIONS])
def test_a_worked_solution_is_the_answer_that_it_states(reference, right, wrong):
    assert ask(Math(), [right, wrong], answer=[reference] * 2) == [1, 0]


def test_real_worked_solutions_with_a_box_are_references(shared):
    rows = load_rows("gsm8k", "test", path=str(shared / "data" / "gsm8k"))
    answers = rows["answer"]
    worked = [row["completion"][0]["content"].rpartition("####")[0] for row in rows]
    endings = ("Thus $x = \\boxed{%s}$.", "\\boxed{%s}", "<answer>%s</answer>", "The answer is %s.", "#### %s")
    for ending in endings:
        references = [text + ending % answer for text, answer in zip(worked, answers, strict=True)]
        values = ask(Math(), [f"\\boxed{{{answer}}}" for answer in answers], answer=references)
        assert values == [1] * len(rows) and len(rows) == 1319
        others = answers[1:] + answers[:1]
        shifted = ask(Math(), [f"\\boxed{{{answer}}}" for answer in others], answer=references)
        same = [int(one) == int(other) for one, other in zip(answers, others, strict=True)]
        assert shifted == same


UNREADABLE = [
    ("\\boxed{}", "states nothing"),
    ("####", "states nothing"),
    ("$$", "states nothing"),
    ("First we add the two numbers, then we take the root of the sum, and so on, until the last one of them is left.",
     "is a text without a final answer .* and ends in '.*last one of them is left.'"),
    ("We add.\nWe are done.", "without a final answer .* and ends in 'We add.\\\\nWe are done.'"),
    (["7"], "is a list, not text or a number"),
    ({"value": "seven"}, "is a dict, not text or a number"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "words"), UNREADABLE, ids=[str(value)[:20] for value, _ in UNREADABLE])
def test_a_reference_that_cannot_be_read_is_told(value, words):
    for reward in (Math(), Cosine(10)):
        assert re.search(words, reward.check_row({"answer": value}))
        assert reward.check_row({"answer": value, "tests": "assert f(1)"}) is None
        for good in (7, 0, "7", "x^2 + 1", "a leap year", None, math.nan, ""):
            assert reward.check_row({"answer": good}) is None


def test_an_eval_names_the_row_whose_reference_cannot_be_read(tmp_path):
    rows = [{"question": "?", "answer": "7"}, {"question": "?", "answer": "\\boxed{}"}]
    with pytest.raises(
        ValueError, match=r"1 of 2 rows are malformed.*rows\.jsonl:2: the reference answer .* states nothing"
    ):
        make_task(tmp_path, rows, "{name: math, style: boxed}").build()
    blank = [{"question": "?", "answer": "7"}, {"question": "?", "answer": " "}]
    for scorer in ("exact", "contains", "math"):  # every answer contains an empty one
        with pytest.raises(ValueError, match="the reference"):
            make_task(tmp_path, blank, scorer).build()
