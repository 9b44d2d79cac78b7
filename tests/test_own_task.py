"""The rows that a run held out as a task of the user's own name, for the run's adapter and for its base."""

import json

import pytest
from scripts import exiting
from tiny_models import make_tiny_model

from eval import run as eval_run
from recipes import reward, sft
from schoolhouse.config.arguments import DataArguments
from schoolhouse.core.files import write_json
from schoolhouse.core.manifest import ModelSource, RunManifest, read_manifest
from schoolhouse.data import load_training_data
from schoolhouse.evaluation.compare import compare_runs
from schoolhouse.evaluation.results import load_results, load_samples
from schoolhouse.evaluation.tasks import load_task, load_tasks


pytestmark = pytest.mark.usefixtures("one_thread")
evaluate = exiting(eval_run.main)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_tiny_model(tmp_path_factory.mktemp("base"), tied=False))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def held_out(folder, base, kinds, **keys):
    """The tasks of a run with these keys about data, whose manifest is written as a recipe writes it."""
    arguments = {"validation_split": 0.4} | {key: keys.pop(key) for key in [*keys] if hasattr(DataArguments, key)}
    data = load_training_data(DataArguments(**arguments), 7, kinds)
    manifest = RunManifest(
        status="done",
        recipe="mine",
        config={**arguments, **keys},
        seeds={"seed": 7},
        model=ModelSource(name=base, hash="0"),
        data=data.sources,
    )
    write_json(folder / "run" / "run.json", manifest.model_dump(mode="json", by_alias=True))
    return data, load_tasks([str(folder / "run")])


def recipe(main, base, *flags):
    more = ["--max_steps", "1", "--eval_strategy", "no", "--report_to", "none", "--use_cpu", "true"]
    return exiting(main)(["--model_name_or_path", base, "--validation_split", "0.4", *more, *flags])


def sums(count=20):
    return [{"question": f"What is {n} + {n * n}?", "answer": n + n * n} for n in range(count)]


def test_a_run_on_a_table_is_measured_on_its_held_out_rows_before_and_after(folder, base, monkeypatch, capsys):
    (folder / "sums.csv").write_text(
        "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in sums())
    )
    flags = ["--dataset_name", "sums.csv", "--output_dir", "run", "--learning_rate", "0.05"]
    monkeypatch.setattr("sys.argv", ["sft.py"])
    recipe(sft.main, base, *flags)
    assert "schoolhouse eval --adapter_name_or_path run --tasks own" in capsys.readouterr().out
    evaluate(["--adapter_name_or_path", "run", "--tasks", "own", "--device", "cpu"])
    evaluate(
        ["--model_name_or_path", base, "--tasks", "run", "--output_dir", "before", "--device", "cpu"],
    )
    results = load_results("run/eval")
    assert list(results.tasks) == ["sums", "sums-loss"] and results.adapter == "run/adapter" and results.model == base
    rows = {str(row["question"]): str(row["answer"]) for row in sums()}
    asked = {sample.prompt: sample.reference for sample in load_samples("run/eval", "sums")}
    assert asked.items() <= rows.items() and 3 <= len(asked) <= 13
    records = {source.role: source.rows for source in read_manifest("run").data}
    assert records == {"train": 20 - len(asked), "test": len(asked)}
    comparison = compare_runs("before", "run/eval")
    assert {name: task.test.n for name, task in comparison.tasks.items()} == dict.fromkeys(
        ("sums", "sums-loss"), len(asked)
    )
    assert comparison.tasks["sums-loss"].test.difference != 0
    assert [entry.folder for entry in read_manifest("run").evaluations] == ["eval"]


