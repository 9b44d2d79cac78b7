"""The eval of reward models: calibration and length bias against closed forms, and `eval/run.py` on pairs."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy import stats
from scripts import exiting
from tiny_models import make_tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eval.run import main as script_main
from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.core.reward_models import load_scorer
from schoolhouse.evaluation.preference import Pair, describe_preferences, rate_pairs
from schoolhouse.evaluation.results import EvalSample
from schoolhouse.evaluation.statistics.preference import calibration, slope
from schoolhouse.evaluation.tasks import load_task


main = exiting(script_main)


def draw(n, sharpness=1.0, seed=0):
    """Score differences, and verdicts of people whose certainty is `sharpness` times the model's."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(size=n) * 2
    right = rng.random(n) < 1 / (1 + np.exp(-sharpness * np.abs(differences)))
    return differences, right


def test_calibration_error_by_hand():
    differences = np.log([1.5, 1.5, 4.0, 4.0])  # 60 % and 80 % sure
    found = calibration(differences, [True, False, True, True], bins=2)
    assert [(point.predicted, point.observed, point.n) for point in found.points] == [
        (pytest.approx(0.6), 0.5, 2),
        (pytest.approx(0.8), 1.0, 2),
    ]
    assert found.ece == pytest.approx((0.1 + 0.2) / 2)
    # The sign says which text, not how sure.
    assert calibration(-differences, [True, False, True, True], bins=2) == found
    with pytest.raises(ValueError, match="no pair"):
        calibration([], [])


def test_only_a_miscalibrated_model_errs_more_than_chance():
    honest, boastful, timid = (calibration(*draw(2000, sharpness)) for sharpness in (1.0, 0.4, 3.0))
    assert honest.ece < honest.ece_by_chance[1]
    for found, sign in ((boastful, -1), (timid, 1)):
        assert found.ece > 2 * found.ece_by_chance[1]
        assert sum(sign * (point.observed - point.predicted) * point.n for point in found.points) > 0


def test_the_slope_is_that_of_least_squares_and_its_interval_covers_the_truth():
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        lengths, quality = rng.normal(size=200), rng.normal(size=200)
        values = 0.3 * lengths + quality + 0.5 * rng.normal(size=200) + 1
        value, (low, high) = slope(values, lengths, resamples=400)
        assert value == pytest.approx(stats.linregress(lengths, values).slope)
        covered += low < 0.3 < high
    assert covered >= 34
    # Quality that goes with length is not length.
    lengths = quality + rng.normal(size=200)
    alone, (low, _) = slope(quality, lengths)
    held, (below, above) = slope(quality, lengths, [quality])
    assert alone > 0.3 and low > 0 and below <= held <= above and held == pytest.approx(0, abs=1e-9)


def test_items_of_one_source_widen_the_interval():
    rng = np.random.default_rng(1)
    lengths = np.repeat(rng.normal(size=20), 10)
    values = np.repeat(rng.normal(size=20), 10) + 0.01 * rng.normal(size=200)
    sources = np.repeat(np.arange(20), 10).tolist()
    (alone, clustered) = (np.diff(slope(values, lengths, clusters=by)[1])[0] for by in (None, sources))
    assert clustered > 2 * alone
    with pytest.raises(ValueError, match="does not vary"):
        slope([1, 2, 3], [4, 4, 4])


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    """A reward adapter with random tensors on a tiny base."""
    folder = tmp_path_factory.mktemp("reward")
    base = make_tiny_model(folder / "base")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.2)
    model.save_pretrained(folder / "adapter")
    ensure_chat_template(AutoTokenizer.from_pretrained(base)).save_pretrained(folder / "adapter")
    return folder


def pairs(texts):
    return [
        Pair([{"role": "user", "content": "Which?"}], *([{"role": "assistant", "content": text}] for text in both))
        for both in texts
    ]


