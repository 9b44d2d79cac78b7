"""Data sets described in YAML files: the user's own, their errors, and the page that explains them."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recipes import sft
from schoolhouse.config.arguments import DataArguments
from schoolhouse.data import load_dataset_spec, load_rows, load_training_data


ROOT = Path(__file__).parents[1]
QUESTIONS = [{"question": f"Question {number}?", "reply": f"Reply {number}."} for number in range(200)]
FUNCTIONS = """
def convert(rows, ending="."):
    for row in rows:
        yield {"prompt": row["question"], "completion": row["reply"] + ending}

def validate(row):
    return "asks nothing" if row["question"] == "?" else None

def load(split, size, greeting="Hello"):
    return [{"prompt": f"{greeting} {split} {number}", "completion": "Yes."} for number in range(size)]

def broken(split):
    yield {"prompt": "one", "completion": "two"}
    raise KeyError("three")

def half(split):
    return [{"prompt": "one", "completion": "two"}, {"prompt": "three"}, {"prompt": "four", "completion": "five"}]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


def describe(folder, text, name="mine.yaml"):
    (folder / name).write_text(text)
    return str(folder / name)


def test_columns_get_other_names(folder):
    name = describe(folder, "path: questions.jsonl\nlicense: MIT\ncolumns: {prompt: question, completion: reply}\n")
    data = load_training_data(DataArguments(dataset_name=name), seed=0)
    assert data.train.to_list()[1] == {"prompt": "Question 1?", "completion": "Reply 1."} and data.test is None
    (source,) = data.sources
    assert (source.name, source.location, source.license) == (name, str(folder / "questions.jsonl"), "MIT")
    assert (source.kind, source.rows, source.split) == ("prompt-completion", 200, "train")


def test_a_hash_divides_one_file_into_two_splits(folder):
    keys = "columns: {prompt: question, completion: reply}\nsplit: {by_hash_of: prompt, test_tenths: 3}\n"
    name = describe(folder, f"path: questions.jsonl\n{keys}")
    data = load_training_data(DataArguments(dataset_name=name), seed=0)
    train, test = set(data.train["prompt"]), set(data.test["prompt"])
    assert not train & test and len(train) + len(test) == 200 and 40 < len(test) < 80
    # Neither the order of the rows nor the other rows move a row to the other split.
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS[:99:-1]))
    assert set(load_rows(name, "test")["prompt"]) == test & {row["question"] for row in QUESTIONS[100:]}


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_csv_and_parquet_files_are_read(folder, suffix):
    from datasets import Dataset

    rows, path = Dataset.from_list(QUESTIONS), folder / f"questions.{suffix}"
    rows.to_parquet(path) if suffix == "parquet" else rows.to_pandas().to_csv(path, index=False)
    name = describe(folder, f"path: {path.name}\ncolumns: {{prompt: question, completion: reply}}\n")
    assert load_rows(name, max_rows=1).to_list() == [{"prompt": "Question 0?", "completion": "Reply 0."}]


def test_a_function_converts_and_names_malformed_rows_by_file_and_line(folder):
    rows = [*QUESTIONS[:150], {"question": "?", "reply": "a"}, {"reply": "b"}, *QUESTIONS[150:]]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = describe(
        folder,
        "path: questions.jsonl\nrequired_columns: [question, reply]\nvalidate: functions.py:validate\n"
        "function: functions.py:convert\nparameters: {ending: '!'}\n",
    )
    data = load_training_data(DataArguments(dataset_name=name), seed=0)
    assert data.train[0] == {"prompt": "Question 0?", "completion": "Reply 0.!"} and len(data.train) == 200
    assert data.sources[0].malformed_rows == [
        f"{folder / 'questions.jsonl'}:151: asks nothing",
        f"{folder / 'questions.jsonl'}:152: column 'question' is missing",
    ]
    assert load_rows(name, max_rows=1, ending="?")[0]["completion"] == "Reply 0.?"


