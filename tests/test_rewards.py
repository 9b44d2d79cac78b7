"""Rewards: their values against closed forms, what is left out of a sum, and how a recipe's mistakes are told."""

import math
import pickle
import sys
import types
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from tiny_models import make_tiny_tokenizer

from schoolhouse.config.errors import ConfigError
from schoolhouse.rewards import (
    REWARDS,
    Code,
    Cosine,
    Format,
    Math,
    Overlong,
    Repetition,
    RewardModel,
    build_rewards,
    mask_invalid,
    total,
)


def ask(reward, completions, ids=None, **columns):
    """Calls a reward as TRL does."""
    ids = ids or [[0]] * len(completions)
    told = {"trainer_state": None, "log_extra": print, "log_metric": print}
    return reward(prompts=[""] * len(completions), completions=completions, completion_ids=ids, **(told | columns))


def scaled(completions, colour, factor=1.0, **kwargs):
    """A reward of the user's own that reads a column and has a parameter."""
    return [factor * (text == wanted) for text, wanted in zip(completions, colour, strict=True)]


@pytest.fixture
def sandboxed(monkeypatch):
    """Stands in for the sandbox: a program passes as many of its tests as it has lines."""
    seen = []

    def grade_programs(completions, items):
        seen.extend(items)
        grades = []
        for text, item in zip(completions, items, strict=True):
            share = min(1.0, len(text.splitlines()) / len(item["tests"]))
            broken = text == "broken"
            grades.append(
                SimpleNamespace(
                    passed=None if broken else share == 1,
                    fraction=None if broken else share,
                    status="sandbox_error" if broken else "passed",
                    program=text,
                )
            )
        return grades

    module = types.ModuleType("schoolhouse.graders.code")
    module.grade_programs = grade_programs
    monkeypatch.setitem(sys.modules, "schoolhouse.graders.code", module)
    return seen


def test_math_rewards_right_answers_and_no_row_without_an_answer():
    completions = ["3 + 4 = 7\n#### 7", "#### 8", "who knows", "#### 7", "#### 7"]
    answers = ["1 + 6 = 7\n#### 7", "7", "7", None, ""]
    assert ask(Math(), completions, answer=answers) == [1, 0, 0, None, None]
    assert ask(Math(), completions) == [None] * 5
    messages = [[{"role": "assistant", "content": text}] for text in completions]
    assert ask(Math(), messages, answer=answers) == [1, 0, 0, None, None]
    assert ask(Math(), [[{"role": "assistant", "content": None}]], answer=["7"]) == [0]


def test_math_fails_where_the_grader_does(monkeypatch):
    monkeypatch.setattr(
        "schoolhouse.graders.grade_many", lambda texts, *_: [SimpleNamespace(correct=None)] * len(texts)
    )
    (value,) = ask(Math(), ["#### 9^9^9"], answer=["7"])
    assert math.isnan(value)


def test_a_row_with_tests_is_rewarded_by_its_tests_alone(sandboxed):
    columns = {"answer": ["def f(): 1", "7"], "tests": [["a", "b"], None], "entry_point": ["f", None]}
    assert ask(Math(), ["one line", "#### 7"], **columns) == [None, 1]
    assert ask(Code(), ["one line", "#### 7"], **columns) == [0.5, None]
    assert ask(Code("all"), ["one line", "#### 7"], **columns) == [0, None]
    assert ask(Format(), ["#### 7", "#### 7"], **columns) == [None, 1]
    assert sandboxed[0]["tests"] == ["a", "b"] and sandboxed[0]["entry_point"] == "f"


def test_programs_are_graded_in_the_sandbox():
    completions = [
        "def f(n):\n    return n + 1",
        "def f(n):\n    return 2",
        "def f(n): oops",
        "import os; os._exit(0)",
    ]
    columns = {"tests": [["assert f(1) == 2", "assert f(2) == 3"]] * 4, "entry_point": ["f"] * 4}
    assert ask(Code(), completions, **columns) == [1, 0.5, 0, 0]
    assert ask(Code("all"), completions, **columns) == [1, 0, 0, 0]


def test_the_share_of_hard_coded_programs_is_logged_and_changes_no_reward():
    right, copied = "def f(n):\n    return n + 1", "def f(n):\n    return {11: 12}[n]"
    columns = {"tests": [["assert f(2) == 3"]] * 4 + [None], "entry_point": ["f"] * 5}
    columns["shown_tests"] = [["assert f(11) == 12"]] * 4 + [None]
    logged = {}
    columns["log_metric"] = logged.__setitem__
    assert ask(Code(), [right, copied, copied, "def f(n): oops", "text"], **columns) == [1, 0, 0, 0, None]
    assert logged == {"rewards/code/hard_coded": 0.5, "rewards/code/hard_coded_of_passed": 0}
    columns["tests"] = [["assert f(2) == 3", "assert f(11) == 12"], *[["assert f(11) == 12"]] * 3, None]
    assert ask(Code(), [right, copied, copied, "def f(n): oops", "text"], **columns) == [1, 1, 1, 0, None]
    assert logged == {"rewards/code/hard_coded": 0.5, "rewards/code/hard_coded_of_passed": pytest.approx(2 / 3)}


