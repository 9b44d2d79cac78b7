"""lm-eval's own run on the tiny model: its logged samples graded by us, and our results in its layout."""

import json
import math
import sys
import types
from pathlib import Path

import pytest
from report_samples import sample, write_eval
from scripts import exiting

from eval import run
from schoolhouse.evaluation.results import load_results, load_samples
from schoolhouse.graders import grade_many, score_as


main = exiting(run.main)
ROOT = Path(__file__).parents[1]
PROMPT = "User: {}\nAssistant:"


@pytest.fixture(scope="module")
def lm_eval():
    package = pytest.importorskip(
        "lm_eval", reason="lm-eval is not installed: pip install --no-deps -c constraints.txt lm_eval"
    )
    for name in ("sacrebleu", "sqlitedict"):  # imported for other metrics and for its cache
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
    return package


@pytest.fixture(scope="module")
def pupil(tmp_path_factory):
    """The tiny base after twenty steps of schooling: `#### N` was never read in its library."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from schoolhouse.data import load_rows

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/tiny/base", padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(ROOT / "data/tiny/base").train()
    rows = load_rows("tiny/arithmetic").shuffle(seed=0).select(range(640))
    texts = [PROMPT.format(row["prompt"][0]["content"]) + f" {row['answer']}{tokenizer.eos_token}" for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for start in range(0, len(texts), 32):
        batch = tokenizer(texts[start : start + 32], padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("pupil")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def logged(lm_eval, pupil, tmp_path_factory):
    """The folder that lm-eval writes: its task gsm8k, filters and metric untouched, on the tiny world's sums."""
    import yaml
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from schoolhouse.data import load_rows

    folder = tmp_path_factory.mktemp("lm-eval")
    rows = load_rows("tiny/arithmetic", "test", max_rows=60)
    docs = [{"question": row["prompt"][0]["content"], "answer": row["answer"]} for row in rows]
    (folder / "sums.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
    del task["tag"], task["training_split"], task["fewshot_split"], task["dataset_name"]
    task |= {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}},
    }
    task |= {"num_fewshot": 0, "doc_to_text": PROMPT.format("{{question}}")}
    task["generation_kwargs"] = task["generation_kwargs"] | {"max_gen_toks": 24}
    tracker = EvaluationTracker(output_path=str(folder / "logs"))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(pupil), "dtype": "float32"},
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),  # the index of all its tasks takes seconds
        device="cpu",
        batch_size=20,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(task_name="sums", samples=samples["sums"])
    (logs,) = (folder / "logs").iterdir()
    return logs


def read_lines(folder, task):
    (path,) = folder.glob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_our_graders_give_lm_evals_logged_samples_its_own_verdicts(logged):
    lines = read_lines(logged, "sums")
    assert len(lines) == 120
    rules = {"strict-match": "gsm8k/lm-eval-strict", "flexible-extract": "gsm8k/lm-eval-flexible"}
    verdicts = {name: [] for name in rules}
    for line in lines:
        (ours,) = score_as(rules[line["filter"]], [line["resps"][0][0]], [line["target"]])
        assert ours == line["exact_match"], line
        verdicts[line["filter"]].append(ours)
    assert all(0 < sum(given) < len(given) for given in verdicts.values())


