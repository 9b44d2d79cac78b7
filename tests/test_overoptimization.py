"""Over-optimization: turning points and win rates against closed forms, and the callback on a simulated log."""

import importlib
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny_models import make_tiny_model, make_tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerControl, TrainerState

from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.core.models import adapter_hash
from schoolhouse.data.tiny.conversations import describe, gold_utility, subjects
from schoolhouse.evaluation.compare import win_rate_by_utility
from schoolhouse.evaluation.results import EvalSample
from schoolhouse.evaluation.statistics.overoptimization import summarise_run, turning_point
from schoolhouse.evaluation.statistics.win_rate import win_rate
from schoolhouse.evaluation.tasks import load_task
from schoolhouse.rewards import REWARDS, build_rewards
from schoolhouse.training.overoptimization import (
    OveroptimizationArguments,
    OveroptimizationCallback,
    validate_overoptimization,
)
from schoolhouse.training.policy import save_adapter


ALPHA, BETA = 1.0, 0.55


def overoptimised(distance):
    """Gold under RL as Gao et al. 2023 found it, d(α - β log d), with its peak at d = exp(α/β - 1) of height βd."""
    return distance * (ALPHA - BETA * np.log(np.maximum(distance, 1e-12)))


def test_the_peak_of_a_noiseless_curve_is_where_calculus_puts_it():
    distance = np.linspace(0, 6, 61)
    turn = turning_point(distance**2, overoptimised(distance))
    peak = math.exp(ALPHA / BETA - 1)
    assert math.sqrt(turn.kl) == pytest.approx(peak, abs=0.15)
    assert turn.gold == pytest.approx(BETA * peak, abs=0.02)
    assert turn.final_minus_peak == pytest.approx(overoptimised(6.0) - BETA * peak, abs=0.03)


def test_intervals_hold_the_truth_as_often_as_they_say():
    distance = np.linspace(0, 6, 24)
    truth, peak = overoptimised(distance), math.exp(ALPHA / BETA - 1)
    held, found = 0, 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0, 0.15, len(truth))
        turn = turning_point(distance**2, truth + noise, resamples=300)
        low, high = turn.final_minus_peak_interval
        held += low <= truth[-1] - truth.max() <= high
        low, high = turn.kl_interval
        found += low <= peak**2 <= high
    assert held >= 88 and found >= 88  # of 100 at 95 %: fewer has a chance below 1 in 200


def test_no_fall_is_claimed_where_gold_only_wandered_or_levelled_off():
    distance = np.linspace(0, 6, 24)
    for truth in (np.zeros(24), 2 * (1 - np.exp(-distance))):
        series = [truth + np.random.default_rng(seed).normal(0, 0.15, 24) for seed in range(60)]
        turns = [turning_point(distance**2, gold, resamples=300) for gold in series]
        assert sum(turn.final_minus_peak_interval[1] < 0 for turn in turns) <= 5
        assert abs(np.mean([turn.final_minus_peak for turn in turns])) < 0.06
        # The last minus the highest, as it is often read off a plot, finds a fall of one deviation or more.
        assert np.mean([gold[-1] - gold.max() for gold in series]) < -0.15


@pytest.mark.parametrize(
    ("kl", "gold", "message"),
    [
        ([0.0] * 8, [0.0] * 9, "kl has 8 points and gold 9"),
        ([0.0] * 7, [0.0] * 7, "at least 8"),
        ([0.0] * 8, [0.0] * 7 + [math.nan], "drop such points"),
    ],
)
def test_a_series_that_bears_no_turning_point_is_refused(kl, gold, message):
    with pytest.raises(ValueError, match=message):
        turning_point(kl, gold)


def test_a_short_run_gets_a_peak_without_an_interval():
    points = [{"step": step, "kl": step / 2, "gold": gold} for step, gold in enumerate([0.0, 2.0, 1.0])]
    summary = summarise_run(points)
    assert summary == {"peak": {"step": 1, "kl": 0.5, "gold": 2.0, "interval": None}, "final_minus_peak": None}
    assert summarise_run([]) == {"peak": None, "final_minus_peak": None}


