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
        ("my_task.yaml", "scorer: math\n", "", "my_task.yaml:1: scorer is missing"),
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
        (
            "my_task.yaml",
            "{question}",
            "{questoin}",
            "my_task.yaml:4: prompt: no row has the column 'questoin'; did you mean question?",
        ),
        (
            "my_task.yaml",
            "reference: answer",
            "reference: anwser",
            "my_task.yaml:5: reference: no row has the column 'anwser'; did you mean answer?",
        ),
        (
            "my_task.yaml",
            "scorer: math",
            "level: level\nscorer: math",
            "my_task.yaml:6: level: no row has the column 'level'; known keys: answer, question",
        ),
        (
            "my_task.yaml",
            "scorer: math",
            "cluster: qestion\nscorer: math",
            "my_task.yaml:6: cluster: no row has the column 'qestion'; did you mean question?",
        ),
        (
            "my_task.yaml",
            "scorer: math",
            "id: 'sum-{nmber}'\nscorer: math",
            "my_task.yaml:6: id: no row has the column 'nmber'",
        ),
        (
            "my_task.yaml",
            "scorer: math",
            "few_shot: {count: 4}\nscorer: math",
            "my_task.yaml:6: few_shot: 4 examples leave none of the 3 rows to ask",
        ),
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
    messages = [message for *_, message in cases]
    assert shown == [*messages[:3], next(message for message in messages if "questoin" in message)]


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
    assert all(len(line) < 160 and len(line[59:]) < 100 and line[59:].strip() for line in lines)
    listed = {line.split()[0]: line[20:59].split() for line in lines}
    assert listed["svamp"] == ["math", "311", "accuracy"]
    assert listed["tiny_heldout"] == ["bits_per_byte", "500", "bits", "per", "byte"]
    assert listed["multiple_choice"] == ["loglikelihood", "accuracy"]


def test_the_number_of_items_that_is_listed_is_that_of_the_data(caplog):
    for name in ("tiny_arithmetic", "tiny_descriptions", "tiny_facts", "tiny_forms", "tiny_preferences"):
        task = load_task(name)
        assert len(task.build()) == task.num_items and not caplog.text
    changed = load_task("tiny_forms").model_copy(update={"num_items": 21})
    changed.build()
    assert "tiny_forms: 20 items where its task file says 21: its data set changed" in caplog.text


def test_five_lines_are_a_task(folder):
    (folder / "mine.yaml").write_text(
        "dataset: questions.jsonl\nprompt: '{question}'\nreference: answer\nscorer: exact\nfew_shot: {count: 1}\n"
    )
    task = load_task(folder / "mine.yaml")
    items = task.build()
    assert (task.name, task.version, [item.reference for item in items]) == ("mine", 1, ["42", "6"])
    first = "Tom has 3 apples and buys 4. How many has he? 7\n\n"
    assert items[0].prompt == first + "What is 6 * 7?"  # the first row is the example, and so is not asked
    assert len(task.build(limit=1)) == 1


def test_examples_share_a_column_with_the_question_and_have_an_introduction(folder):
    for split, rows in {"dev": 4, "test": 2}.items():
        (folder / f"{split}.jsonl").write_text(
            "".join(f'{{"q": "{split} {n}", "a": "{n}", "topic": "{"xy"[n % 2]}"}}\n' for n in range(rows))
        )
    (folder / "questions.jsonl").unlink()
    text = "dataset: .\nprompt: 'Q: {q}'\nreference: a\nscorer: exact\n"
    shots = 'few_shot: {count: 2, split: dev, by: topic, introduction: "About {topic}.\\n\\n"}\n'
    (folder / "mine.yaml").write_text(text + shots)
    prompts = [item.prompt for item in load_task(folder / "mine.yaml").build()]
    assert prompts == [
        "About x.\n\nQ: dev 0 0\n\nQ: dev 2 2\n\nQ: test 0",
        "About y.\n\nQ: dev 1 1\n\nQ: dev 3 3\n\nQ: test 1",
    ]
    (folder / "mine.yaml").write_text(text + shots.replace("count: 2", "count: 3"))
    with pytest.raises(ValueError, match=r"mine.yaml:5: few_shot: 3 examples, but split dev has 2 with topic 'x'"):
        load_task(folder / "mine.yaml").build()