def test_hidden_tests_are_never_read(sandboxed):
    ask(Code(), ["x"], tests=[["a"]], hidden_tests=[["secret"]], entry_point=["f"])
    assert "secret" not in str(sandboxed)


def test_code_fails_where_the_sandbox_does(sandboxed):
    values = ask(Code(), ["broken", "x"], tests=[["a"], ["a"]], entry_point=["f", "f"])
    assert math.isnan(values[0]) and values[1] == 1


@pytest.mark.parametrize(
    ("style", "good", "bad"),
    [
        ("hash", "so\n#### 7", r"\boxed{7}"),
        ("boxed", r"so \boxed{7}", "#### 7"),
        ("think-answer", "<think>so</think><answer>7</answer>", "<answer>7</answer>"),
    ],
)
def test_format_rewards_the_form_and_not_the_answer(style, good, bad):
    wrong = good.replace("7", "8")
    assert ask(Format(style), [good, wrong, bad, ""], answer=["7"] * 4) == [1, 1, 0, 0]
    assert ask(Format(style), [good, bad]) == [1, 0]


def test_overlong_falls_in_a_line_before_the_limit():
    reward = Overlong(soft_punish_cache=10, max_completion_len=30)
    ids = [[0] * length for length in (0, 20, 21, 25, 30, 40)]
    assert ask(reward, [""] * 6, ids) == pytest.approx([0, 0, -0.1, -0.5, -1, -1])


def test_repetition_is_the_share_of_n_grams_seen_before():
    texts = [[1, 2, 3, 4, 5], [7] * 13, [1, 2, 3, 1, 2, 3, 1, 2, 3], [1, 2]]

    def naive(ids, n):
        counts = Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
        return -sum(count - 1 for count in counts.values()) / max(1, sum(counts.values()))

    for n in (1, 2, 4):
        assert ask(Repetition(n), [""] * 4, texts) == pytest.approx([naive(ids, n) for ids in texts])
    assert ask(Repetition(4), [""], [[7] * 13]) == pytest.approx([-0.9])


def test_cosine_rewards_brevity_where_right_and_length_where_wrong():
    reward = Cosine(max_len=100)
    ids = [[0] * length for length in (0, 50, 100, 0, 50, 100, 0)]
    texts = ["#### 7"] * 3 + ["#### 8"] * 3 + ["#### 7"]
    answers = ["7"] * 6 + [None]
    values = ask(reward, texts, ids, answer=answers)
    assert values[:6] == pytest.approx([1, 0.75, 0.5, -1, -0.75, -1]) and values[6] is None


def test_what_does_not_apply_is_left_out_and_what_failed_takes_no_part():
    nan, inf = math.nan, math.inf
    weights = torch.tensor([1.0, 0.5, 0.0])
    values = torch.tensor([[1.0, 1.0, 9.0], [nan, 1.0, 9.0], [nan, nan, 9.0], [inf, 1.0, 9.0], [1.0, 1.0, nan]])
    kept, failed = mask_invalid(values, weights)
    assert failed.tolist() == [False, False, False, True, False]
    assert kept.isnan().all(dim=1).tolist() == [False, False, True, True, False]
    expected = torch.tensor([1.5, 0.5, nan, nan, 1.5])
    torch.testing.assert_close(total(values, weights), expected, equal_nan=True)


def test_only_a_failure_of_a_reward_that_counts_is_passed_on(tmp_path):
    (tmp_path / "mine.py").write_text("def score(completions, **_):\n    return [1, None, float('nan')]\n")
    name = f"{tmp_path / 'mine.py'}:score"
    counted, logged = build_rewards([{"name": name}, {"name": name, "weight": 0}], 10)
    assert ask(counted, ["", "", ""]) == [1, None, math.inf]
    assert ask(logged, ["", "", ""]) == [1, None, None]


def test_a_function_of_ones_own_gets_columns_and_parameters(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def score(completions, colour, factor, **_):\n"
        "    return [factor * (c == x) for c, x in zip(completions, colour)]\n"
    )
    (reward,) = build_rewards([{"name": f"{tmp_path / 'mine.py'}:score", "weight": 2.0, "factor": 3}], 10)
    assert reward.__name__ == "score" and reward.weight == 2.0
    assert ask(pickle.loads(pickle.dumps(reward)), ["red", "blue"], colour=["red", "red"]) == [3, 0]