def test_a_function_makes_rows_of_each_split_also_within_a_mixture(folder):
    name = describe(
        folder,
        "rows: functions.py:load\nsplits: {train: {size: 30}, test: {size: 5, greeting: Bye}}\n"
        "parameters: {greeting: Hi}\n",
    )
    data = load_training_data(DataArguments(dataset_name=name), seed=0)
    assert data.train[29]["prompt"] == "Hi train 29" and list(data.test["prompt"])[4] == "Bye test 4"
    assert data.sources[0].location == "generated"
    other = describe(folder, "path: questions.jsonl\nfunction: functions.py:convert\n", "other.yaml")
    entries = [{"name": name, "weight": 1}, {"name": other, "weight": 2}]
    mixture = load_training_data(DataArguments(datasets=entries), seed=0)
    assert [source.used_rows for source in mixture.sources if source.role == "train"] == [30, 60]
    assert set(mixture.train["source"]) == {name, other}


ROWS = "rows: functions.py:load\nsplits: {train: {size: 3}}\n"
ERRORS = {
    "unknown key": ("path: questions.jsonl\ncolums: {}\n", "mine.yaml:2: colums: unknown key; did you mean columns?"),
    "two places": ("path: questions.jsonl\nhub_id: a/b\n", "mine.yaml:2: hub_id: excludes path"),
    "syntax": ("path: [questions.jsonl\n", "mine.yaml:1: YAML syntax"),
    "type": ("path: questions.jsonl\nlicense: 5\n", "mine.yaml:2: license: "),
    "tenths": ("path: questions.jsonl\nsplit:\n  by_hash_of: question\n  test_tenths: 10\n", "mine.yaml:4: "),
    "part of a split": ("path: questions.jsonl\nsplit: {by_hash: question}\n", "mine.yaml:2: "),
    "no splits": ("rows: functions.py:load\n", "mine.yaml:1: rows: needs splits"),
    "no function": (
        "path: questions.jsonl\nvalidate: functions.py:validate\n",
        "mine.yaml:2: validate: has no effect",
    ),
    "columns of rows": (f"{ROWS}columns: {{prompt: question}}\n", "mine.yaml:3: columns: has no effect with rows"),
    "no such file": ("rows: other.py:load\nsplits: {train: {}}\n", r"mine.yaml:1: rows: .*other.py does not exist"),
    "no such function": (
        "rows: functions.py:lod\nsplits: {train: {}}\n",
        "mine.yaml:1: rows: .*has no function 'lod'",
    ),
    "no such module": ("path: questions.jsonl\nfunction: schoolhouse.no:one\n", "mine.yaml:2: function: .*No module"),
    "wrong arguments": ("rows: functions.py:load\nsplits: {train: {length: 3}}\n", "mine.yaml:1: rows: .*'length'"),
    "exception": ("rows: functions.py:broken\nsplits: {train: {}}\n", "mine.yaml:1: rows: .*KeyError: 'three'"),
    "malformed rows": ("rows: functions.py:half\nsplits: {train: {}}\n", "half row 1: column 'completion' is missing"),
    "hash of no column": (
        "path: questions.jsonl\nfunction: functions.py:convert\nsplit: {by_hash_of: id}\n",
        "mine.yaml:3: split: .*'id'",
    ),
    "no rows": ("license: MIT\n", "give dataset_path"),
}


