"""`recipes/minimal_grpo.py`: it learns from right answers, and from random rewards it does not."""

import json
import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM

from recipes import minimal_grpo


BASE = str(Path(__file__).parents[1] / "data/tiny/base")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_only_the_right_number_at_the_end_is_rewarded():
    right = ["#### 19", "12+7 = 19\n#### 19\n", "18? Wait, 12+7 = 19\n#### 19"]
    wrong = ["#### 18", "Answer: 19", "19", "#### 19 or 18", "#### 19\n#### 18", "#### 190", ""]
    assert [minimal_grpo.reward(text, 19) for text in right + wrong] == [1] * len(right) + [0] * len(wrong)


def test_log_probabilities_of_padded_rows_are_those_of_each_row_alone(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path)).eval()
    ids, mask = torch.tensor([[0, 0, 5, 6, 7, 8], [9, 4, 5, 6, 7, 3]]), torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    with torch.no_grad():
        found = minimal_grpo.token_log_probs(model, ids, mask, length=3)
        for row, start in enumerate((2, 0)):
            logits = model(ids[row : row + 1, start:]).logits[0].log_softmax(-1)
            alone = [logits[t - start - 1, ids[row, t]] for t in (3, 4, 5)]
            torch.testing.assert_close(found[row], torch.stack(alone), atol=1e-5, rtol=0)


def run(monkeypatch, folder, scored=None):
    """Train for a few steps; return the share of right answers of each."""
    right, share = minimal_grpo.reward, []

    def counted(completion, answer):
        share.append(right(completion, answer))
        return scored() if scored else share[-1]

    monkeypatch.setattr(minimal_grpo, "reward", counted)
    assert minimal_grpo.main(["--model_name_or_path", BASE, "--output_dir", str(folder), "--steps", "12"]) == 0
    return torch.tensor(share).view(12, -1).mean(dim=1)


def test_the_reward_rises_and_the_adapter_loads_with_plain_peft(monkeypatch, tmp_path):
    share = run(monkeypatch, tmp_path)
    assert share[-3:].mean() > share[:2].mean() + 0.3
    log = json.loads((tmp_path / "log.json").read_text())
    assert [row["reward"] for row in log] == pytest.approx(share.tolist())
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), tmp_path)


def test_with_random_rewards_nothing_is_learned(monkeypatch, tmp_path):
    rng = random.Random(0)
    share = run(monkeypatch, tmp_path, scored=lambda: float(rng.random() < 0.4))
    assert abs(share[-3:].mean() - share[:2].mean()) < 0.15