def test_rewards_are_built_by_name_and_survive_pickling():
    entries = [
        {"name": "math"},
        {"name": "format", "weight": 0.1, "style": "boxed"},
        {"name": "overlong", "weight": 0.5, "soft_punish_cache": 4},
        {"name": "repetition", "weight": 0.2, "ngram_size": 2},
        {"name": "format", "weight": 0},
    ]
    rewards = build_rewards(entries, max_completion_length=10)
    assert [reward.__name__ for reward in rewards] == ["math", "format", "overlong", "repetition", "format-2"]
    assert rewards[2].function == Overlong(soft_punish_cache=4, max_completion_len=10)
    completions, ids = ["#### 7", r"\boxed{7}"], [[1] * 8, [1, 2, 1, 2]]
    for reward in rewards:
        again = pickle.loads(pickle.dumps(reward))
        assert ask(again, completions, ids, answer=["7", "8"]) == ask(reward, completions, ids, answer=["7", "8"])


@pytest.mark.parametrize(
    ("entry", "where", "words"),
    [
        ({"name": "maths"}, "name", "did you mean math"),
        ({"weight": 1.0}, None, "needs a name"),
        ({"name": "format", "stile": "hash"}, "stile", "did you mean style"),
        ({"name": "format", "style": "box"}, "style", "boxed"),
        ({"name": "overlong", "soft_punish_cache": "64"}, "soft_punish_cache", "remove the quotes"),
        ({"name": "overlong", "soft_punish_cache": 0}, "soft_punish_cache", "at least 1"),
        ({"name": "math", "weight": "1"}, "weight", "expected a number"),
        ({"name": "reward_model"}, None, "needs the key model"),
        ({"name": "nowhere.py:f"}, "name", "does not exist"),
        ({"name": f"{__file__}:nothing"}, "name", "has no function 'nothing'"),
        ({"name": f"{__file__}:scaled", "factr": 2}, "factr", "has no parameter of this name; did you mean factor"),
        ({"name": "repetition", "max_penalty": 1.0}, None, "at most 0"),
    ],
)
def test_a_wrong_entry_is_told_with_its_place(entry, where, words):
    with pytest.raises(ConfigError, match=words) as problem:
        build_rewards([{"name": "math"}, entry], 10)
    assert problem.value.path == (("rewards", 1, where) if where else ("rewards", 1))


def test_a_function_of_ones_own_applies_where_its_columns_are():
    (reward,) = build_rewards([{"name": f"{__file__}:scaled"}], 10)
    assert reward.function.applies({"colour": "red"}) and not reward.function.applies({"color": "red"})
    assert reward.function.reads == "a column `colour`"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"name": "overlong", "soft": 4, "max_length": 9}, {"soft_punish_cache": 4, "max_completion_len": 9}),
        ({"name": "repetition", "ngram": 2}, {"ngram_size": 2}),
        ({"name": "code", "pays": "all"}, {"credit": "all"}),
        (
            {"name": "cosine", "right_short": 2.0, "right_long": 1.0, "wrong_short": -2.0, "wrong_long": -1.0,
             "cut_off": -3.0, "max_length": 7},
            {"max_value_correct": 2.0, "min_value_correct": 1.0, "min_value_wrong": -2.0, "max_value_wrong": -1.0,
             "exceed_penalty": -3.0, "max_len": 7},
        ),
    ],
)  # fmt: skip
def test_old_names_of_parameters_work_and_warn_of_the_new_ones(old, new):
    with pytest.warns(FutureWarning) as warned:
        (reward,) = build_rewards([old], 10)
    assert reward.function == REWARDS[old["name"]](**new)
    told = " ".join(str(warning.message) for warning in warned)
    assert all(f"{name} is now called" in told for name in old if name != "name")
    assert all(f"is now called {name};" in told for name in new)


def test_weights_of_zero_alone_are_refused():
    with pytest.raises(ConfigError, match="nothing is rewarded"):
        build_rewards([{"name": "math", "weight": 0}], 10)


def test_every_name_is_documented_with_what_it_reads():
    for cls in REWARDS.values():
        assert cls.__doc__.strip() and cls.reads


def test_a_reward_model_scores_the_last_token_even_where_padding_is_eos(tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = make_tiny_tokenizer()  # pads with EOS
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **size)).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    reward = RewardModel(str(tmp_path / "model"), normalize=False, batch_size=2)
    texts = ["short", "a much longer completion than that", "mid length"]
    values = reward(["Q: "] * 3, texts, [[0]] * 3)
    for text, value in zip(texts, values, strict=True):
        ids = torch.tensor([tokenizer("Q: " + text)["input_ids"] + [tokenizer.eos_token_id]])
        hidden = model.model(ids).last_hidden_state[0, -1]
        assert value == pytest.approx(model.score(hidden).item(), abs=1e-5)
    thoughts = [f"<think>What would please?</think>{texts[0]}", f"kind</think>{texts[1]}", texts[2]]
    assert reward(["Q: "] * 3, thoughts, [[0]] * 3) == pytest.approx(values, abs=1e-6)  # the response is judged
    assert pickle.loads(pickle.dumps(reward))._loaded is None