def test_win_rate_is_the_share_of_pairs_won_with_ties_as_halves():
    rng = random.Random(0)
    before = [[rng.randint(0, 3) for _ in range(rng.randint(1, 4))] for _ in range(12)]
    after = [[rng.randint(0, 4) for _ in range(rng.randint(1, 4))] for _ in range(12)]
    lengths = [[[1] * len(item) for item in side] for side in (before, after)]
    rate = win_rate(before, after, *lengths)
    naive = [
        sum((new > old) + 0.5 * (new == old) for old in olds for new in news) / (len(olds) * len(news))
        for olds, news in zip(before, after, strict=True)
    ]
    assert rate.value == pytest.approx(sum(naive) / 12, abs=1e-12)
    assert rate.interval[0] < rate.value < rate.interval[1]
    # Equal lengths leave nothing to control for but the prior's pull towards a half.
    assert rate.length_controlled == pytest.approx(rate.value, abs=0.01)
    swapped = win_rate(after, before, *reversed(lengths))
    assert swapped.value == pytest.approx(1 - rate.value, abs=1e-12)
    assert swapped.length_controlled == pytest.approx(1 - rate.length_controlled, abs=1e-9)


@pytest.mark.parametrize("merit", [0.0, 1.0])
def test_length_control_finds_what_is_left_without_the_length(merit):
    """Answers that win by sigmoid(merit + d / 10) and are 20 tokens longer: at equal length sigmoid(merit) win."""
    rng = np.random.default_rng(0)
    longer = rng.normal(20, 10, 1500)
    won = rng.random(1500) < 1 / (1 + np.exp(-(merit + longer / 10)))
    rate = win_rate([[0]] * 1500, [[int(x)] for x in 2 * won - 1], [[0]] * 1500, [[d] for d in longer])
    truth = 1 / (1 + math.exp(-merit))
    assert rate.value > truth + 0.1
    assert rate.length_controlled_interval[0] < truth < rate.length_controlled_interval[1]
    assert rate.length_controlled == pytest.approx(truth, abs=0.08)


def test_winning_everything_still_has_a_finite_answer():
    equal = win_rate([[0, 0]] * 10, [[1, 1]] * 10, [[5, 9]] * 10, [[5, 9]] * 10)
    longer = win_rate([[0, 0]] * 10, [[1, 1]] * 10, [[5, 6]] * 10, [[7, 9]] * 10)
    assert equal.value == longer.value == 1 and longer.interval == (1, 1)
    # Where every winner is also the longer one, some of the credit goes to the length.
    assert 0.5 < longer.length_controlled < equal.length_controlled < 1


def test_eval_and_reward_score_a_description_alike():
    rng, task, reward = random.Random(1), load_task("tiny_descriptions"), REWARDS["gold"]()
    items = task.build(None, None)
    assert {item.reference for item in items} == {person.name for person in subjects("test")}
    texts = [describe(rng, person) for person in subjects("test")]
    scores = task.score(texts, items)
    rewarded = reward(
        prompts=[item.prompt for item in items],
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[0]] * len(items),
        name=[item.reference for item in items],
    )
    expected = [gold_utility(person, text) for person, text in zip(subjects("test"), texts, strict=True)]
    assert rewarded == [score["metrics"]["utility"] for score in scores] == expected
    assert [score["correct"] for score in scores] == [value >= 2.5 for value in expected]


def test_a_comparison_counts_wins_by_utility_and_only_where_there_is_one():
    def line(name, utility):
        return EvalSample(id=name, prompt="?", reference="", tokens=5, metrics={"utility": utility})

    before = [line(name, 1.0) for name in "abcd" for _ in range(2)]
    after = [line(name, utility) for name, utility in zip("aabbccdd", [2, 2, 2, 0, 1, 1, 0, 0], strict=True)]
    assert win_rate_by_utility(before, after).value == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)
    assert win_rate_by_utility(before, [sample.model_copy(update={"metrics": {}}) for sample in after]) is None