def test_pairs_are_a_task_for_the_reward_model(folder, base, monkeypatch):
    pairs = [{"prompt": f"Greet {n}.", "chosen": f"Hello {n}.", "rejected": f"Go away, {n}!"} for n in range(20)]
    write_rows(folder / "pairs.jsonl", pairs)
    monkeypatch.setattr("sys.argv", ["reward.py"])
    recipe(reward.main, base, "--dataset_name", "pairs.jsonl", "--output_dir", "run")
    evaluate(["--adapter_name_or_path", "run", "--tasks", "own", "--device", "cpu"])
    (task,) = load_results("run/eval").tasks.items()
    assert task[0] == "pairs" and task[1].n == read_manifest("run").data[1].rows and task[1].preference
    # The same reward model as a scorer of generated answers gives each the score that the pairs' answers got.
    (folder / "greet.yaml").write_text(
        "dataset: pairs.jsonl\nprompt: prompt\nscorer: {name: reward_model, model: run, least: -1000}\n"
    )
    greet = load_task(folder / "greet.yaml")
    scored = {sample.prompt: sample.scores for sample in load_samples("run/eval", "pairs")}
    items = [item for item in greet.build() if item.prompt in scored]
    chosen = greet.score([item.row["chosen"] for item in items], items)
    assert [one["metrics"]["utility"] for one in chosen] == pytest.approx(
        [scored[item.prompt][0] for item in items], abs=1e-5
    )
    assert all(one["correct"] for one in chosen)
    high = greet.model_copy(update={"scorer": {"name": "reward_model", "model": str(folder / "run"), "least": 1000}})
    high.__dict__.pop("scorer_with_parameters", None)
    assert not any(one["correct"] for one in high.score([item.row["chosen"] for item in items], items))


def test_the_last_answer_of_a_conversation_is_asked(folder, base):
    turns = [("user", "Hi {n}"), ("assistant", "Hello"), ("user", "Who?"), ("assistant", "I am  number {n}.")]
    write_rows(
        folder / "chats.jsonl",
        [
            {"messages": [{"role": role, "content": text.format(n=n)} for role, text in turns[: 4 if n % 2 else 2]]}
            for n in range(20)
        ],
    )
    data, tasks = held_out(folder, base, ("messages",), dataset_name="chats.jsonl")
    assert list(tasks) == ["chats", "chats-loss"]
    items = tasks["chats"].build()
    assert [item.reference for item in items] == [row["messages"][-1]["content"] for row in data.test]
    assert [item.prompt for item in items] == [row["messages"][:-1] for row in data.test]
    assert tasks["chats"].score([items[0].reference.upper() + "\n"], items[:1])[0]["correct"] is True
    assert [item.reference for item in tasks["chats-loss"].build()] == [item.reference for item in items]


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (
            lambda n: {"completion": f"So {n} + 1 = {n + 1}\n#### {n + 1}", "answer": str(n + 1)},
            "The answer is {m}.",
            "#### 99",
        ),
        (lambda n: {"completion": f"So \\boxed{{{n + 1}}}."}, "#### {m}", "no"),
        (lambda n: {"completion": f"The town of {n}."}, "the town of  {n}", "town of {n}"),
        (lambda n: {"completion": f"It is town {n}.", "answer": f"town {n}"}, "It is town {n}.", "town {n}"),
    ],
)
def test_the_scorer_follows_from_the_data(folder, base, row, right, wrong):
    rows = [{"prompt": f"Question {n}?", **row(n)} for n in range(20)]
    write_rows(folder / "mine.jsonl", rows)
    _, tasks = held_out(folder, base, ("prompt-completion",), dataset_name="mine.jsonl", conversational=True)
    items = tasks["mine"].build()
    assert all(item.prompt[0]["role"] == "user" for item in items)
    number = int(items[0].prompt[0]["content"].split()[1].strip("?"))
    good, bad = (text.format(n=number, m=number + 1) for text in (right, wrong))
    trained = [rows[int(item.prompt[0]["content"].split()[1].strip("?"))]["completion"] for item in items]
    assert [score["correct"] for score in tasks["mine"].score(trained, items)] == [True] * len(items)
    assert [score["correct"] for score in tasks["mine"].score([good, bad], items[:1] * 2)] == [True, False]


def test_rewards_of_the_run_are_its_scorers(folder, base):
    write_rows(folder / "sums" / "train.jsonl", [{"prompt": f"{n} + 1?", "answer": f"{n + 1}"} for n in range(20)])
    keys = {"dataset_name": "sums/train.jsonl", "max_completion_length": 33}
    _, tasks = held_out(folder, base, ("prompt-only",), **keys, rewards=[{"name": "math", "weight": 2.0}])
    (task,) = tasks.values()
    assert (task.name, task.scorer, task.max_new_tokens) == ("sums", "math", 33)  # `train` is no name of a data set
    _, tasks = held_out(folder, base, ("prompt-only",), **keys, rewards=["mine.py:score"])
    assert tasks["sums"].scorer == "math"  # the answers are numbers
    (chosen,) = load_tasks([str(folder / "run")], own_scorer="contains").values()
    assert [score["correct"] for score in chosen.score(["so 3", "so 4"], [chosen.build()[0]] * 2)].count(True) <= 1


