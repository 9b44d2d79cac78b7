"""A reward of the user's own as `docs/add_a_reward.md` shows it, from a folder outside the checkout."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import make_tiny_model


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the page's reward, a tiny model, data and a recipe."""
    folder = tmp_path_factory.mktemp("mine")
    page = (ROOT / "docs/add_a_reward.md").read_text()
    (folder / "my_rewards.py").write_text(re.search(r"```python\n(# my_rewards.py\n.*?)```", page, re.DOTALL)[1])
    (folder / "grpo.yaml").write_text(re.search(r"```yaml\n(# grpo.yaml\n.*?)```", page, re.DOTALL)[1])
    make_tiny_model(folder / "base")
    rows = [{"prompt": [{"role": "user", "content": f"What is {n} + 1?"}], "answer": str(n + 1)} for n in range(8)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


# A smaller model, fewer tokens and one step, instead of the page's.
FLAGS = (
    "--model_name_or_path base --dataset_name train.jsonl --dataset_test_split null --preflight_prompts 0 "
    "--output_dir run --max_steps 1 --num_generations 4 --per_device_train_batch_size 8 --max_completion_length 30 "
    "--gradient_checkpointing false --logging_steps 1 --save_strategy no --report_to none --use_cpu true"
).split()


def grpo(folder, *flags, config="grpo.yaml"):
    command = [sys.executable, str(ROOT / "recipes/grpo.py"), "--config", config, *FLAGS, *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


def test_the_page_s_reward_is_trained_on(folder):
    done = grpo(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = [row for row in json.loads((folder / "run/log.json").read_text()) if "reward" in row]
    brevity = row["rewards/brevity/mean"]  # a random model fills most of its 30 tokens
    assert 24 / 30 <= brevity < 1
    assert row["reward"] == pytest.approx(row["rewards/math/mean"] + 0.2 * brevity)


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("max_tokens: 24", "max_tokns: 24"), 8,
         "rewards[1].max_tokns: my_rewards.py:brevity has no parameter of this name; did you mean max_tokens?"),
        (("my_rewards.py:brevity", "my_rewards.py:bravity"), 8, "has no function 'bravity'"),
        (("my_rewards.py:brevity", "my_reward.py:brevity"), 8, "my_reward.py does not exist"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(folder, change, line, words):
    (folder / "wrong.yaml").write_text((folder / "grpo.yaml").read_text().replace(*change))
    done = grpo(folder, config="wrong.yaml")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"wrong.yaml:{line}: ") and words in last


def test_a_syntax_error_is_told_with_its_line(folder):
    (folder / "odd.py").write_text("import math\n\ndef odd(completions\n")
    done = grpo(folder, "--rewards", '[{"name": "odd.py:odd"}]')
    assert done.returncode == 2 and "odd.py:3: " in done.stderr.strip().splitlines()[-1]


def test_a_column_that_the_data_lacks_is_named(folder):
    (folder / "columns.py").write_text("def harder(completions, level, **kwargs):\n    return level\n")
    done = grpo(folder, "--rewards", '[{"name": "columns.py:harder"}]')
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "harder applies to no row" in last and "columns are answer, prompt: it needs a column `level`" in last


def test_a_reward_that_fails_is_one_line_before_weights_load(folder):
    (folder / "broken.py").write_text("def broken(completions, **kwargs):\n    return [1.0]\n")
    done = grpo(folder, "--rewards", "{name: 'broken.py:broken'}")
    assert done.returncode == 2 and "Loading weights" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == "--rewards[0]: broken.py:broken returned 1 values for 2 completions"


def test_a_reward_that_fails_during_training_is_one_line_and_the_manifest_says_why(folder):
    source = "def fickle(completions, **kwargs):\n    return [1.0] * (2 if len(completions) == 2 else 1)\n"
    (folder / "fickle.py").write_text(source)
    done = grpo(folder, "--rewards", "fickle.py:fickle", "--output_dir", "fickle")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    message = "fickle.py:fickle returned 1 values for 8 completions"
    assert done.stderr.strip().splitlines()[-1] == f"fickle: {message}"
    manifest = json.loads((folder / "fickle/run.json").read_text())
    assert manifest["status"] == "failed" and message in manifest["reason"]
