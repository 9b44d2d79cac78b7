"""Eval tasks of the user's own as `docs/add_a_task.md` shows them, and mistakes in task files."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eval import run
from schoolhouse.evaluation.results import load_results, load_samples
from schoolhouse.evaluation.tasks import load_task, task_names
from schoolhouse.evaluation.tasks.items import fill, prompt_of


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/add_a_task.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder outside the checkout with the page's files in it."""
    for name, text in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCHOOLHOUSE", str(ROOT))
    return tmp_path


def test_the_page_works_as_written_from_an_empty_folder(folder):
    commands = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    first, second = commands
    done = subprocess.run(
        ["bash", "-c", first], env={**os.environ, "PATH": search}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "my_task" in done.stdout, done.stderr
    task = load_results(folder / "results").tasks["my_task"]
    assert (task.n, task.version, task.max_new_tokens) == (3, 1, 32)
    (sample, *_) = load_samples(folder / "results", "my_task")
    assert sample.reference == "7" and sample.prompt[0]["content"].endswith("End with #### and the number.")
    assert run.main(shlex.split(os.path.expandvars(second))[2:]) == 0
    task = load_results(folder / "short").tasks["my_short_task"]
    assert task.n == 3 and set(task.metrics) >= {"words", "truncated"}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "my_task.yaml",
            "scorer: math",
            "scorer: maths",
            "my_task.yaml:6: scorer: 'maths' is no scorer; did you mean math?; your own is file.py:function",
        ),
        (
            "my_task.yaml",
            "max_new_tokens",
            "max_tokens",
            "my_task.yaml:7: max_tokens: unknown key; did you mean max_new_tokens?",
        ),
        (
            "questions.jsonl",
            ', "answer": "42"',
            "",
            "questions.jsonl:2: column 'answer' is missing; the row has question",
        ),
        ("my_task.yaml", "version: 1\n", "", "my_task.yaml:1: version is missing"),
        ("my_task.yaml", "version: 1", "version: one", "my_task.yaml:1: version: expected an integer, got 'one'"),
        ("my_task.yaml", "math", "{name: math, stile: hash}", "my_task.yaml:6: scorer.stile: unknown key"),
        ("my_task.yaml", "math", "mine.py:score", "my_task.yaml:6: scorer: mine.py does not exist"),
        ("my_task.yaml", "math", "my_scorer.py:scor", "my_task.yaml:6: scorer: my_scorer.py has no function 'scor'"),
        ("my_task.yaml", "version: 1", "version: 1\nkind: guess", "my_task.yaml:2: kind: 'guess' is no kind of task"),
        (
            "my_task.yaml",
            "version: 1",
            "version: 1\nrows: my_scorer.py:score",
            "my_task.yaml:2: rows: excludes dataset",
        ),
        ("my_task.yaml", "{question}", "{questoin}", "column 'questoin' is missing; the row has question, answer"),
        ("my_task.yaml", "questions.jsonl", "nowhere.jsonl", "my_task.yaml:3: dataset: nowhere.jsonl does not exist"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(folder, capsys, file, old, new, message):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    base = ["--model_name_or_path", str(ROOT / "data/tiny/base"), "--output_dir", "out"]
    assert run.main(["--tasks", "my_task.yaml", *base]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (folder / "out").exists()


def test_the_page_shows_the_errors_as_they_are():
    shown = re.search(r"## Mistakes.*?```\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    cases = test_a_mistake_is_one_line_with_file_and_line.pytestmark[0].args[1]
    assert shown == [message for *_, message in cases[:3]]


def test_rows_of_a_function_with_levels_and_clusters(folder):
    (folder / "mine.py").write_text(
        "def rows():\n    return [{'q': f'{n}?', 'a': n, 'book': 'ab'[n % 2], 'level': n} for n in range(6)]\n"
    )
    (folder / "mine.yaml").write_text(
        "version: 1\ndescription: d\nrows: mine.py:rows\nprompt: '{q}'\nreference: a\nid: 'mine-{number}'\n"
        "level: level\ncluster: book\nscorer: {name: contains, ignore_case: true}\n"
    )
    task = load_task(folder / "mine.yaml")
    items = task.build(limit=3)
    assert [(item.id, item.reference, item.level, item.cluster) for item in items] == [
        ("mine-0", "0", 0, 0),
        ("mine-1", "1", 1, 1),
        ("mine-2", "2", 2, 0),
    ]
    assert [score["correct"] for score in task.score(["it is 0", "one", "12"], items)] == [True, False, True]
    assert sorted(path.name for path in task.files()) == ["mine.py", "mine.yaml"]


def test_few_shot_examples_of_messages_are_turns(folder):
    (folder / "train.jsonl").write_text((folder / "questions.jsonl").read_text())
    (folder / "test.jsonl").write_text((folder / "questions.jsonl").read_text())
    (folder / "shots.yaml").write_text(
        "version: 1\ndescription: d\ndataset: .\nprompt: [{role: user, content: '{question}'}]\nreference: answer\n"
        "few_shot: {count: 2}\nscorer: exact\n"
    )
    for name in ("questions.jsonl",):
        (folder / name).unlink()
    item = load_task(folder / "shots.yaml").build()[2]
    assert [message["role"] for message in item.prompt] == ["user", "assistant"] * 2 + ["user"]
    assert item.prompt[3]["content"] == "42" and item.prompt[4]["content"].startswith("A pie")


@pytest.mark.parametrize("given", [0.7, "yes", {"words": 3}, {"correct": 1}])
def test_a_scorer_that_returns_no_verdict_is_named(folder, given):
    (folder / "my_scorer.py").write_text(f"def score(completion, item, most_words):\n    return {given!r}\n")
    task = load_task(folder / "my_short_task.yaml")
    with pytest.raises(
        ValueError, match=r"task.yaml:6: scorer: my_scorer.py:score returned .* for item 0: return True"
    ):
        task.build()


def test_an_error_in_a_users_function_is_told_before_weights_load(folder):
    (folder / "my_scorer.py").write_text("def score(completion, item):\n    return True\n")
    with pytest.raises(
        ValueError, match=r"my_short_task.yaml:6: scorer: my_scorer.py:score raised TypeError: .*most_w"
    ):
        load_task(folder / "my_short_task.yaml").build()
    (folder / "mine.py").write_text("def rows():\n    return [{'q': 1 / 0}]\n")
    (folder / "mine.yaml").write_text("version: 1\ndescription: d\nrows: mine.py:rows\nprompt: q\nscorer: exact\n")
    with pytest.raises(ValueError, match=r"mine.yaml:3: rows: mine.py:rows raised ZeroDivisionError"):
        load_task(folder / "mine.yaml").build()


def test_templates_fill_columns_and_keep_other_braces():
    row = {"x": 3, "list": [{"role": "user", "content": "hi"}]}
    assert fill(r"\boxed{{{x}}} {} {1 2}", row) == r"\boxed{3} {} {1 2}"
    assert prompt_of("list", row) == row["list"] and prompt_of("{x}?", row) == "3?"


def test_the_built_in_tasks_are_listed_with_a_line_each(capsys):
    assert run.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == task_names() and len(lines) >= 19
    assert all(len(line) < 120 and line[20:].strip() for line in lines)
