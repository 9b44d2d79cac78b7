"""Content of the charts, read back from the page and computed by hand from what was stored."""

import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_samples import sample, write_pipeline
from scipy.optimize import minimize
from scripts import exiting
from tiny_models import make_tiny_model

from eval.report import main as script_main
from schoolhouse.evaluation.statistics.preference import calibration
from schoolhouse.training.overoptimization import OveroptimizationArguments, OveroptimizationCallback


main = exiting(script_main)
ROOT = Path(__file__).parents[1]


class Charts(HTMLParser):
    """Caption -> what a reader with a ruler would read: series, marks, band and rules in the units of the axes."""

    def __init__(self, page):
        super().__init__()
        self.raw, self._kind, self._now = {}, None, None
        self.feed(page)
        self.figures = {caption: self._measure(**raw) for caption, raw in self.raw.items() if raw["lines"]}

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "figure":
            self._now = {"lines": {}, "marks": [], "band": None, "rules": [], "ticks": [], "names": []}
        if tag in ("figcaption", "text", "span"):
            self._kind, self._given, self._text = tag, given, ""
        styles = given.get("class", "").split()
        if tag == "polyline":
            points = [tuple(map(float, pair.split(","))) for pair in given["points"].split()]
            if styles[0] == "line":
                self._now["lines"][styles[1]] = points
            elif styles[0] == "mark":
                self._now["marks"].append((styles[1], points))
        if tag == "path" and styles in (["band"], ["rule"]):
            numbers = list(map(float, re.findall(r"-?[\d.]+", given["d"])))
            if styles == ["band"]:
                self._now["band"] = (numbers[0], numbers[0] + numbers[2])
            else:
                self._now["rules"].append(numbers[0])

    def handle_data(self, data):
        if self._kind:
            self._text += data

    def handle_endtag(self, tag):
        if tag == "figure":
            self.raw[self._now.pop("caption")] = self._now
            self._now = None
        if tag != self._kind:
            return
        if self._now is not None:
            if tag == "figcaption":
                self._now["caption"] = self._text
            elif tag == "span":
                self._now["names"].append(self._text.strip())
            elif re.fullmatch(r"-?[\d.e-]+", self._text):
                self._now["ticks"].append((self._given, float(self._text)))
        self._kind = None

    @staticmethod
    def _measure(lines, marks, band, rules, ticks, names):
        def scale(axis, anchor, offset):
            found = [(float(at[axis]) - offset, value) for at, value in ticks if at["text-anchor"] == anchor]
            slope, start = np.polyfit(*zip(*found, strict=True), 1)
            return lambda place: slope * place + start

        across, down = scale("x", "middle", 0), scale("y", "end", 4)  # the foot of a figure is below its line
        read = {style: [(across(x), down(y)) for x, y in points] for style, points in lines.items()}
        return {
            "series": dict(zip(names or [""], read.values(), strict=True)),
            "marks": [style for style, _ in marks],
            "band": band and tuple(map(across, band)),
            "rules": [across(place) for place in rules],
        }


def render(folder):
    main(["--pipeline", str(folder / "pipeline.json"), "--output_dir", str(folder / "out")])
    return re.sub("</?abbr[^>]*>", "", (folder / "out/report.html").read_text())


def near(points, expected, across, down):
    assert len(points) == len(expected)
    for (x, y), (a, b) in zip(points, expected, strict=True):
        assert abs(x - a) < across and abs(y - b) < down, ((x, y), (a, b))


class Drawing(HTMLParser):
    """Reads SVG pictures with a ruler: what is at which x, by the labels of the ticks."""

    def __init__(self, text):
        super().__init__()
        self.spots, self.whiskers, self.edges, self.lit, self.texts = [], [], [], [], []
        self._text = None
        self.feed(text)
        ticks = [(float(at["x"]), float(words)) for at, words in self.texts if at.get("text-anchor") == "middle"]
        slope, start = np.polyfit(*zip(*ticks, strict=True), 1)
        self.read, self.is_reversed = (lambda place: slope * place + start), slope < 0

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        kind = given.get("class", "").split()
        numbers = list(map(float, re.findall(r"-?[\d.]+", given.get("d", ""))))
        if tag == "circle":
            self.spots.append((float(given["cx"]), float(given["cy"]), kind[1]))
        elif tag == "text":
            self._text = given
        elif kind[:1] == ["whisker"]:
            self.whiskers.append((numbers[0], numbers[2]))
        elif kind[:1] == ["edge"]:
            self.edges.append((numbers, kind[1]))
        elif kind[:1] == ["lit"]:
            self.lit.append((numbers[1] + 12, kind[1]))

    def handle_data(self, data):
        if self._text and data.strip():
            self.texts.append((self._text, data.strip()))
            self._text = None