def test_verdicts_follow_the_scores_and_a_tie_is_none(reward_model):
    scorer, tokenizer = load_scorer(str(reward_model / "adapter"))
    items = pairs([("apples", "pears are here"), ("pears are here", "apples"), ("same", "same"), ("a", "b b b b")])
    lines = rate_pairs(scorer, tokenizer, items, batch_size=3)
    assert [line["correct"] for line in lines[:3]] in ([True, False, None], [False, True, None])
    for line in lines:
        chosen, rejected = line["scores"]
        assert line["correct"] == (None if chosen == rejected else chosen > rejected)
        longer, shorter = line["lengths"]
        assert line["metrics"]["longer_is_chosen"] == (None if longer == shorter else longer > shorter)
        assert line["metrics"]["log_loss"] == pytest.approx(np.log1p(np.exp(rejected - chosen)))
    samples = [EvalSample(id=str(number), prompt="?", reference="", **line) for number, line in enumerate(lines)]
    found = describe_preferences(scorer, tokenizer, items, samples)
    assert found.batch_invariance < 1e-4
    assert sum(point.n for point in found.calibration.points) == 3
    low, high = found.length_bias.interval
    assert low <= high


def run(reward_model, tmp_path, *flags, tasks="tiny_preferences", adapter="adapter"):
    names = ["--model_name_or_path", str(reward_model / "base"), "--adapter_name_or_path", str(reward_model / adapter)]
    main([*names, "--tasks", tasks, "--output_dir", str(tmp_path), "--device", "cpu", *flags])
    return json.loads((tmp_path / "results.json").read_text())["tasks"]


def test_eval_run_puts_pairs_to_a_reward_model(reward_model, tmp_path, capsys):
    task = run(reward_model, tmp_path, "--limit", "60")["tiny_preferences"]
    lines = [json.loads(line) for line in (tmp_path / "samples/tiny_preferences.jsonl").read_text().splitlines()]
    right = [line["scores"][0] > line["scores"][1] for line in lines]
    assert task["value"] == pytest.approx(np.mean(right)) and task["n"] == 60
    assert task["interval"] == pytest.approx(list(stats.binomtest(sum(right), 60).proportion_ci(method="wilson")))
    assert sum(part["n"] for part in task["by_level"].values()) == 60
    assert {"calibration", "calibration_with_noisy_labels", "length_bias", "batch_invariance"} <= set(
        task["preference"]
    )
    # A reward model that is always right agrees with a careless annotator just as often as the annotator is right.
    assert 0.6 < task["metrics"]["ceiling_with_noisy_labels"] < 0.9
    told = capsys.readouterr().out
    assert "calibration error, noisy labels" in told and "ten more tokens change the score" in told


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ("tiny_preferences,tiny_facts", "evaluate them apart"),
        ("tiny_facts", "is an adapter for SEQ_CLS: name a language model"),
    ],
)
def test_a_reward_model_is_not_taken_for_a_language_model(reward_model, tmp_path, capsys, tasks, words):
    with pytest.raises(SystemExit) as stopped:
        run(reward_model, tmp_path, tasks=tasks)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


REAL = {
    "tulu_human_prefs": ("tulu_human_prefs", 58),
    "oasst_pairs": ("oasst_en100", 71),
    "rasbt_pairs": ("rasbt_instruct", 110),
}


@pytest.mark.parametrize("name", REAL)
def test_the_public_pairs_are_two_different_answers_to_one_question(shared, name):
    folder, rows = REAL[name]
    items = load_task(name).build(None, str(shared / "data" / folder))
    assert len(items) == rows
    for item in items:
        texts = [item.row[side][-1]["content"].strip() for side in ("chosen", "rejected")]
        assert all(texts) and texts[0] != texts[1]
        assert item.prompt[-1]["role"] == "user" and item.row["chosen"][0]["role"] == "assistant"
    clusters = {item.id if item.cluster is None else item.cluster for item in items}
    assert len(clusters) == len(items) if name == "rasbt_pairs" else 5 < len(clusters) < len(items)
