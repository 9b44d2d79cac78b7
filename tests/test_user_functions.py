"""Rewards of the user's own called directly: what they may return, and what is one line with its place."""

import time

import pytest

from schoolhouse.config.errors import ConfigError
from schoolhouse.config.user_code import UserCodeError
from schoolhouse.rewards import build_rewards


SOURCE = """
import asyncio, math, time
import numpy as np
import torch

def numbers(completions, **kwargs): return [1, True, .5, np.float32(.25), torch.tensor(2.0), None][:len(completions)]
def tensor(completions, **kwargs): return torch.ones(len(completions))
async def later(completions, **kwargs):
    await asyncio.sleep(0.01)
    return [1.0] * len(completions)
def raises(completions, **kwargs):
    return [1 / 0]
def short(completions, **kwargs): return [1.0]
def text(completions, **kwargs): return "good"
def scalar(completions, **kwargs): return 1.0
def mapping(completions, **kwargs): return {"a": 1}
def word(completions, **kwargs): return [0.5] * (len(completions) - 1) + ["1.0"]
def huge(completions, **kwargs): return [10**400] * len(completions)
def ends(completions, **kwargs): raise SystemExit(0)
def sleeps(completions, **kwargs): time.sleep(60)
def uses_state(completions, trainer_state, log_metric, **kwargs):
    log_metric("x", 1.0)
    return [float(trainer_state.global_step)] * len(completions)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(SOURCE)
    return path


def call(name, number=6, **entry):
    (reward,) = build_rewards([{"name": name, **entry}], 32)
    texts = [f"answer {n}" for n in range(number)]
    return reward(prompts=texts, completions=texts, completion_ids=[[1]] * number)


def test_numbers_of_any_kind_none_and_awaitables_are_values(file):
    assert call(f"{file}:numbers") == [1.0, 1.0, 0.5, 0.25, 2.0, None]
    assert call(f"{file}:tensor") == [1.0] * 6
    assert call(f"{file}:later") == [1.0] * 6


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", r"own\.py:raises raised ZeroDivisionError: division by zero \(.*own\.py:12\)"),
        ("short", "own.py:short returned 1 values for 6 completions"),
        ("text", "own.py:text returned str, not a list with one number per completion"),
        ("scalar", "own.py:scalar returned float, not a list"),
        ("mapping", "own.py:mapping returned dict, not a list"),
        ("huge", r"own.py:huge returned 1000\d+ for completion 0 \('answer 0'\): a number, None or NaN is needed"),
        ("ends", r"own\.py:ends raised SystemExit: 0 \(.*own\.py:19\)"),  # at once, not when timeout_s is over
        ("word", r"own.py:word returned '1\.0' for completion 5 \('answer 5'\): a number, None or NaN is needed"),
    ],
)
def test_anything_else_names_the_reward_the_completion_and_the_value(file, function, message):
    with pytest.raises(UserCodeError, match=message):
        call(f"{file}:{function}", timeout_s=20)


def test_a_reward_that_hangs_is_given_up(file):
    began = time.monotonic()
    with pytest.raises(UserCodeError, match=r"own.py:sleeps did not return in 0\.2 s: .*timeout_s"):
        call(f"{file}:sleeps", timeout_s=0.2)
    assert time.monotonic() - began < 5


def test_a_mistake_is_found_by_trying_it_on_rows(file):
    rows = [{"prompt": [{"role": "user", "content": "?"}], "answer": "1"}] * 2
    for function in ("numbers", "uses_state", "later"):
        build_rewards([f"{file}:{function}"], 32)[0].function.try_on(rows)
    with pytest.raises(UserCodeError, match="ZeroDivisionError"):
        build_rewards([f"{file}:raises"], 32)[0].function.try_on(rows)


def test_names_alone_and_trls_own_rewards_are_entries(file):
    names = [reward.__name__ for reward in build_rewards(["math", f"{file}:short", "trl.rewards.accuracy_reward"], 32)]
    assert names == ["math", "short", "accuracy_reward"]
    (reward,) = build_rewards(["trl.rewards.think_format_reward"], 32)
    said = [[{"role": "assistant", "content": text}] for text in ("<think>\nwhy\n</think>\n2", "2")]
    assert reward(prompts=said, completions=said, completion_ids=[[1]] * 2) == [1.0, 0.0]
    with pytest.raises(ConfigError, match="has no function 'acuracy_reward'"):
        build_rewards(["trl.rewards.acuracy_reward"], 32)