def bits(mean, n=60):
    rng = random.Random(int(mean * 100))
    documents = [{"id": f"doc-{i}", "index": 0, "prompt": "", "reference": "", "bytes": 90} for i in range(n)]
    return [document | {"bits": mean * 90 + rng.gauss(0, 1)} for document in documents]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """base -> sft -> grpo, ppo: sums better, better, not clear; bits worse, better, not clear."""
    folder = tmp_path_factory.mktemp("tree")
    right = {"base": 20, "sft": 50, "grpo": 80, "ppo": 51}
    mean = {"base": 0.3, "sft": 0.6, "grpo": 0.45, "ppo": 0.6}
    parents = {"base": None, "sft": "base", "grpo": "sft", "ppo": "sft"}
    tasks = {
        name: {"sums": [sample(i, i < right[name]) for i in range(100)], "texts": bits(mean[name])}
        | ({"plays": [sample(i, i < 9) for i in range(10)]} if name == "base" else {})
        for name in parents
    }
    write_pipeline(folder, {name: (parent, tasks[name]) for name, parent in parents.items()})
    return folder, render(folder)


def test_the_picture_shows_every_stages_value_and_interval_and_marks_what_changed_it(tree):
    folder, page = tree
    found = re.findall(r"<figure><figcaption>(\w+) <small>(.*?)</small></figcaption>(.*?)</figure>", page, re.DOTALL)
    assert [figure[:2] for figure in found] == [
        ("sums", "accuracy, 100 items"),
        ("plays", "accuracy, 10 items"),
        ("texts", "bits per byte, 60 items"),
    ]
    drawings = {task: Drawing(svg) for task, _, svg in found}
    kinds = {"sums": ["start", "improved", "improved", "none"], "texts": ["start", "worse", "improved", "none"]}
    for task, drawing in drawings.items():
        stages = ["base"] if task == "plays" else ["base", "sft", "grpo", "ppo"]
        names = [words for at, words in drawing.texts if "text-anchor" not in at]
        assert names == stages
        wanted = [json.loads((folder / s / "eval/results.json").read_text())["tasks"][task] for s in stages]
        for (x, _, _), ends, result in zip(drawing.spots, drawing.whiskers, wanted, strict=True):
            assert drawing.read(x) == pytest.approx(result["value"], abs=0.004)
            assert sorted(map(drawing.read, ends)) == pytest.approx(result["interval"], abs=0.004)
        assert drawing.is_reversed == (task == "texts") and "better →" in [words for _, words in drawing.texts]
        if task != "plays":
            assert [kind for *_, kind in drawing.spots] == kinds[task]
            assert drawing.lit == [(y, kind) for _, y, kind in drawing.spots if kind in ("improved", "worse")]
            places = [(x, y) for x, y, _ in drawing.spots]
            lines = [[*places[parent], *places[child]] for parent, child in ((0, 1), (1, 2), (1, 3))]
            assert [numbers for numbers, _ in drawing.edges] == lines
            assert [kind for _, kind in drawing.edges] == kinds[task][1:]
    assert drawings["sums"].read(50) == pytest.approx(drawings["plays"].read(50))  # one axis per metric


def test_changes_are_in_large_print_on_one_axis_per_metric_and_better_is_to_the_right(tree):
    section = tree[1].split('<section id="changes">')[1].split("</section>")[0]
    before, folded = section.split("<details>")
    assert re.findall("<strong>(. .*?)</strong>", before) == [
        "▼ sft, texts: worse",
        "▲ grpo, texts: improved",
        "▲ sft, sums: improved",
        "▲ grpo, sums: improved",
    ]
    assert folded.startswith("<summary>2 without evidence of change</summary>")
    assert all("no evidence of change" in words for words in re.findall("<strong>(= .*?)</strong>", folded))
    for part in (before, folded):
        for metric, rows in re.findall(r"<h3>([\w ]+).*?</h3>\s*<ul class=\"changes\">(.*?)</ul>", part, re.DOTALL):
            drawing = Drawing(rows)
            big = re.findall(r'class="big"><b>([-+.\d]+)</b> \[([-+.\d]+), ([-+.\d]+)\]</p>', rows)
            assert len(big) == len(drawing.spots) and drawing.is_reversed == (metric == "bits per byte")
            for (x, _, kind), ends, numbers in zip(drawing.spots, drawing.whiskers, big, strict=True):
                value, *interval = map(float, numbers)
                assert drawing.read(x) == pytest.approx(value, abs=0.004)
                assert sorted(map(drawing.read, ends)) == pytest.approx(interval, abs=0.004)
                zero = next(place for place in range(320) if (drawing.read(place) > 0) != drawing.is_reversed)
                assert kind == "none" or (x > zero) == (kind == "improved")


