"""PPO on a policy small enough to write down: it must find the optimum of reward and divergence, mutants must not."""

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from test_grpo import spelling
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from schoolhouse.rewards import Reward
from schoolhouse.training import PPOConfig, PPOTrainer
from schoolhouse.training import ppo as ppo_trainer
from schoolhouse.training.ppo_ops import last_token


pytestmark = pytest.mark.usefixtures("one_thread")
KL_COEF = 0.5
WORTH = {"": 0.2, "a": 0.0, "b": 0.9, "c": 0.3, "d": 0.5}  # of the first letter, where nothing follows
BONUS = {"a": 1.2, "b": 0.0, "c": 0.4, "d": 0.8}  # of the second: only together do they make the best answer
EOS, LETTERS = 0, "abcd"
# Of one letter, the prompt would look the same with that letter after it: attention over equal tokens is blind to how
# many there are, and no value model could tell the two states apart.
PROMPT, PROMPT_IDS = "ab", [1, 2]


def worth(text):
    text = text.replace("<eos>", "")
    return WORTH[text[:1]] + (BONUS[text[1]] if len(text) > 1 else 0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that answers one prompt with none, one or two of four letters: 21 answers in all."""
    folder = tmp_path_factory.mktemp("letters")
    make_tiny_model(folder, spelling(LETTERS), tied=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data *= 10  # a frozen head of small weights would keep every policy near uniform
    model.save_pretrained(folder)
    return folder


def distribution(model):
    """Probabilities of all answers, by asking for every token."""
    model.eval()
    with torch.no_grad():
        first = model(torch.tensor([PROMPT_IDS])).logits[0, -1].double().softmax(-1)
        probabilities = {"": first[EOS]}
        for token, letter in enumerate(LETTERS, 1):
            second = first[token] * model(torch.tensor([[*PROMPT_IDS, token]])).logits[0, -1].double().softmax(-1)
            probabilities |= {letter: second[EOS]}
            probabilities |= {letter + other: second[index] for index, other in enumerate(LETTERS, 1)}
    return probabilities


def distance(one, other):
    """Total variation."""
    return sum(abs(one[answer] - other[answer]) for answer in one).item() / 2


def optimum(reference):
    """p(y) = ref(y) exp(r(y) / beta) / Z (e.g. Rafailov et al. 2023, equation 4)."""
    weights = {answer: p * math.exp(worth(answer) / KL_COEF) for answer, p in reference.items()}
    return {answer: weight / sum(weights.values()) for answer, weight in weights.items()}


def practise(base, tmp_path, lam, lora=True, steps=160, seed=0, value_learning_rate=1e-2):
    """Distances to the optimum: of the reference, and of the policy at the end."""
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    reference = distribution(model)
    if lora:
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        model.get_output_embeddings().bias = None
    args = PPOConfig(
        output_dir=str(tmp_path), seed=seed, max_steps=steps, per_device_train_batch_size=256, kl_coef=KL_COEF,
        lam=lam, max_completion_length=2, learning_rate=1e-2 if lora else 3e-3,
        value_learning_rate=value_learning_rate, cliprange_value=10.0,
        num_iterations=2, whiten_advantages=False, missing_eos_penalty=None, gradient_checkpointing=False, bf16=False,
        lr_scheduler_type="linear", save_strategy="no", logging_steps=50, report_to="none", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = PPOTrainer(
        model,
        args=args,
        reward_funcs=[Reward("worth", 1.0, lambda completions, **_: [worth(text) for text in completions])],
        train_dataset=Dataset.from_list([{"prompt": PROMPT}] * 256),
        processing_class=tokenizer,
    )
    trainer.train()
    best = optimum(reference)
    return distance(best, reference), distance(best, distribution(trainer.model))


def test_it_finds_the_optimum_of_reward_and_divergence(base, tmp_path):
    before, after = practise(base, tmp_path, lam=1.0)
    assert before > 0.2
    assert after < 0.06


@pytest.mark.evidence
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_the_optimum_with_every_lambda_and_with_all_weights(base, tmp_path, lam, lora, seed):
    # At the rate at which mutants fail soonest the value model may collapse, and lam 0 has nothing else to learn from.
    before, after = practise(base, tmp_path, lam, lora, steps=200, seed=seed, value_learning_rate=2e-3)
    print(f"lam {lam} lora {lora} seed {seed}: {before:.3f} -> {after:.3f}")
    assert after < 0.06


def kl_sign(monkeypatch):
    right = ppo_trainer.token_rewards
    monkeypatch.setattr(ppo_trainer, "token_rewards", lambda s, p, r, m, coef: right(s, p, r, m, -coef))


def no_kl(monkeypatch):
    right = ppo_trainer.token_rewards
    monkeypatch.setattr(ppo_trainer, "token_rewards", lambda s, p, r, m, coef: right(s, p, r, m, 0.0))


def score_on_the_first_token(monkeypatch):
    def wrong(scores, logps, ref_logps, mask, coef):
        rewards = -coef * (logps - ref_logps) * mask
        rewards[:, 0] += scores
        return rewards

    monkeypatch.setattr(ppo_trainer, "token_rewards", wrong)


def values_of_the_next_token(monkeypatch):
    right = ppo_trainer.generalized_advantages

    def wrong(rewards, values, *rest):
        return right(rewards, torch.cat([values[:, 1:], values[:, -1:]], dim=1), *rest)

    monkeypatch.setattr(ppo_trainer, "generalized_advantages", wrong)


def bootstrap_past_the_end(monkeypatch):
    right = ppo_trainer.generalized_advantages

    def wrong(rewards, values, mask, gamma, lam):
        return right(rewards + last_token(mask) * gamma * values, values, mask, gamma, lam)

    monkeypatch.setattr(ppo_trainer, "generalized_advantages", wrong)


def old_is_new(monkeypatch):
    """Every pass over the samples takes the policy for the one that sampled."""
    right = PPOTrainer._compute_loss

    def wrong(self, model, inputs):
        return right(self, model, {name: part for name, part in inputs.items() if name != "old_per_token_logps"})

    monkeypatch.setattr(PPOTrainer, "_compute_loss", wrong)


MUTANTS = [kl_sign, no_kl, score_on_the_first_token, values_of_the_next_token, bootstrap_past_the_end, old_is_new]


@pytest.mark.evidence
@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_mutant_does_not_find_it(monkeypatch, base, tmp_path, mutate):
    mutate(monkeypatch)
    _, after = practise(base, tmp_path, lam=1.0)
    print(f"{mutate.__name__}: {after:.3f}")
    assert after > 0.06