@pytest.mark.parametrize("text, message", ERRORS.values(), ids=ERRORS)
def test_a_mistake_is_one_line_with_file_and_line(folder, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_training_data(DataArguments(dataset_name=describe(folder, text)), seed=0)
    assert "\n" not in str(caught.value)


TESTS = ["assert f(1) == 2", "assert f( 1 ) == 2  # the same", "assert f(3) == 4", "assert f(5) == 6"]
SHOWN = {
    "one of a list": (1, TESTS, ["assert f(1) == 2"], ["assert f(3) == 4", "assert f(5) == 6"]),
    "two of a text": (2, "\n".join(TESTS), ["assert f(1) == 2", "assert f(3) == 4"], ["assert f(5) == 6"]),
    "all but the last": (9, TESTS, ["assert f(1) == 2", "assert f(3) == 4"], ["assert f(5) == 6"]),
    "set-up code stays": (1, ["x = f(0)", *TESTS[2:]], ["assert f(3) == 4"], ["x = f(0)", "assert f(5) == 6"]),
    "one test alone": (1, TESTS[:2], [], ["assert f(1) == 2"]),
    "none": (0, TESTS[2:], [], TESTS[2:]),
}


@pytest.mark.parametrize("count, tests, shown, graded", SHOWN.values(), ids=SHOWN)
@pytest.mark.parametrize("is_text", [True, False], ids=["text", "messages"])
def test_tests_that_a_prompt_shows_are_not_graded(folder, count, tests, shown, graded, is_text):
    prompt = "Write f." if is_text else [{"role": "system", "content": "?"}, {"role": "user", "content": "Write f."}]
    hidden = ["assert f(1)==2", "assert f(7) == 8"]
    row = {"task": prompt, "asserts": tests, "entry_point": "f", "hidden_tests": hidden}
    (folder / "programs.jsonl").write_text(json.dumps(row) + "\n")
    keys = "columns: {prompt: task, tests: asserts}\n"
    name = describe(folder, f"path: programs.jsonl\n{keys}shown_tests: {count}\n")
    (found,) = load_rows(name)
    assert (found["shown_tests"], found["tests"]) == (shown, graded)
    assert found["hidden_tests"] == hidden[1 if shown[:1] == TESTS[:1] else 0 :]
    text = found["prompt"] if is_text else found["prompt"][-1]["content"]
    call = graded[-2 if count == 0 else -1].removeprefix("assert ").partition(" ==")[0]
    told = ("It has to pass tests such as:", *shown) if shown else ("It is called like this:", call)
    assert text == "Write f.\n\n{}\n```python\n{}\n```".format(told[0], "\n".join(told[1:]))
    assert not any(test in text for test in graded) and (is_text or found["prompt"][0] == prompt[0])


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"tests": None}, "column 'tests' is missing"),
        ({"tests": "def check(candidate):\n    assert candidate(1) == 2"}, "the tests are one function 'check'"),
        ({"tests": ["assert f(1) =="]}, "a test does not parse"),
        ({"tests": ["f(1)"]}, "column 'tests' has no assert"),
        ({"tests": ["assert g(1) == 2"]}, "a test does not call the function"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Write f."}]}]},
            "column 'prompt' is no text",
        ),
    ],
)
def test_a_row_whose_tests_cannot_be_shown_is_malformed(folder, change, reason):
    row = {"prompt": "Write f.", "tests": ["assert f(1) == 2"], "entry_point": "f"}
    (folder / "programs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    with pytest.raises(ValueError, match=f"programs.jsonl:2: {reason}"):
        load_rows(describe(folder, "path: programs.jsonl\nshown_tests: 1\n"))


def test_an_unknown_split_of_generated_rows_names_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"mine.yaml:2: splits: there is no split 'dev'; known are train"):
        load_rows(describe(folder, ROWS), "dev")
    # The default test split may be missing, as in any other data set.
    assert load_training_data(DataArguments(dataset_name=describe(folder, ROWS)), seed=0).test is None


def test_the_files_that_decide_the_rows_are_listed(folder):
    text = "path: questions.jsonl\nfunction: functions.py:convert\nvalidate: schoolhouse.data.public:validate_gsm8k\n"
    files = load_dataset_spec(describe(folder, text)).files()
    assert [file.name for file in files] == ["mine.yaml", "questions.jsonl", "functions.py"]
    assert all(file.is_file() for file in files)


PAGE = (ROOT / "docs/add_a_data_set.md").read_text(encoding="utf-8")


def test_the_page_works_as_written_from_an_empty_folder(tmp_path, monkeypatch, capsys):
    for name, text in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(text)
    commands = re.findall(r"^```bash\n(.*?)^```$", PAGE.replace("\\\n", ""), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ,
        "SCHOOLHOUSE": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", "-c", commands[0]], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "capital of Ede" in done.stdout, done.stderr
    # The other commands run the same script, in this process to save the time of imports.
    monkeypatch.setenv("SCHOOLHOUSE", str(ROOT))
    for command, words in zip(commands[1:], ["Brenna!", "comes after", "tests such as:", "comes after"], strict=True):
        script, *arguments = shlex.split(os.path.expandvars(command))[1:]
        assert script == str(ROOT / "recipes/sft.py") and sft.main(arguments) == 0
        assert words in capsys.readouterr().out
    assert not (tmp_path / "outputs").exists()
    (tmp_path / "my_data.yaml").write_text((tmp_path / "my_data.yaml").read_text().replace("columns", "colums"))
    with pytest.raises(SystemExit):
        sft.main(shlex.split(os.path.expandvars(commands[0]))[2:])
    assert capsys.readouterr().err.splitlines()[-1] == re.search(r"^my_recipe.yaml:2.*", PAGE, re.MULTILINE)[0]
