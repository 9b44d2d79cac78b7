"""results.json and its samples: values, intervals and means against closed forms, and damaged files."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from schoolhouse.core.files import write_json, write_json_lines
from schoolhouse.evaluation.results import (
    EvalSample,
    Hashes,
    SamplingSettings,
    build_results,
    load_results,
    load_samples,
)
from schoolhouse.evaluation.summary import summarise


TASK = SimpleNamespace(version=3, higher_is_better=True)


def make_line(name, correct, index=0, **more):
    given = {"completion": "7", "tokens": 4, "finish_reason": "stop", "metrics": {}} | more
    return EvalSample(id=name, index=index, prompt="?", reference="7", correct=correct, **given)


def summary_of(samples, task=TASK):
    return summarise(task, samples).to_json()


def test_a_summary_counts_and_averages():
    lines = [
        make_line("a", True, level=2, format_ok=True, metrics={"other": True, "parts": [True, False, False]}),
        make_line("b", False, level=2, format_ok=False, tokens=8, finish_reason="length", metrics={"other": False}),
        make_line("c", None, level=10, format_ok=False, metrics={"other": None, "parts": [True], "note": "text"}),
        make_line("d", True, level=10, format_ok=True, metrics={"other": True}),
    ]
    summary = summary_of(lines)
    assert (summary["version"], summary["items"], summary["n"]) == (3, 4, 4)
    assert summary["value"] == pytest.approx(2 / 4)  # "c" has no verdict
    assert summary["standard_error"] == pytest.approx(np.std([1, 0, 0, 1], ddof=1) / math.sqrt(4))
    assert summary["interval"] == pytest.approx([0.1500, 0.8500], abs=1e-4)  # Wilson 2/4, from his formula
    assert summary["metrics"] == {
        "format_ok": 0.5,
        "truncated": 0.25,
        "mean_tokens": 5.0,
        "ungraded": 1,
        "other": pytest.approx(2 / 3),
        "parts": 0.5,
    }
    assert {level: (part["n"], part["value"]) for level, part in summary["by_level"].items()} == {
        "2": (2, 0.5),
        "10": (2, 0.5),
    }
    assert list(summary["by_level"]) == ["2", "10"]


def test_what_has_no_verdict_counts_as_wrong_and_is_counted():
    summary = summary_of([make_line("a", True), *(make_line(name, None) for name in "bcd")])
    assert (summary["n"], summary["value"], summary["metrics"]["ungraded"]) == (4, 0.25, 3)
    alone = summary_of([make_line("a", None)])
    assert (alone["n"], alone["value"]) == (1, 0)
    # Of the two samples of "a" one has no verdict, of "b" none has one.
    samples = [make_line("a", True, 0), make_line("a", None, 1), make_line("b", None, 0), make_line("b", None, 1)]
    several = summary_of([sample.model_copy(update={"extracted": "7"}) for sample in samples])
    assert (several["n"], several["value"], several["metrics"]["ungraded"]) == (2, 0.25, 3)
    assert (several["metrics"]["pass@1"], several["metrics"]["pass@2"]) == (0.25, 0.5)


def test_several_samples_give_pass_and_majority_at_k():
    rights = {"a": [1, 0, 0, 0], "b": [1, 1, 0, 1], "c": [0, 0, 0, 0]}
    lines = [
        make_line(name, bool(right), index, extracted="7" if right else str(index % 2))
        for name, group in rights.items()
        for index, right in enumerate(group)
    ]
    summary = summary_of(lines)
    assert summary["value"] == summary["metrics"]["pass@1"] == pytest.approx((0.25 + 0.75) / 3)
    # Of the six pairs of samples of "a" three hold its one right answer, of "b" all.
    assert summary["metrics"]["pass@2"] == pytest.approx((0.5 + 1) / 3)
    assert summary["metrics"]["pass@4"] == pytest.approx(2 / 3)
    # Four voters: in "a" two of them say 1, in "b" three say 7, in "c" nobody is right.
    assert summary["metrics"]["maj@4"] == pytest.approx(1 / 3)
    assert summary["standard_error"] == pytest.approx(np.std([0.25, 0.75, 0], ddof=1) / math.sqrt(3))
    low, high = summary["interval"]
    assert low < summary["value"] < high


def test_items_of_one_source_widen_the_error():
    rights = [True] * 6 + [False] * 6
    alone = summary_of([make_line(str(i), right) for i, right in enumerate(rights)])
    shared = [make_line(str(i), right, cluster=f"passage {i // 3}") for i, right in enumerate(rights)]
    assert summary_of(shared)["standard_error"] > 1.5 * alone["standard_error"]


def test_bits_per_byte_are_those_of_the_corpus():
    sizes = [(9, 3), (2, 4), (40, 20)]
    lines = [EvalSample(id=str(i), prompt="", reference="", bits=b, bytes=size) for i, (b, size) in enumerate(sizes)]
    summary = summary_of(lines, SimpleNamespace(version=1, higher_is_better=False))
    assert summary["value"] == pytest.approx(51 / 27)
    assert not summary["higher_is_better"]
    # The ratio estimator's textbook variance: residuals y - R x, over the mean of x.
    residuals = np.array([9, 2, 40]) - 51 / 27 * np.array([3, 4, 20])
    assert summary["standard_error"] == pytest.approx(math.sqrt(np.sum(residuals**2) / (3 * 2)) / 9)


def test_results_hold_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_environmentsecret")
    monkeypatch.setenv("HOME", str(tmp_path))
    command = f"python eval/run.py --model_name_or_path https://me:pw@host/m --x hf_AbCdEfGhIj {tmp_path}/models/m"
    name, hashes = f"{tmp_path}/models/m", Hashes(model="1", adapter=None, chat_template=None)
    document = build_results(name, None, hashes, command, SamplingSettings(), {}).to_json()
    text = json.dumps(document)
    assert not any(secret in text for secret in ("environmentsecret", "me:pw", "AbCdEfGhIj", str(tmp_path)))
    assert document["model"] == "~/models/m"
    assert document["versions"]["torch"] == torch.__version__


RESULTS = {
    "schema": 2,
    "hashes": {"model": "m"},
    "sampling": {"seed": 1},
    "tasks": {"svamp": {"version": 1, "n": 2, "value": 0.5, "standard_error": None, "interval": [0.1, 0.9]}},
}
SAMPLE = {"id": "a", "index": 0, "prompt": "?", "reference": "7", "correct": True}


def test_results_of_the_first_schema_are_read_by_their_new_names(tmp_path):
    tasks = {"svamp": RESULTS["tasks"]["svamp"] | {"clean": {"n": 1}}}
    write_json(tmp_path / "results.json", RESULTS | {"schema": 1, "tasks": tasks})
    old = {"id": "a", "index": 0, "prompt": "?", "gold": "7", "correct": True, "seen": True}
    write_json_lines(tmp_path / "samples" / "svamp.jsonl", [old])
    assert load_results(tmp_path).to_json()["tasks"]["svamp"]["uncontaminated"] == {"n": 1}
    assert load_samples(tmp_path, "svamp")[0].to_json() == SAMPLE | {"contaminated": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a result of schema 2: evaluate again"),
        (json.dumps(RESULTS | {"schema": 3}), "is not a result of schema 2: evaluate again"),
        (json.dumps(RESULTS | {"hashes": {}}), "is damaged: hashes.model: Field required; evaluate again"),
        (json.dumps(RESULTS | {"tasks": {"svamp": {"version": 1, "n": "?"}}}), "is damaged: tasks.svamp.n: "),
        (json.dumps(RESULTS).replace("0.5", "NaN"), "NaN is no JSON number"),
        (json.dumps(RESULTS).replace("0.5", "1e999"), "tasks.svamp.value: Input should be a finite number"),
    ],
)
def test_damaged_results_are_named_in_one_line(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_results(tmp_path)
    assert str(tmp_path / "results.json") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not valid JSON"),
        (json.dumps(SAMPLE | {"id": 3}), "is damaged: id: "),
        (json.dumps(SAMPLE | {"correct": "perhaps"}), "is damaged: correct: "),
        (json.dumps(SAMPLE | {"metrics": {"utility": {}}}), "is damaged: metrics.utility"),
    ],
)
def test_a_damaged_sample_is_named_with_its_line(tmp_path, line, message):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/svamp.jsonl").write_text(f"{json.dumps(SAMPLE)}\n{line}\n")
    with pytest.raises(ValueError, match=f"svamp.jsonl:2 {message}"):
        load_samples(tmp_path, "svamp")