def test_questions_without_answers_need_a_scorer(folder, base):
    write_rows(folder / "mine.jsonl", [{"prompt": f"Write {n} words."} for n in range(20)])
    with pytest.raises(ValueError, match=r"mine: its rows have no answers: name a scorer with --own_scorer"):
        held_out(folder, base, ("prompt-only",), dataset_name="mine.jsonl")


def test_a_mixture_is_one_task_with_its_sources_as_levels(folder, base):
    for name in "ab":
        rows = [{"prompt": f"{name} {n}?", "completion": f"It is {n}."} for n in range(20)]
        write_rows(folder / f"{name}.jsonl", rows)
    entries = [{"name": "a.jsonl"}, {"name": "b.jsonl"}]
    _, tasks = held_out(folder, base, ("prompt-completion",), datasets=entries)
    assert list(tasks) == ["a+b", "a+b-loss"]
    assert {item.level for item in tasks["a+b"].build()} == {"a.jsonl", "b.jsonl"}


def test_pairs_without_a_prompt_share_what_they_begin_with(folder, base):
    question = {"role": "user", "content": "Greet."}
    sides = [[{"role": "assistant", "content": text}] for text in ("Hello.", "Go!")]
    rows = [
        dict(
            zip(
                ("chosen", "rejected"),
                ([{**question, "content": f"Greet {n}."}, *side] for side in sides),
                strict=True,
            )
        )
        for n in range(20)
    ]
    write_rows(folder / "svamp.jsonl", rows)
    _, tasks = held_out(folder, base, ("preference",), dataset_name="svamp.jsonl")
    (task,) = tasks.values()
    assert task.name == "svamp-heldout"  # there is a task svamp
    item = task.build()[0]
    assert [turn["role"] for turn in item.prompt] == ["user"]
    assert (item.row["chosen"], item.row["rejected"]) == tuple(sides)


def test_rows_that_changed_are_no_longer_known_to_be_held_out(folder, base):
    write_rows(folder / "mine.jsonl", sums())
    held_out(folder, base, ("prompt-completion",), dataset_name="mine.jsonl")
    write_rows(folder / "mine.jsonl", sums(21))
    with pytest.raises(ValueError, match=r"run was trained on other rows: mine.jsonl changed since"):
        load_tasks([str(folder / "run")])
    (folder / "mine.jsonl").unlink()
    with pytest.raises(ValueError, match=r"cannot be read: mine.jsonl: no such file; evaluate from the folder"):
        load_tasks([str(folder / "run")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "own", "--output_dir", "x", "--model_name_or_path", "BASE"], "own is the rows that a run held"),
        (["--tasks", "own"], "--model_name_or_path: missing"),
        (["--tasks", "owm", "--output_dir", "x", "--model_name_or_path", "BASE"], "unknown task 'owm'"),
        (["--tasks", "run", "--output_dir", "x", "--model_name_or_path", "BASE"], "run held out no rows: train with"),
        (
            ["--tasks", "a/t.yaml,b/t.yaml", "--output_dir", "x", "--model_name_or_path", "BASE"],
            "two tasks are called t",
        ),
    ],
)
def test_a_mistake_is_one_line(folder, base, capsys, flags, message):
    manifest = RunManifest(status="done", recipe="sft", model=ModelSource(name=base, hash="0"))
    write_json(folder / "run" / "run.json", manifest.model_dump(mode="json", by_alias=True))
    for name in "ab":
        write_rows(folder / name / "rows.jsonl", sums(2))
        (folder / name / "t.yaml").write_text(
            "dataset: rows.jsonl\nprompt: '{question}'\nreference: answer\nscorer: exact\n"
        )
    with pytest.raises(SystemExit) as raised:
        evaluate([base if flag == "BASE" else flag for flag in flags])
    error = capsys.readouterr().err
    assert raised.value.code == 2 and message in error and error.count("\n") == 1