def test_win_rates_are_those_of_all_pairs_of_stored_answers(tmp_path):
    rng = random.Random(3)
    sides = {
        name: [
            sample(
                i,
                rng.random() < 0.5,
                index=k,
                tokens=rng.randint(5, 20) + shift,
                metrics={"utility": rng.gauss(shift / 4, 2)},
            )
            for i in range(16)
            for k in range(3)
        ]
        for name, shift in (("sft", 0), ("ppo", 4))
    }
    write_pipeline(tmp_path, {"sft": (None, {"talks": sides["sft"]}), "ppo": ("sft", {"talks": sides["ppo"]})})
    page = render(tmp_path)
    stored = {}
    for name in sides:
        for line in map(json.loads, (tmp_path / name / "eval/samples/talks.jsonl").read_text().splitlines()):
            stored.setdefault((name, line["id"]), []).append((line["metrics"]["utility"], line["tokens"]))
    items = sorted({item for _, item in stored})
    wins, differences = [], []
    for item in items:
        for (old, short), (new, long) in itertools.product(stored["sft", item], stored["ppo", item]):
            wins.append(1.0 if new > old else 0.5 if new == old else 0.0)
            differences.append(long - short)
    rate = sum(wins) / len(wins)  # each item has as many pairs
    won, length = np.array(wins), np.array(differences) / np.std(differences)

    def loss(c):
        logits = c[0] + c[1] * length
        return (np.logaddexp(0, logits) - won * logits).sum() / 9 + (c**2).sum() / 50

    fair = 1 / (1 + math.exp(-minimize(loss, np.zeros(2)).x[0]))
    shown = dict(re.findall(r"<b>(\d+%)</b>[^<]*</p><div><strong>ppo against sft, talks, ([\w ]+)<", page))
    assert {pairs: share for share, pairs in shown.items()} == {
        "all pairs": f"{rate:.0%}",
        "at equal length": f"{fair:.0%}",
    }
    assert abs(rate - fair) > 0.02  # the longer answers won


def test_calibration_is_drawn_by_the_truth_and_by_noisy_labels(tmp_path):
    rng = random.Random(5)
    lines = []
    for i in range(200):
        difference = rng.gauss(0.3, 1.5)
        label_is_right = rng.random() < 0.7
        metrics = {"agrees_with_noisy_label": float((difference > 0) == label_is_right)}
        metrics |= {"ceiling_with_noisy_labels": label_is_right, "members_agree": abs(difference) > 0.4}
        bare = {"id": f"p{i}", "index": 0, "prompt": "q", "reference": "", "correct": difference > 0}
        lines.append(bare | {"scores": [difference, 0.0], "lengths": [3, 4], "metrics": metrics})
    write_pipeline(tmp_path, {"base": (None, {}), "reward": ("base", {"pairs": lines})})
    stored = [json.loads(x) for x in (tmp_path / "reward/eval/samples/pairs.jsonl").read_text().splitlines()]
    differences = [line["scores"][0] - line["scores"][1] for line in stored]
    path = tmp_path / "reward/eval/results.json"
    results = json.loads(path.read_text())
    agrees = [line["metrics"]["agrees_with_noisy_label"] == 1 for line in stored]
    results["tasks"]["pairs"]["preference"] = {
        "calibration": asdict(calibration(differences, [d > 0 for d in differences])),
        "calibration_with_noisy_labels": asdict(calibration(differences, agrees)),
    }
    path.write_text(json.dumps(results))
    page = render(tmp_path)
    figure = Charts(page).figures["reward, pairs: calibration"]
    order = sorted(range(200), key=lambda i: abs(differences[i]))
    for name, verdicts in (("true preferences", [d > 0 for d in differences]), ("noisy labels", agrees)):
        expected, errors = [], []
        for part in (order[start : start + 20] for start in range(0, 200, 20)):
            certainty = sum(1 / (1 + math.exp(-abs(differences[i]))) for i in part) / 20
            share = sum(verdicts[i] for i in part) / 20
            expected.append((certainty, share))
            errors.append(abs(certainty - share))
        near(figure["series"][name], expected, 0.002, 0.004)
        words = "" if name == "true preferences" else ", noisy labels"
        assert f">expected calibration error{words}</th><td>{sum(errors) / 10:.3f}; by chance" in page
    assert len(figure["marks"]) == 20
    for what, key in (
        ("agreement with the noisy labels", "agrees_with_noisy_label"),
        ("pairs on which all members agree", "members_agree"),
        ("agreement of the true preferences with them, the ceiling", "ceiling_with_noisy_labels"),
    ):
        assert f">{what}</th><td>{sum(line['metrics'][key] for line in stored) / 200:.3f}<" in page


