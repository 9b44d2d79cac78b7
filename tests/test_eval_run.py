"""`eval/run.py` end to end: reference answers, resumption, comparisons, and errors in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from scripts import exiting
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM

from eval import run
from schoolhouse.core import generation
from schoolhouse.core.files import write_json, write_json_lines
from schoolhouse.evaluation import compare
from schoolhouse.evaluation.results import EvalSample, load_results, load_samples
from schoolhouse.evaluation.tasks import Item, load_task


main = exiting(run.main)
SCRIPT = Path(run.__file__)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return str(make_tiny_model(tmp_path_factory.mktemp("base"), tied=False))


@pytest.fixture(scope="session")
def adapters(base, tmp_path_factory):
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        folders.append(str(tmp_path_factory.mktemp("adapter")))
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    """Local data for three tasks."""
    folder = tmp_path_factory.mktemp("data")
    rows = {
        "svamp": [
            {"ID": f"q-{n}", "Body": "Tom " * (n % 5) + f"has {n} apples.", "Question": "How many?"}
            | {"Equation": f"( {n}.0 + 1.0 )", "Answer": n + 1.0, "Type": "Addition"}
            for n in range(40)
        ],
        "multiple_choice": [
            {"question": f"{n} + 1?", "choices": [str(n), str(n + 1), "no idea"], "answer": 1, "level": n % 2}
            for n in range(6)
        ],
        "heldout_bpb": [{"text": "The quick brown fox. " * n} for n in (1, 3, 60)],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {name: str(folder / f"{name}.jsonl") for name in rows} | {"svamp": str(folder / "svamp.jsonl")}


def read_results(folder):
    return load_results(folder).to_json()


def read_samples(folder, task):
    return [sample.to_json() for sample in load_samples(folder, task)]


def compare_runs(before, after):
    return compare.compare_runs(before, after).to_json()


def evaluate(base, folder, *more, tasks="svamp", paths=None):
    arguments = ["--model_name_or_path", base, "--tasks", tasks, "--output_dir", str(folder), "--device", "cpu"]
    given = {name: paths[name] for name in tasks.split(",")} if paths else {}
    main([*arguments, "--task_paths", json.dumps(given), "--max_new_tokens", "12", *more])
    return read_results(folder)


def count_rows(monkeypatch, stop_after=None):
    """Counts what is generated; with `stop_after`, pulls the plug after so many batches."""
    rows, original = [], generation._generate_batch

    def spy(model, tokenizer, batch, sampling):
        if len(rows) == stop_after:
            raise KeyboardInterrupt
        rows.append(len(batch))
        return original(model, tokenizer, batch, sampling)

    monkeypatch.setattr(generation, "_generate_batch", spy)
    return rows


# Tasks


@pytest.mark.parametrize("name", ["gsm8k", "gsm8k_5shot", "svamp"])
def test_references_of_math_tasks_score_one(shared, name):
    task = load_task(name)
    items = task.build(None, str(shared / "data" / name.removesuffix("_5shot")))
    assert len(items) == {"gsm8k": 1319, "gsm8k_5shot": 1319, "svamp": 311}[name]
    assert len({item.id for item in items}) == len(items)
    scores = task.score([item.reference for item in items], items)
    assert all(score["correct"] is True and score["format_ok"] for score in scores)
    conventions = ("gsm8k/lm-eval-strict", "gsm8k/lm-eval-flexible", "gsm8k/official")
    assert all(score["metrics"][name] for score in scores for name in conventions)


def test_wrong_answers_score_nothing_and_form_is_told_from_content():
    item = Item("a", "?", "26 - 9 = 17\n#### 17")
    wrong, form, right = load_task("svamp").score(["#### 18", "That leaves 17 cookies", "#### 17"], [item] * 3)
    assert (wrong["correct"], wrong["format_ok"], wrong["right_in_any_form"]) == (False, True, False)
    assert (form["correct"], form["format_ok"], form["right_in_any_form"]) == (False, False, True)
    assert (right["correct"], right["format_ok"], right["right_in_any_form"]) == (True, True, True)
    assert right["metrics"]["gsm8k/lm-eval-strict"] is True and form["metrics"]["gsm8k/lm-eval-strict"] is False


def test_svamp_asks_what_its_training_rows_ask(paths):
    from schoolhouse.data import load_rows

    items = load_task("svamp").build(3, paths["svamp"])
    rows = load_rows("svamp", "test", path=paths["svamp"])
    assert [item.prompt for item in items] == [row["prompt"] for row in rows][:3]
    assert all(message["role"] != "assistant" for item in items for message in item.prompt)


def test_the_five_shots_are_lm_evals_prompt(tmp_path):
    for split, first in (("train", 0), ("test", 100)):
        rows = [{"question": f"Q{n}?", "answer": f"<<{n}=1>> so\n#### {n}"} for n in range(first, first + 7)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load_task("gsm8k_5shot").build(2, str(tmp_path))
    shots = "".join(f"Question: Q{n}?\nAnswer: <<{n}=1>> so\n#### {n}\n\n" for n in range(5))
    assert [item.prompt for item in items] == [shots + f"Question: Q{n}?\nAnswer:" for n in (100, 101)]


def test_the_right_choice_scores_one_and_length_is_normalised(paths):
    task = load_task("multiple_choice")
    items = task.build(None, paths["multiple_choice"])
    assert [item.reference for item in items] == ["1", "2", "3", "4", "5", "6"]
    for item in items:
        likelihoods = [-1.0 if choice.strip() == item.reference else -50.0 for choice in item.row["choices"]]
        assert task.score(likelihoods, item)["correct"] is True
    # -6 for the 7 bytes of "no idea" is less per byte than -2 for one; summed it is the other way about.
    score = task.score([-9.0, -2.0, -6.0], items[0])
    assert score == {"correct": False, "extracted": "no idea", "metrics": {"unnormalised": True}}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "?", "choices": ["a"], "answer": 0},
        {"question": "?", "choices": ["a", "a"], "answer": 0},
        {"question": "?", "choices": ["a", "b"], "answer": 2},
        {"question": "?", "choices": ["a", "b"], "answer": "c"},
        {"question": "?", "choices": ["a", ""], "answer": 0},
        {"choices": ["a", "b"], "answer": 0},
    ],
)
def test_malformed_choices_are_refused(tmp_path, row):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"malformed|no row has the column 'question'"):
        load_task("multiple_choice").build(None, str(tmp_path / "rows.jsonl"))


# Runs


def test_a_run_writes_results_and_samples(base, adapters, paths, tmp_path, capsys):
    tasks = "svamp,multiple_choice,heldout_bpb"
    results = evaluate(base, tmp_path, "--adapter_name_or_path", adapters[0], tasks=tasks, paths=paths)
    assert results["schema"] == 2 and list(results["tasks"]) == tasks.split(",")
    assert results["adapter"] == adapters[0] and results["hashes"]["adapter"] and results["hashes"]["chat_template"]
    assert results["command"].startswith("python eval/run.py --model_name_or_path")
    assert results["sampling"] | {"dtype": "float32", "seed": None, "num_samples": 1} == results["sampling"]
    for name, task in results["tasks"].items():
        samples = read_samples(tmp_path, name)
        assert task["n"] == len(samples) == len(load_task(name).build(None, paths[name]))
        low, high = task["interval"]
        assert low <= task["value"] <= high and task["standard_error"] >= 0
    assert results["tasks"]["svamp"]["metrics"]["gsm8k/lm-eval-strict"] == 0.0
    assert list(results["tasks"]["multiple_choice"]["by_level"]) == ["0", "1"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in results["tasks"]) and "\x1b" not in printed


def test_a_task_may_be_sampled_in_its_own_way_unless_the_user_says_how(base, tmp_path, capsys):
    tasks = "tiny_forms,tiny_descriptions"
    limit = ("--limit", "3")
    results = evaluate(base, tmp_path / "own", *limit, tasks=tasks)
    assert results["sampling"] | {"num_samples": 1, "temperature": 0.0, "seed": 42} == results["sampling"]
    assert "sampling" not in results["tasks"]["tiny_forms"]
    assert results["tasks"]["tiny_descriptions"]["sampling"] == {"num_samples": 8, "temperature": 1.0}
    assert [len(read_samples(tmp_path / "own", name)) for name in tasks.split(",")] == [3, 24]
    assert "pass@8" in results["tasks"]["tiny_descriptions"]["metrics"]
    main(["--export_lm_eval", str(tmp_path / "own"), "--output_dir", str(tmp_path / "lm-eval")])
    configs = json.loads(next((tmp_path / "lm-eval").rglob("results_*.json")).read_text())["configs"]
    assert [configs[name]["repeats"] for name in tasks.split(",")] == [1, 8]
    assert [configs[name]["generation_kwargs"]["do_sample"] for name in tasks.split(",")] == [False, True]

    greedy = evaluate(base, tmp_path / "greedy", *limit, "--temperature", "0", tasks=tasks)
    assert greedy["sampling"]["seed"] is None and "sampling" not in greedy["tasks"]["tiny_descriptions"]
    assert len(read_samples(tmp_path / "greedy", "tiny_descriptions")) == 3
    main(["--compare", str(tmp_path / "greedy"), str(tmp_path / "own")])
    assert "sampling of tiny_descriptions differs" in capsys.readouterr().out


def test_likelihoods_and_samples_do_not_hang_on_the_batch(base, paths, tmp_path):
    tasks = "svamp,multiple_choice,heldout_bpb"
    one = evaluate(base, tmp_path / "1", "--batch_size", "1", tasks=tasks, paths=paths)
    eight = evaluate(base, tmp_path / "8", "--batch_size", "8", tasks=tasks, paths=paths)
    assert read_samples(tmp_path / "1", "svamp") == read_samples(tmp_path / "8", "svamp")
    for name in tasks.split(","):
        assert one["tasks"][name]["value"] == pytest.approx(eight["tasks"][name]["value"], abs=1e-5)


SAMPLED = ("--num_samples", "4", "--temperature", "1.0", "--batch_size", "8")


def test_an_interrupted_run_goes_on_to_the_same_results(base, paths, tmp_path, monkeypatch):
    rows = count_rows(monkeypatch)
    whole = evaluate(base, tmp_path / "whole", *SAMPLED, paths=paths)
    items = whole["tasks"]["svamp"]["n"]
    assert sum(rows) == 4 * items and len(rows) > 3

    monkeypatch.undo()
    count_rows(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(base, tmp_path / "cut", *SAMPLED, paths=paths)
    assert not (tmp_path / "cut" / "results.json").exists()

    monkeypatch.undo()
    rows = count_rows(monkeypatch)
    resumed = evaluate(base, tmp_path / "cut", *SAMPLED, paths=paths)
    assert sum(rows) == 4 * items - 16
    assert resumed["tasks"] == whole["tasks"]
    assert (tmp_path / "cut/samples/svamp.jsonl").read_bytes() == (tmp_path / "whole/samples/svamp.jsonl").read_bytes()

    rows.clear()
    assert evaluate(base, tmp_path / "cut", *SAMPLED, paths=paths)["tasks"] == whole["tasks"]
    assert rows == []


def test_a_killed_run_goes_on_to_the_same_results(base, paths, tmp_path):
    command = [sys.executable, str(SCRIPT), "--model_name_or_path", base, "--tasks", "svamp", "--device", "cpu"]
    command += ["--task_paths", json.dumps({"svamp": paths["svamp"]}), "--max_new_tokens", "20"]
    command += ["--num_samples", "8", "--temperature", "1.0", "--batch_size", "4", "--output_dir"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, str(tmp_path / "cut")], env=environment, stderr=subprocess.PIPE)
    generations = tmp_path / "cut" / "generations.jsonl"
    while process.poll() is None and not (generations.exists() and generations.read_bytes().count(b"\n") >= 8):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "results.json").exists()
    generations.write_bytes(generations.read_bytes()[:-30])  # and the power failed, too

    for name in ("cut", "whole"):
        main([*command[2:], str(tmp_path / name)])
    assert (tmp_path / "cut/samples/svamp.jsonl").read_bytes() == (tmp_path / "whole/samples/svamp.jsonl").read_bytes()
    assert read_results(tmp_path / "cut")["tasks"] == read_results(tmp_path / "whole")["tasks"]


def test_more_items_and_samples_add_to_those_at_hand(base, paths, tmp_path, monkeypatch):
    evaluate(base, tmp_path / "a", "--limit", "3", *SAMPLED, paths=paths)
    evaluate(base, tmp_path / "a", *SAMPLED, paths=paths)
    evaluate(base, tmp_path / "b", *SAMPLED, paths=paths)
    assert read_samples(tmp_path / "a", "svamp") == read_samples(tmp_path / "b", "svamp")
    lines = (tmp_path / "a" / "generations.jsonl").read_text().splitlines()
    assert len(lines) == len((tmp_path / "b" / "generations.jsonl").read_text().splitlines())


def test_no_adapter_is_answered_from_anothers_samples(base, adapters, paths, tmp_path, monkeypatch):
    rows = count_rows(monkeypatch)
    seen = []
    for more in ([], ["--adapter_name_or_path", adapters[0]], ["--adapter_name_or_path", adapters[1]]):
        rows.clear()
        results = evaluate(base, tmp_path, *more, paths=paths)  # one folder for all
        assert sum(rows) == results["tasks"]["svamp"]["n"]
        seen.append([sample["completion"] for sample in read_samples(tmp_path, "svamp")])
    assert seen[0] != seen[1] != seen[2] != seen[0]
    rows.clear()
    evaluate(base, tmp_path, paths=paths)
    assert rows == [] and [sample["completion"] for sample in read_samples(tmp_path, "svamp")] == seen[0]
    evaluate(base, tmp_path, "--dtype", "bfloat16", paths=paths)
    assert sum(rows) > 0


def test_samples_are_graded_again_without_generating(base, paths, tmp_path, monkeypatch):
    assert evaluate(base, tmp_path, paths=paths)["tasks"]["svamp"]["value"] == 0.0
    rows = count_rows(monkeypatch)
    # The same questions, with another scorer.
    (tmp_path / "svamp.yaml").write_text(
        "version: 2\ndescription: d\ndataset: svamp\nreference: completion\nscorer: mine.py:score\n"
    )
    (tmp_path / "mine.py").write_text("def score(completion, item):\n    return True\n")
    task = str(tmp_path / "svamp.yaml")
    results = evaluate(base, tmp_path, tasks=task, paths={task: paths["svamp"]})
    assert results["tasks"]["svamp"] | {"value": 1.0, "version": 2} == results["tasks"]["svamp"]
    assert rows == []


def test_a_yaml_file_sets_what_flags_set_and_flags_win(base, paths, tmp_path):
    config = tmp_path / "eval.yaml"
    config.write_text(
        f"model_name_or_path: {base}\ntasks: [svamp]\noutput_dir: {tmp_path}/out\nlimit: 5\nmax_new_tokens: 4\n"
        f"device: cpu\ntemperature: 1e-1\ntask_paths:\n  svamp: {paths['svamp']}\n"
    )
    main(["--config", str(config), "--limit", "2"])
    results = read_results(tmp_path / "out")
    assert results["tasks"]["svamp"]["n"] == 2
    assert results["sampling"] | {"temperature": 0.1, "seed": 42} == results["sampling"]
    assert results["tasks"]["svamp"]["max_new_tokens"] == 4


def test_check_reads_the_tasks_and_loads_no_model(base, paths, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("schoolhouse.core.models.load_model", None)
    argv = ["--model_name_or_path", base, "--tasks", "svamp", "--task_paths", json.dumps({"svamp": paths["svamp"]})]
    main([*argv, "--limit", "3", "--output_dir", str(tmp_path / "out"), "--check"])
    assert capsys.readouterr().out == "svamp: 3 items\n"
    assert not (tmp_path / "out").exists()


# Errors


def fails(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        main(list(argv))
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--tasks", "svampp"], "unknown task 'svampp'; did you mean svamp?"),
        (["--limit", "0"], "--limit: must be at least 1, got 0"),
        (["--limit", "ten"], "--limit: expected an integer, got 'ten'"),
        (["--limit", "[1"], "--limit: '[1' is no YAML"),
        (["--temperature", "-1"], "--temperature: must be 0 or more, got -1"),
        (["--temperature", "nan"], "--temperature: expected a number, got 'nan'"),
        (["--top_p", "0"], "--top_p: must be above 0 and at most 1, got 0"),
        (["--num_samples", "4"], "num_samples is 4 at temperature 0"),
        (["--batch", "4"], "--batch: unknown flag; did you mean batch_size?"),
        (
            ["--dtype", "fp8"],
            "--dtype: 'fp8' is not a choice; choices: float32, bfloat16 or float16",
        ),
        (["--task_paths", "{gsm8k: x}"], "--task_paths.gsm8k: is not among the tasks (svamp)"),
        (["--task_paths", "{svamp: nowhere.jsonl}"], "--task_paths.svamp: nowhere.jsonl does not exist"),
        (["--task_paths", "svamp"], "--task_paths: expected a mapping, got 'svamp'"),
        (["--tasks", "heldout_bpb"], "has no data set of its own: --task_paths"),
        (["--model_name_or_path", "./nowhere"], "--model_name_or_path: './nowhere' does not exist, seen from "),
        (["--model_name_or_path", "outputs/nowhere"], "model folder outputs/nowhere does not exist"),
        (["--adapter_name_or_path", "outputs/nowhere"], "adapter outputs/nowhere has no adapter_config.json"),
        (["--adapter_name_or_path", "."], "adapter . has no adapter_config.json"),
        (["--max_new_tokens", "600"], "exceed the model's context of 512 tokens"),
        (["--config", "nowhere.yaml"], "nowhere.yaml:1: cannot be read: No such file or directory"),
        (["--compare", "x", "y"], "x holds no results.json"),
        (["--compare", "x"], "--compare: names 1 folders: give two, before and after"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line(base, paths, tmp_path, capsys, monkeypatch, flags, expected):
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    argv = ["--model_name_or_path", base, "--tasks", "svamp", "--output_dir", str(tmp_path / "out")]
    if "--tasks" not in flags and "--task_paths" not in flags:
        argv += ["--task_paths", json.dumps({"svamp": paths["svamp"]})]
    assert expected in fails(capsys, *argv, *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (
            "tasks: svamp\nmodel_name_or_pth: x\n",
            2,
            "model_name_or_pth: unknown key; did you mean model_name_or_path?",
        ),
        ("zzz: 1\n", 1, "zzz: unknown key; no known key is near; `--help all` lists all"),
        ("limit: 3\n\nlimit: 4\n", 3, "limit: duplicate key, first set on line 1"),
        ("# two\nlimit: 2.5\n", 2, "limit: expected an integer, got 2.5"),
        ("limit: true\n", 1, "expected an integer, got true"),
        ("temperature: warm\n", 1, "expected a number, got 'warm'"),
        ("tasks: 3\n", 1, "expected a list, got 3"),
        ("output_dir: [a]\n", 1, "expected text, got a list"),
        ("task_paths: {svamp: 3}\n", 1, "task_paths.svamp: expected text, got 3"),
        ("seed: null\n", 1, "expected an integer, got nothing"),
        ("tasks: !!python/object:os.system {}\n", 1, "no YAML tags"),
        ("- tasks\n", 1, "expected `key: value` lines, got a list"),
        ("", 1, "the file is empty"),
        ("tasks: svamp\n  limit: 3\n", 2, "YAML syntax: a stray indent"),
        ("? [a]\n: 1\n", 1, "keys must be text"),
    ],
)
def test_a_broken_config_names_file_and_line(tmp_path, capsys, text, line, expected):
    config = tmp_path / "broken.yaml"
    config.write_text(text)
    error = fails(capsys, "--config", str(config))
    assert f"{config}:{line}: " in error and expected in error


def test_the_script_needs_no_heavy_import_to_complain_or_help():
    code = f"import runpy, sys; sys.argv = ['run.py', '--help']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    program = (
        f"import atexit, sys; atexit.register(lambda: print(sorted({{'torch', 'scipy'}} & set(sys.modules)))); {code}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--num_samples" in done.stdout and done.stdout.endswith("[]\n")


# Comparisons


def save(folder, verdicts, forms=None, version=1, task="svamp", prompt="?", **hashes):
    """Results with the given verdicts (one list per item for several samples)."""
    lines = []
    for number, verdict in enumerate(verdicts):
        for index, correct in enumerate(verdict if isinstance(verdict, list) else [verdict]):
            line = {"id": f"q{number}", "index": index, "prompt": prompt, "reference": "7", "correct": correct}
            if forms:
                line["right_in_any_form"] = None if correct is None else correct or bool(forms[number])
            lines.append(line)
    document = {"schema": 1, "hashes": {"model": "m", "chat_template": "t"} | hashes, "sampling": {"seed": 1}}
    old = read_results(folder)["tasks"] if (folder / "results.json").exists() else {}
    tasks = old | {task: {"version": version, "n": len(verdicts), "metrics": {"format_ok": 0.5}}}
    write_json(folder / "results.json", document | {"tasks": tasks})
    write_json_lines(folder / "samples" / f"{task}.jsonl", lines)
    return folder


def test_a_gain_is_tested_and_its_form_share_told(tmp_path, capsys):
    # 12 won (of them 3 were right in form only), 2 lost, 6 right twice, 10 wrong twice.
    before = [False] * 12 + [True] * 2 + [True] * 6 + [False] * 10
    after = [True] * 12 + [False] * 2 + [True] * 6 + [False] * 10
    forms = [number < 3 or number > 25 for number in range(30)]
    a, b = save(tmp_path / "a", before, forms), save(tmp_path / "b", after, forms)
    task = compare_runs(a, b)["tasks"]["svamp"]
    assert task["method"] == "exact McNemar"
    assert (task["n"], task["gained"], task["lost"]) == (30, 12, 2)
    # 2 sum_{i<=2} C(14, i) / 2^14
    assert task["p_value"] == task["p_adjusted"] == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert task["verdict"] == "improved"
    assert task["form"] == {"gained": 12, "by_form": 3, "share": 0.25}

    main(["--compare", str(a), str(b), "--output_dir", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "of 12 items won 3 (25%) lacked only the form before" in printed and "improved" in printed
    saved = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert saved["tasks"]["svamp"]["verdict"] == "improved"


def test_no_evidence_names_the_smallest_detectable_effect(tmp_path, capsys):
    a = save(tmp_path / "a", [True] * 5 + [False] * 35)
    b = save(tmp_path / "b", [False] * 2 + [True] * 6 + [False] * 32)
    main(["--compare", str(a), str(b)])
    assert "no evidence of change, smallest detectable effect 0." in capsys.readouterr().out


def test_several_tasks_are_adjusted_by_holm(tmp_path):
    for task, gained in (("svamp", 7), ("gsm8k", 9), ("other", 6)):
        save(tmp_path / "a", [False] * 30, task=task)
        save(tmp_path / "b", [True] * gained + [False] * (30 - gained), task=task)
    tasks = compare_runs(tmp_path / "a", tmp_path / "b")["tasks"]
    expected = {"gsm8k": 3 * 2**-8, "svamp": 2 * 2**-6, "other": 2**-5}
    assert {name: task["p_adjusted"] for name, task in tasks.items()} == pytest.approx(expected)
    alone = compare_runs(save(tmp_path / "c", [False] * 30), save(tmp_path / "d", [True] * 7 + [False] * 23))
    # A family of three is held to a stricter level.
    effects = [x["tasks"]["svamp"]["smallest_detectable_effect"] for x in (alone, {"tasks": tasks})]
    assert effects[0] < effects[1]


def test_several_samples_are_compared_by_bootstrap(tmp_path):
    a = save(tmp_path / "a", [[True, False]] * 10 + [[False, False]] * 20, forms=[True] * 5 + [False] * 25)
    b = save(tmp_path / "b", [[True, True]] * 10 + [[False, True]] * 20, forms=[True] * 5 + [False] * 25)
    task = compare_runs(a, b)["tasks"]["svamp"]
    assert task["method"] == "paired bootstrap"
    assert (task["before"], task["after"]) == (pytest.approx(1 / 6), pytest.approx(2 / 3))
    assert task["verdict"] == "improved"
    # Five items had their missing half right in another form.
    assert task["form"] == {"gained": 15.0, "by_form": 2.5, "share": pytest.approx(1 / 6)}


def test_bits_per_byte_improve_downwards(tmp_path):
    for folder, factor in (("a", 2.0), ("b", 1.9)):
        save(tmp_path / folder, [True], task="heldout_bpb")
        lines = [
            {"id": str(n), "index": 0, "prompt": "x", "reference": "", "bits": n * factor + n % 3, "bytes": n}
            for n in range(1, 20)
        ]
        write_json_lines(tmp_path / folder / "samples" / "heldout_bpb.jsonl", lines)
    task = compare_runs(tmp_path / "a", tmp_path / "b")["tasks"]["heldout_bpb"]
    assert task["difference"] == pytest.approx(-0.1)
    assert (task["gained"], task["lost"], task["verdict"], task["form"]) == (19, 0, "improved", None)


def test_items_without_a_verdict_are_compared_as_wrong_and_counted(tmp_path, capsys):
    a = save(tmp_path / "a", [None, True, False, True])
    b = save(tmp_path / "b", [True, None, True, True])
    task = compare_runs(a, b)["tasks"]["svamp"]
    assert (task["n"], task["ungraded"], task["gained"], task["lost"]) == (4, 2, 2, 1)


def test_unlike_things_are_not_compared(tmp_path):
    a = save(tmp_path / "a", [True, False])
    with pytest.raises(ValueError, match="task svamp: 2 items before and 3 after, 'q2' on one side only"):
        compare_runs(a, save(tmp_path / "b", [True, False, True]))
    with pytest.raises(ValueError, match=r"task svamp has version 1 in .* and 2 in "):
        compare_runs(a, save(tmp_path / "c", [True, False], version=2))
    with pytest.raises(ValueError, match="item 'q0' has another prompt or reference"):
        compare_runs(a, save(tmp_path / "d", [True, False], prompt="??"))
    with pytest.raises(ValueError, match="no task in common"):
        compare_runs(a, save(tmp_path / "e", [True, False], task="gsm8k"))


def test_what_makes_a_comparison_unfair_is_noted(tmp_path):
    a = save(tmp_path / "a", [True, False])
    b = save(save(tmp_path / "b", [True, False], model="other"), [True], task="gsm8k", model="other")
    assert compare_runs(a, b)["notes"] == ["the base models differ", "only after: gsm8k"]


def test_a_task_without_forms_has_no_form_share():
    samples = [EvalSample(id="a", prompt="?", reference="7", correct=True)]
    assert compare.form_share(samples, samples) is None


def test_contaminated_items_are_told_apart_in_results_and_comparisons(base, adapters, paths, tmp_path, capsys):
    plain = evaluate(base, tmp_path / "a", paths=paths)
    asked = [line["prompt"][0]["content"] for line in read_samples(tmp_path / "a", "svamp")]
    train = tmp_path / "train.jsonl"
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in [*asked[:2], "Nobody asks this. How many?"]]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--adapter_name_or_path", adapters[0], "--trained_on", str(train)]
    known = evaluate(base, tmp_path / "b", *flags, paths=paths)
    n = len(asked)
    assert "uncontaminated" not in plain["tasks"]["svamp"]
    assert known["tasks"]["svamp"]["n"] == n and known["tasks"]["svamp"]["uncontaminated"]["n"] == n - 2
    seen = [line["prompt"][0]["content"] for line in read_samples(tmp_path / "b", "svamp") if line["contaminated"]]
    assert seen == asked[:2]
    assert compare_runs(tmp_path / "a", tmp_path / "b")["tasks"]["svamp"]["uncontaminated"]["n"] == n - 2
    main(["--compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert f"on the {n - 2} items that share nothing with the training data" in capsys.readouterr().out