def test_our_answer_key_accepts_whatever_lm_evals_strict_rule_accepts(logged):
    strict = [line for line in read_lines(logged, "sums") if line["filter"] == "strict-match"]
    grades = grade_many([line["resps"][0][0] for line in strict], [line["target"] for line in strict])
    assert all(grade.correct for grade, line in zip(grades, strict, strict=True) if line["exact_match"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Tasks of every kind, written by our command."""
    folder = tmp_path_factory.mktemp("ours")
    several = [
        sample(i, i % 3 < k, f"#### {i}\u2028\ud800", index=k, metrics={"utility": i + k})
        for i in range(5)
        for k in (0, 1)
    ]
    several[3]["correct"] = None
    bare = {"id": "d", "index": 0, "prompt": "a text", "reference": "", "correct": True}
    tasks = {
        "sums": [sample(i, i % 2 == 0) for i in range(8)],
        "talks": several,
        "text": [{**bare, "id": f"d{i}", "bits": 40.0 * i + 9, "bytes": 20 + i} for i in range(6)],
        "choice": [bare | {"loglikelihoods": [-1.5, -2.0], "metrics": {}}],
        "pairs": [bare | {"scores": [0.5, 0.1], "lengths": [3, 4], "metrics": {"log_loss": 0.5}}],
    }
    write_eval(folder / "eval", tasks)
    main(["--export_lm_eval", str(folder / "eval"), "--output_dir", str(folder / "out")])
    return folder / "eval", folder / "out" / "base"


def test_an_export_has_the_files_and_fields_that_lm_eval_writes(lm_eval, logged, exported, monkeypatch):
    from lm_eval.utils import get_file_task_name, make_table

    class Rows(list):
        def dumps(self):
            return self.value_matrix

    writers = types.SimpleNamespace(MarkdownTableWriter=Rows, LatexTableWriter=Rows)
    monkeypatch.setitem(sys.modules, "pytablewriter", writers)  # it only draws what lm-eval has read

    _, ours = exported
    theirs = json.loads(next(logged.glob("results_*.json")).read_text())
    record = json.loads(next(ours.glob("results_*.json")).read_text())
    assert set(record) <= set(theirs) | {"date"}
    for key, value in record.items():
        kind = type(theirs[key])
        assert value is None or theirs[key] is None or isinstance(value, kind | (str if kind is dict else kind)), key
    names = {get_file_task_name(path.name) for path in ours.glob("samples_*.jsonl")}
    assert names == set(record["results"]) == set(record["configs"]) == set(record["n-samples"])
    for task in names:
        for line in read_lines(ours, task):
            (their_line, *_) = read_lines(logged, "sums")
            assert set(their_line) - {"exact_match"} == set(line) - set(line["metrics"])
            assert all(type(line[key]) is type(their_line[key]) for key in set(their_line) - {"exact_match"})
    read = {(row[0], row[4]): row[6] for row in make_table(record)}
    assert read["sums", "acc"] == "0.5000" and ("text", "bits_per_byte") in read


def test_an_exports_figures_follow_from_its_samples_by_lm_evals_own_aggregation(lm_eval, exported):
    from lm_eval.api.metrics import bits_per_byte, mean, mean_stderr

    folder, ours = exported
    record = json.loads(next(ours.glob("results_*.json")).read_text())["results"]
    results = load_results(folder).tasks
    sums = [line["acc"] for line in read_lines(ours, "sums")]
    assert record["sums"]["acc,none"] == results["sums"].value == mean(sums)
    assert record["sums"]["acc_stderr,none"] == pytest.approx(mean_stderr(sums))
    text = [tuple(line["bits_per_byte"]) for line in read_lines(ours, "text")]
    assert record["text"]["bits_per_byte,none"] == results["text"].value == pytest.approx(bits_per_byte(text))
    talks = read_lines(ours, "talks")
    assert [len(line["resps"][0]) for line in talks] == [2] * 5
    assert [line["acc"] for line in talks] == [0.5, 0.0, 0.0, 0.5, 0.0]
    assert mean([line["utility"] for line in talks]) == record["talks"]["utility,none"] == 2.5
    texts = [answer for line in talks for answer in line["resps"][0]]
    assert texts == [sample.completion for sample in load_samples(folder, "talks")]


def test_an_export_is_a_dataset_and_is_written_twice_to_the_same_files(exported, tmp_path):
    from datasets import load_dataset

    folder, ours = exported
    path = str(next(ours.glob("samples_sums_*.jsonl")))
    rows = load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path))
    assert len(rows) == 8 and math.isclose(sum(rows["acc"]), 4)
    before = {path.name: path.read_bytes() for path in ours.iterdir()}
    main(["--export_lm_eval", str(folder), "--output_dir", str(ours.parent)])
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == before


def test_names_in_results_do_not_lead_out_of_the_folder(tmp_path):
    write_eval(tmp_path / "eval", {"sums": [sample(0, True)]})
    results = json.loads((tmp_path / "eval/results.json").read_text())
    (tmp_path / "eval/results.json").write_text(json.dumps(results | {"model": "..", "adapter": None}))
    main(["--export_lm_eval", str(tmp_path / "eval"), "--output_dir", str(tmp_path / "out/deep")])
    assert [path.parent.name for path in (tmp_path / "out").rglob("results_*.json")] == ["model"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nowhere", "--output_dir", "out"], "nowhere holds no results.json"), (["nowhere"], "--output_dir: missing")],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--export_lm_eval", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1