def test_the_over_optimization_chart_shows_the_trainers_log(tmp_path):
    write_pipeline(tmp_path, {"base": (None, {}), "ppo": ("base", {})})
    callback = OveroptimizationCallback(tmp_path / "ppo", OveroptimizationArguments(gold_reward="gold"))
    log = [
        {
            "step": s,
            "objective/kl": 0.4 * s,
            "reward": s / 10,
            "rewards/gold/mean": 1 - (s - 6) ** 2 / 40 + 0.02 * (s % 3),
        }
        | {"completions/mean_length": 10.0 + s, "reward_model/spread": 0.1 + 0.01 * s}
        for s in range(1, 15)
    ]
    (tmp_path / "ppo/log.json").write_text(json.dumps([*log, {"step": 14, "train_runtime": 1.0}]))
    points = [point for entry in log if (point := callback.point(entry))]
    callback.stopped = {"by": "gold_patience", "step": 14}
    callback._write(points, points)
    page = render(tmp_path)
    figures = Charts(page).figures
    figure = figures["ppo: gold reward and optimized reward"]
    for name, key in (("gold reward", "rewards/gold/mean"), ("reward that is optimized", "reward")):
        near(figure["series"][name], [(x["objective/kl"] ** 0.5, x[key]) for x in log], 0.02, 0.01)
    near(
        figures["ppo: disagreement of the ensemble"]["series"][""],
        [(x["step"], x["reward_model/spread"]) for x in log],
        0.1,
        0.002,
    )
    peak = json.loads((tmp_path / "ppo/overoptimization.json").read_text())["peak"]
    assert figure["rules"] == pytest.approx([peak["kl"] ** 0.5, (14 * 0.4) ** 0.5], abs=0.02)
    assert figure["band"] == pytest.approx([end**0.5 for end in peak["interval"]], abs=0.05)
    assert (
        abs(peak["step"] - 6) <= 2 and f"the gold reward is highest at step {peak['step']}, {peak['gold']:.3f}" in page
    )
    assert "stopped at step 14 by gold_patience" in page


def test_levels_and_pass_at_k_follow_from_the_stored_samples(tmp_path):
    rng = random.Random(2)
    lines = [sample(i, rng.random() < 0.2 + 0.2 * (i % 3), level=i % 3, index=k) for i in range(30) for k in range(4)]
    write_pipeline(tmp_path, {"base": (None, {"sums": lines})})
    page = render(tmp_path)
    stored = {}
    for line in map(json.loads, (tmp_path / "base/eval/samples/sums.jsonl").read_text().splitlines()):
        stored.setdefault((line["level"], line["id"]), []).append(line["correct"])
    cells = re.findall(r'class="heat h(\d)">([\d.]+)<', page)
    assert len(cells) == 3
    for level, (shade, shown) in enumerate(cells):
        shares = [sum(given) / 4 for (at, _), given in stored.items() if at == level]
        assert shown == f"{sum(shares) / len(shares):.2f}" and int(shade) == int(sum(shares) / len(shares) * 10)
    expected = []
    for k in (1, 2, 4):
        chosen = [any(subset) for given in stored.values() for subset in itertools.combinations(given, k)]
        expected.append((k, sum(chosen) / len(chosen)))
    near(Charts(page).figures["sums: pass@k"]["series"][""], expected, 0.05, 0.005)


def test_a_real_runs_log_outlives_its_checkpoints_and_is_what_the_curve_shows(tmp_path):
    base = make_tiny_model(tmp_path / "base-model")
    write_pipeline(tmp_path, {"base": (None, {}), "sft": ("base", {})})
    command = [sys.executable, ROOT / "recipes/sft.py", "--model_name_or_path", base, "--dataset_name", "tiny/sft"]
    command += ["--output_dir", tmp_path / "sft", "--max_steps", 6, "--save_steps", 4, "--logging_steps", 2]
    command += ["--max_train_rows", 64, "--use_cpu", "--bf16", "false", "--report_to", "none", "--lora_r", 4]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environment)
    log = json.loads((tmp_path / "sft/log.json").read_text())
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    assert [step for step, _ in losses] == [2, 4, 6] and "train_runtime" in log[-1]
    state = json.loads((tmp_path / "sft/checkpoints/checkpoint-6/trainer_state.json").read_text())
    assert log[: len(state["log_history"])] == state["log_history"]
    shutil.rmtree(tmp_path / "sft/checkpoints")
    figure = Charts(render(tmp_path)).figures["sft: loss"]
    ys = [loss for _, loss in losses]
    near(figure["series"][""], losses, 0.05, 0.02 * (max(ys) - min(ys)) + 1e-3)
