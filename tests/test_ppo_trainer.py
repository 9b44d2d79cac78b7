"""PPOTrainer against an unpadded loop, and what it promises: shared weights, exact resumption, one adapter out."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from scripts import exiting
from test_grpo import spelling
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed
from trl import GRPOTrainer

from recipes.ppo import main as script_main
from schoolhouse.core.models import adapter_hash
from schoolhouse.rewards import Reward, RewardModel
from schoolhouse.training import PPOConfig, PPOTrainer
from schoolhouse.training.value_model import shared_classifier, token_values


main = exiting(script_main)
pytestmark = pytest.mark.usefixtures("one_thread")
MINE = """
def vowels(completions, **_):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum(letter in "aeo" for letter in text) / (1 + len(text)) for text in texts]

def broken(completions, **_):
    return [float("nan") if index % 4 == 0 else 1.0 for index, _ in enumerate(completions)]
"""
PROMPTS = ["a", "b01", "cd2345", "0"]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A folder with a tiny random model, a reward adapter on it, prompts, rewards and a recipe."""
    folder = tmp_path_factory.mktemp("setup")
    make_tiny_model(folder / "base", spelling("?aeobcd0123456789 "))
    (folder / "mine.py").write_text(MINE)
    rows = [{"prompt": prompt} for prompt in PROMPTS] * 8
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    set_seed(1)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False)
    get_peft_model(classifier, config).save_pretrained(folder / "reward_model")
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(folder / "reward_model")
    (folder / "reward_model/reward_statistics.json").write_text('{"mean": 0.1, "sd": 2.0, "n": 8}')
    (folder / "ppo.yaml").write_text(
        f"""
        model_name_or_path: {folder / "base"}
        dataset_name: {folder / "train.jsonl"}
        dataset_test_split: null
        rewards:
          - {{name: "{folder / "mine.py"}:vowels"}}
          - {{name: reward_model, model: "{folder / "reward_model"}", weight: 0.1}}
        output_dir: {folder / "run"}
        max_steps: 6
        max_completion_length: 8
        lora_dropout: 0
        per_device_train_batch_size: 8
        num_iterations: 2
        learning_rate: 1.0e-2
        value_warmup_steps: 1
        missing_eos_penalty: 1.0
        gradient_checkpointing: false
        logging_steps: 1
        save_steps: 2
        report_to: none
        use_cpu: true
        """.replace("\n        ", "\n")
    )
    return folder


def ppo(monkeypatch, setup, run, *flags):
    monkeypatch.setattr("sys.argv", ["ppo.py", "--config", str(setup / "ppo.yaml"), "--output_dir", str(run), *flags])
    main()
    return json.loads((run / "run.json").read_text())


def make_trainer(setup, folder, reward="vowels", lora=True, **settings):
    """A trainer whose policy is no longer its reference."""
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(setup / "base")
    model = AutoModelForCausalLM.from_pretrained(setup / "base", dtype=torch.float32)
    if lora:
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(model, config)
        model.get_output_embeddings().bias = None
    functions = {}
    exec(MINE, functions)
    defaults = {"per_device_train_batch_size": 8, "max_completion_length": 8, "num_iterations": 2, "kl_coef": 0.3,
                "gradient_checkpointing": False, "lam": 0.9, "gamma": 0.97, "cliprange_value": 0.05}  # fmt: skip
    args = PPOConfig(
        output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, max_steps=1, save_strategy="no",
        disable_tqdm=True, **(defaults | settings),
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS] * 8)
    trainer = PPOTrainer(
        model,
        reward_funcs=[reward if callable(reward) else Reward(reward, 1.0, functions[reward])],
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
    )
    nudge(trainer.value_model)  # so that values are not 0
    return trainer