class Parser:
    def error(self, key, message):
        raise ValueError(f"{key}: {message}")


def test_a_gold_scorer_that_is_optimised_or_missing_is_refused():
    rewards = build_rewards([{"name": "repetition"}, {"name": "gold", "weight": 0}], 32)
    validate_overoptimization(
        Parser(), OveroptimizationArguments(gold_reward="gold", gold_patience=3, kl_budget=5.0), rewards
    )
    for wrong, message in [
        (OveroptimizationArguments(gold_reward="repetition"), "a reward that is optimised is no measure"),
        (OveroptimizationArguments(gold_reward="golden"), r"\(gold\)"),
        (OveroptimizationArguments(gold_patience=3), "needs gold_reward"),
        (OveroptimizationArguments(kl_budget=0.0), "above 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            validate_overoptimization(Parser(), wrong, rewards)


@pytest.fixture
def policy(tmp_path_factory):
    """An adapter on a tiny model, and its tokenizer."""
    folder = make_tiny_model(tmp_path_factory.mktemp("base"))
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config), make_tiny_tokenizer()


def step_of(folder):
    """The step at which an adapter was saved: `replay` writes it into the weights."""
    weights = load_file(folder / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    return {value for name, tensor in weights.items() if "lora_B" in name for value in tensor.flatten().tolist()}


def replay(callback, policy, series):
    """Feed a log to the callback as the trainer does; returns the step at which it stopped, if it did."""
    model, tokenizer = policy
    state, control = TrainerState(), TrainerControl()
    callback.on_train_begin(None, state, control)
    for step, (kl, gold) in enumerate(series, 1):
        state.global_step = step
        logs = {"objective/kl": kl, "reward": step, "rewards/gold/mean": gold, "completions/clipped_ratio": 0.25}
        state.log_history.append(logs | {"rewards/repetition/mean": -0.5, "step": step})
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(step)
        callback.on_log(None, state, control, model=model, processing_class=tokenizer)
        if control.should_training_stop:
            return step
    state.log_history.append({"train_runtime": 1.0, "step": step})  # the trainer's closing entry
    callback.on_log(None, state, control, model=model, processing_class=tokenizer)
    return None


def test_the_run_stops_when_gold_has_not_risen_for_long_enough(tmp_path, policy):
    callback = OveroptimizationCallback(tmp_path, OveroptimizationArguments(gold_reward="gold", gold_patience=3))
    # Means over three points: 1.3 at the third, 1.6 at the fourth, then lower. The lucky first point is not the best.
    golds = [2.0, 0.9, 1.0, 2.9, 0.2, 0.1, 0.1, 0.1]
    assert replay(callback, policy, [(step, gold) for step, gold in enumerate(golds, 1)]) == 7
    assert step_of(tmp_path / "best_by_gold") == {4}
    written = json.loads((tmp_path / "overoptimization.json").read_text())
    assert written["stopped"] == {"by": "gold_patience", "step": 7}
    assert written["peak"] == {"step": 4, "kl": 4, "gold": 2.9, "interval": None}
    assert written["points"][0] == {
        **{"step": 1, "kl": 1, "proxy": 1, "gold": 2.0, "length": None, "eos_rate": 0.75, "entropy": None},
        **{"repetition": 0.5, "spread": None},
    }


def test_the_run_stops_beyond_the_budget_and_keeps_the_best_within_it(tmp_path, policy):
    callback = OveroptimizationCallback(tmp_path, OveroptimizationArguments(gold_reward="gold", kl_budget=4.5))
    assert replay(callback, policy, [(1, 1.0), (2, 2.0), (3, 2.0), (4, 1.5), (5, 9.0), (6, 9.0)]) == 5
    assert step_of(tmp_path / "best_by_gold") == {4}
    assert json.loads((tmp_path / "overoptimization.json").read_text())["stopped"] == {"by": "kl_budget", "step": 5}


def test_without_limits_it_only_measures_and_best_by_gold_becomes_the_product(tmp_path, policy):
    callback = OveroptimizationCallback(tmp_path, OveroptimizationArguments(gold_reward="gold"))
    (tmp_path / "best_by_gold").mkdir()
    (tmp_path / "best_by_gold/stale").touch()
    assert replay(callback, policy, [(k, 3 - abs(k - 6) / 3) for k in range(1, 13)]) is None
    written = json.loads((tmp_path / "overoptimization.json").read_text())
    assert len(written["points"]) == 12 and written["peak"]["step"] == 6
    assert written["final_minus_peak"]["value"] == pytest.approx(-2, abs=0.4)
    product = tmp_path / "adapter"
    save_adapter(policy[0], product, policy[1])
    callback.keep_best(product, is_writer=True)
    assert step_of(product) == {7} and step_of(tmp_path / "last") == {12}
    assert not (product / "stale").exists() and not (tmp_path / "best_by_gold").exists()
    # Trained further without a new best, the run keeps the one that it had.
    callback.on_train_begin(None, TrainerState(global_step=12), TrainerControl())
    assert step_of(tmp_path / "best_by_gold") == {7} == step_of(product)


def test_without_a_gold_scorer_the_points_are_still_written(tmp_path, policy):
    callback = OveroptimizationCallback(tmp_path, OveroptimizationArguments())
    assert replay(callback, policy, [(1, 1.0), (2, 2.0)]) is None
    written = json.loads((tmp_path / "overoptimization.json").read_text())
    assert [point["gold"] for point in written["points"]] == [None, None] and written["peak"] is None
    product = tmp_path / "adapter"
    product.mkdir()
    callback.keep_best(product, is_writer=True)
    assert {path.name for path in tmp_path.iterdir()} == {"overoptimization.json", "adapter"}


def test_a_real_run_keeps_the_adapter_of_the_highest_gold_score(tmp_path, monkeypatch):
    base = str(Path(__file__).parents[1] / "data/tiny/base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    tokenizer = ensure_chat_template(AutoTokenizer.from_pretrained(base))
    save_adapter(get_peft_model(AutoModelForCausalLM.from_pretrained(base), config), tmp_path / "sft", tokenizer)
    recipe = {
        **{
            "model_name_or_path": base,
            "adapter_name_or_path": str(tmp_path / "sft"),
            "dataset_name": "tiny/descriptions",
        },
        "rewards": [
            {"name": "overlong", "soft_punish_cache": 8},
            {"name": "gold", "weight": 0},
            {"name": "repetition", "weight": 0},
        ],
        **{"gold_reward": "gold", "output_dir": str(tmp_path / "run"), "max_steps": 4, "max_completion_length": 12},
        **{"per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"},
        **{"gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "disable_tqdm": True},
    }
    (tmp_path / "ppo.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    monkeypatch.setattr("sys.argv", ["ppo.py", "--config", str(tmp_path / "ppo.yaml")])
    importlib.import_module("recipes.ppo").main()
    points = json.loads((tmp_path / "run/overoptimization.json").read_text())["points"]
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    assert all(value is not None for point in points for name, value in point.items() if name != "spread")
    assert points[0]["kl"] == pytest.approx(0, abs=1e-4) and points[-1]["kl"] != points[0]["kl"]
    run = json.loads((tmp_path / "run/run.json").read_text())
    # Of the two windows of three points the better one's end was kept; the other is what training ended with.
    golds = [point["gold"] for point in points]
    assert run["product"] == "adapter" and run["product_hash"] == adapter_hash(str(tmp_path / "run/adapter"))
    is_last = adapter_hash(str(tmp_path / "run/last")) == run["product_hash"]
    assert is_last == (sum(golds[1:]) > sum(golds[:3]))
