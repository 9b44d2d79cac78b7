"""Reference answers in rows: which values are answers, and which references can be read."""

import hashlib
import json
import math

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
    (folder / "mine.yaml").write_text(
        "version: 1\ndescription: mine\ndataset: rows.jsonl\nprompt: 'Q: {question}'\n"
        f"reference: '{reference}'\nlevel: level\nscorer: {scorer}\n"
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