def nudge(model, seed=3, size=0.03):
    """Moves every trainable weight a little."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


def rollout(trainer):
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer._generate_and_score_completions([{"prompt": prompt} for prompt in PROMPTS * 2])


def gradients(trainer, batch):
    """Loss and gradients of policy and value model."""
    named = [*trainer.model.named_parameters(prefix="policy"), *trainer.value_model.named_parameters(prefix="value")]
    trainable = {name: parameter for name, parameter in named if parameter.requires_grad}
    for parameter in trainable.values():
        parameter.grad = None
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in trainable.items() if parameter.grad is not None}


def farthest(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def reference_loss(trainer, batch, scores, ref_logps_of, old_logps_of):
    """The loss by definition: one completion after another, unpadded, in loops over plain numbers."""
    args, tokens, surrogate, squared = trainer.args, 0, 0.0, 0.0
    targets = []
    for row in range(len(scores)):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        tokens += len(answer)
        old, ref = old_logps_of(prompt, answer), ref_logps_of(prompt, answer)
        rewards = [-args.kl_coef * (a - b) for a, b in zip(old, ref, strict=True)]
        rewards[-1] += scores[row]
        values = batch["old_values"][row][: len(answer)].tolist()
        advantage, following, advantages = 0.0, 0.0, []
        for reward, value in zip(reversed(rewards), reversed(values), strict=True):
            advantage = reward + args.gamma * following - value + args.gamma * args.lam * advantage
            following = value
            advantages.insert(0, advantage)
        targets.append((prompt, answer, old, values, advantages))
    flat = [a for *_, advantages in targets for a in advantages]
    mean = sum(flat) / len(flat)
    deviation = (sum((a - mean) ** 2 for a in flat) / len(flat) + 1e-8) ** 0.5
    for prompt, answer, old, values, advantages in targets:
        logps = answer_logps(trainer.model, prompt, answer)
        ids = torch.tensor([prompt + answer])
        now = token_values(trainer.value_model, ids, torch.ones_like(ids), len(answer))[0]
        for t in range(len(answer)):
            ratio, weight = (logps[t] - old[t]).exp(), (advantages[t] - mean) / deviation
            clipped = ratio.clamp(1 - args.epsilon, 1 + args.epsilon)
            surrogate = surrogate - torch.min(ratio * weight, clipped * weight)
            target = advantages[t] + values[t]
            kept = now[t].clamp(values[t] - args.cliprange_value, values[t] + args.cliprange_value)
            squared = squared + torch.max((now[t] - target) ** 2, (kept - target) ** 2) / 2
    return surrogate / tokens + args.vf_coef * squared / tokens


def answer_logps(model, prompt, answer):
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def test_loss_and_gradients_are_those_of_an_unpadded_loop(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path)
    nudge(trainer.model)  # now the reference is another policy
    batch = rollout(trainer)
    assert not batch["prompt_mask"].all() and not batch["completion_mask"].all()  # both sides are padded
    scores = trainer._scores.tolist()

    def frozen(prompt, answer, adapter="default"):
        trainer.model.base_model.set_adapter(adapter)
        with torch.no_grad():
            found = answer_logps(trainer.model, prompt, answer).tolist()
        trainer.model.base_model.set_adapter("default")
        return found

    olds = {}
    for row in range(len(scores)):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        olds[str((prompt, answer))] = frozen(prompt, answer)
    refs = {key: frozen(*eval(key), adapter="ref") for key in olds}
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_("lora" in name and ".ref." not in name)  # `set_adapter` unfroze the reference
    nudge(trainer.model, seed=5)  # a second pass over the samples: the ratio is no longer 1
    nudge(trainer.value_model, seed=6)
    loss, found = gradients(trainer, batch)
    expected = reference_loss(trainer, batch, scores, lambda *key: refs[str(key)], lambda *key: olds[str(key)])
    for model in (trainer.model, trainer.value_model):
        model.zero_grad()
    expected.backward()
    named = [*trainer.model.named_parameters(prefix="policy"), *trainer.value_model.named_parameters(prefix="value")]
    wanted = {name: parameter.grad for name, parameter in named if parameter.grad is not None}
    assert abs(loss - expected.item()) < 1e-5
    assert farthest(found, wanted) < 1e-5
    assert max(grad.abs().max() for grad in wanted.values()) > 1e-2
    old_is_new = {name: part for name, part in batch.items() if name != "old_per_token_logps"}
    assert farthest(gradients(trainer, old_is_new)[1], wanted) > 1e-3


def test_before_the_first_step_ratio_is_one_and_divergence_zero(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path, num_iterations=1, whiten_advantages=False)
    batch = rollout(trainer)
    assert trainer._metrics["train"]["objective/kl"] == [0.0]
    assert "old_per_token_logps" not in batch  # so the ratio is that of the log-probabilities to themselves
    trainer.args.vf_coef = 0.0
    mask = batch["completion_mask"].bool()
    assert gradients(trainer, batch)[0] == pytest.approx(-batch["advantages"][mask].mean().item(), abs=1e-7)


@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing(setup, tmp_path, side):
    trainer = make_trainer(setup, tmp_path)
    batch = rollout(trainer)
    nudge(trainer.model)
    loss, found = gradients(trainer, batch)
    padded = dict(batch)
    for name, tensor in batch.items():
        if side == "left" and name.startswith("prompt"):
            padded[name] = torch.nn.functional.pad(tensor, (5, 0))
        if side == "right" and tensor.shape == batch["completion_ids"].shape and not name.startswith("prompt"):
            padded[name] = torch.nn.functional.pad(tensor, (0, 3))
    same, again = gradients(trainer, padded)
    assert same == pytest.approx(loss, abs=1e-6) and farthest(found, again) < 1e-5


def test_gradient_checkpointing_changes_nothing(setup, tmp_path):
    plain, checkpointed = (
        make_trainer(setup, tmp_path / str(flag), gradient_checkpointing=flag) for flag in (False, True)
    )
    assert checkpointed.value_model.is_gradient_checkpointing
    checkpointed.model.gradient_checkpointing_enable({"use_reentrant": False})  # as the parent does when it begins
    batch = rollout(plain)
    nudge(plain.model), nudge(checkpointed.model)
    checkpointed.model.train()
    checkpointed.current_gradient_accumulation_steps = 1
    (loss, found), (same, again) = gradients(plain, batch), gradients(checkpointed, batch)
    assert same == pytest.approx(loss, abs=1e-6) and farthest(found, again) < 1e-5


def test_eight_batches_of_one_are_one_batch_of_eight(setup, tmp_path):
    whole = make_trainer(setup, tmp_path)
    batch = rollout(whole)
    nudge(whole.model)
    loss, found = gradients(whole, batch)
    parts = make_trainer(setup, tmp_path / "parts", per_device_train_batch_size=1, gradient_accumulation_steps=8)
    nudge(parts.model)
    parts.model.train()
    parts.current_gradient_accumulation_steps = 8
    total, sums = 0.0, {}
    for row in range(8):
        part = {name: value[row : row + 1] if value.dim() else value for name, value in batch.items()}
        share, grads = gradients(parts, part)
        total += share
        sums = {name: grad + sums.get(name, 0) for name, grad in grads.items()}
    assert total == pytest.approx(loss, abs=1e-6) and farthest(found, sums) < 1e-5


def test_a_completion_whose_grader_failed_takes_no_part(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path, reward="broken")
    batch = rollout(trainer)
    failed = torch.tensor([0, 4])
    assert batch["completion_mask"][failed].sum() == 0 and batch["advantages"][failed].abs().sum() == 0
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    _, found = gradients(trainer, batch)
    rest = {name: value[[1, 2, 3, 5, 6, 7]] if value.dim() else value for name, value in batch.items()}
    assert farthest(found, gradients(trainer, rest)[1]) < 1e-5


def test_a_cut_off_completion_loses_the_penalty(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path, missing_eos_penalty=2.0, kl_coef=0.0, lam=1.0, gamma=1.0)
    batch = rollout(trainer)
    lengths = batch["completion_mask"].sum(dim=1)
    ended = batch["completion_ids"][torch.arange(8), lengths - 1] == trainer.processing_class.eos_token_id
    assert 0 < ended.sum() < 8
    assert torch.allclose(batch["returns"][:, 0], trainer._scores - 2.0 * ~ended, atol=1e-6)


def test_the_base_is_held_once(setup, tmp_path):
    scorer_model = RewardModel(str(setup / "reward_model"))
    trainer = make_trainer(setup, tmp_path, reward=Reward("reward_model", 1.0, scorer_model))
    scorer, _ = scorer_model._loaded
    models = [trainer.model, trainer.value_model, *(scorer.values() if isinstance(scorer, dict) else [scorer])]
    named = [pair for model in models for pair in model.named_parameters()]
    bulk = {p.untyped_storage().data_ptr(): p.numel() for n, p in named if "lora" not in n and "score" not in n}
    alone = AutoModelForCausalLM.from_pretrained(setup / "base")
    assert sum(bulk.values()) == sum(p.numel() for p in alone.parameters())
    assert all(p.requires_grad == ("lora" in n or "modules_to_save" in n) for n, p in
               trainer.value_model.named_parameters())  # fmt: skip


def test_a_policy_without_adapters_shares_nothing_that_is_trained(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path, lora=False)
    assert not {p.data_ptr() for p in trainer.model.parameters()} & {
        p.data_ptr() for p in trainer.value_model.parameters()
    }
    batch = rollout(trainer)
    _, found = gradients(trainer, batch)
    assert {name.split(".")[0] for name in found} == {"policy", "value"}


def test_merging_the_policy_for_its_engine_leaves_the_others_as_they_were(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path)
    ids = torch.tensor([[1, 2, 3, 4]])
    scorer_model = PeftModel.from_pretrained(shared_classifier(trainer.model), setup / "reward_model").eval()

    def values():
        with torch.no_grad():
            return token_values(trainer.value_model, ids, torch.ones_like(ids), 3), scorer_model(ids).logits

    before = values()
    trainer.model.merge_adapter()
    trainer.model.unmerge_adapter()
    for one, other in zip(before, values(), strict=True):
        assert (one - other).abs().max() < 1e-5


def test_a_shared_reward_model_scores_as_one_loaded_alone(setup, tmp_path):
    trainer = make_trainer(setup, tmp_path)
    ids = torch.tensor([[1, 5, 7, 2]])
    alone = AutoModelForSequenceClassification.from_pretrained(setup / "base", num_labels=1)
    alone = PeftModel.from_pretrained(alone, setup / "reward_model").eval()
    shared = PeftModel.from_pretrained(shared_classifier(trainer.model), setup / "reward_model").eval()
    with torch.no_grad():
        hidden = [m.get_base_model().base_model(ids).last_hidden_state for m in (alone, shared)]
        scores = [m.get_base_model().score(h) for m, h in zip((alone, shared), hidden, strict=True)]
    assert torch.equal(*scores)


@pytest.fixture(scope="module")
def whole_run(setup):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return ppo(monkeypatch, setup, setup / "run")


def test_a_run_leaves_one_adapter_without_the_value_model(setup, whole_run):
    assert whole_run["status"] == "done"
    names = load_file(setup / "run/adapter/adapter_model.safetensors").keys()
    assert all("lora" in name for name in names) and not any("score" in name or ".ref." in name for name in names)
    assert not list((setup / "run/adapter").glob("*value*")) and not (setup / "run/adapter/ref").exists()
    base = AutoModelForCausalLM.from_pretrained(setup / "base")
    assert PeftModel.from_pretrained(base, setup / "run/adapter").active_adapter == "default"


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_stopped_between_rollouts_goes_on_to_the_same_weights(monkeypatch, setup, whole_run, tmp_path, stop):
    run = tmp_path / "run"
    shutil.copytree(setup / "run", run)
    shutil.rmtree(run / "adapter")
    record = json.loads((run / "run.json").read_text()) | {"status": "running"}
    (run / "run.json").write_text(json.dumps(record))
    for checkpoint in (run / "checkpoints").glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > stop:
            shutil.rmtree(checkpoint)
    assert ppo(monkeypatch, setup, run)["resumed"][0]["checkpoint"] == f"checkpoint-{stop}"
    one, other = (folder / "adapter/adapter_model.safetensors" for folder in (setup / "run", run))
    assert one.read_bytes() == other.read_bytes()
    last = [load_file(folder / "checkpoints/checkpoint-6/value_model.safetensors") for folder in (setup / "run", run)]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_a_run_does_not_go_on_with_another_reward_model(monkeypatch, capsys, setup, whole_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(setup / "run", run)
    record = json.loads((run / "run.json").read_text())
    assert [model["hash"] for model in record["reward_models"]] == [adapter_hash(str(setup / "reward_model"))]
    record |= {"status": "running", "reward_models": [{"name": str(setup / "reward_model"), "hash": "0" * 64}]}
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        ppo(monkeypatch, setup, run)
    assert "cannot be resumed: its reward models changed since it began" in capsys.readouterr().err


def test_while_the_values_warm_up_the_policy_stands_still(monkeypatch, setup, tmp_path):
    ppo(monkeypatch, setup, tmp_path / "run", "--max_steps", "2", "--value_warmup_steps", "2")
    before = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert all((tensor == 0).all() for name, tensor in before.items() if "lora_B" in name)
    values = load_file(tmp_path / "run/checkpoints/checkpoint-2/value_model.safetensors")
    start = load_file(setup / "reward_model/adapter_model.safetensors")
    moved = [(values[name.replace("weight", "default.weight")] - tensor).abs().max() for name, tensor in start.items()
             if "lora_B" in name]  # fmt: skip
    assert 0 < max(moved) < 0.1  # it began with the reward adapter


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"beta": 0.1}, "kl_coef"),
        ({"loss_type": "dr_grpo"}, "loss_type"),
        ({"gamma": 1.5}, "gamma is 1.5: it must be at least 0, at most 1"),
        ({"lam": -0.1}, "lam is -0.1"),
        ({"generation_batch_size": 9}, "must be a multiple"),
        ({"mask_truncated_completions": True, "missing_eos_penalty": 1.0}, "missing_eos_penalty"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path, setting, words):
    with pytest.raises(ValueError, match=words):
        PPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **setting)


@pytest.mark.parametrize("plugin", ["DEEPSPEED", "FSDP"])
def test_sharding_the_base_is_refused_before_weights_load(monkeypatch, capsys, setup, tmp_path, plugin):
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "true")
    with pytest.raises(SystemExit):
        ppo(monkeypatch, setup, tmp_path / "run")
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "DeepSpeed and FSDP shard the base" in last and "ddp.yaml" in last
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "batch"),
    [
        ({}, 3),
        ({"gradient_accumulation_steps": 3}, 9),
        ({"steps_per_generation": 5}, 15),
        ({"generation_batch_size": 6}, 6),
    ],
)
def test_one_completion_a_prompt_takes_any_batch(tmp_path, settings, batch):
    args = PPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, per_device_train_batch_size=3, **settings)
    assert (args.num_generations, args.generation_batch_size) == (1, batch)
    assert args.steps_per_generation == batch // 3


def test_the_installed_trl_has_the_hooks_that_are_overridden(setup, tmp_path):
    # Behind the eighth come images.
    arguments = {name: list(inspect.signature(getattr(GRPOTrainer, name)).parameters)[:8] for name in
                 ("_calculate_rewards", "_generate_and_score_completions", "_compute_loss",
                  "_get_per_token_logps_and_entropies")}  # fmt: skip
    assert arguments == {
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["self", "inputs"],
        "_compute_loss": ["self", "model", "inputs"],
        "_get_per_token_logps_and_entropies": ["self", "model", "input_ids", "attention_mask", "logits_to_keep",
                                               "batch_size", "compute_entropy", "compute_aux_loss"],
    }  # fmt: skip
    batch = rollout(make_trainer(setup, tmp_path))
    assert batch.keys() == {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages",
                            "num_items_in_batch", "old_per_token_logps", "old_values", "returns"}  # fmt: skip


def test_two_processes_take_the_steps_of_one(setup, tmp_path):
    worker, found = Path(__file__).with_name("ppo_worker.py"), {}
    for processes, accumulation in ((1, 4), (2, 2)):
        output = tmp_path / str(processes)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += [str(worker), str(setup / "base"), str(output), str(accumulation)]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found[processes] = load_file(output / "weights.safetensors")
    assert {name.split(".")[0] for name in found[1]} == {"policy", "value"}
    assert farthest(found[1], found[2]) < 1e-5
