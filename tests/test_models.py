"""Adapters: one is trained, one is saved, plain peft loads it; and tokens the base never read are found."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from schoolhouse.config.arguments import ModelArguments
from schoolhouse.core.chat_templates import template_tokens
from schoolhouse.training.policy import (
    load_policy,
    load_training_tokenizer,
    save_adapter,
    save_policy,
    weights_dtype,
)
from schoolhouse.training.untrained_tokens import EmbeddingRows


ROWS = [
    {"prompt": f"<|endoftext|>What is {a} + {b}?", "completion": f" {a} + {b} = {a + b}"}
    for a in range(4)
    for b in range(4)
]
FILES = ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(make_tiny_model(tmp_path_factory.mktemp("base")))


def config(folder, **values):
    defaults = {"max_steps": 3, "learning_rate": 1e-2, "bf16": False, "use_cpu": True, "report_to": []}
    defaults |= {"save_strategy": "no", "gradient_checkpointing": False, "logging_steps": 1}
    return SFTConfig(str(folder), **defaults | values)


def train(base, folder, **values):
    """A trainer that has trained three steps, and what load_policy gave it."""
    model_args, args = ModelArguments(model_name_or_path=base, lora_r=4, **values), config(folder)
    tokenizer = load_training_tokenizer(model_args, args)
    trainer = SFTTrainer(
        load_policy(model_args, args, tokenizer),
        args,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer, tokenizer


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer("What is 3 + 4?<|endoftext|>", return_tensors="pt")).logits


def reload(base, adapter):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_target_modules": ["q_proj"]}]
)
def test_the_saved_adapter_is_the_trained_model(base, tmp_path, options):
    trainer, tokenizer = train(base, tmp_path / "run", **options)
    folder = save_policy(trainer, tmp_path, tokenizer)
    assert folder == tmp_path / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == [*FILES, "tokenizer_config.json"]
    assert not list(tmp_path.glob("adapter.*"))
    expected = logits(trainer.model, tokenizer)
    assert (expected - logits(reload(base, folder), tokenizer)).abs().max() == 0
    assert (expected - logits(AutoModelForCausalLM.from_pretrained(base), tokenizer)).abs().max() > 1e-4
    saved = json.loads((folder / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == base and saved["r"] == 4
    assert saved["use_rslora"] == options.get("use_rslora", False)
    assert saved["use_dora"] == options.get("use_dora", False)
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template


def test_a_trainers_reference_copy_is_not_saved(base, tmp_path):
    trainer, tokenizer = train(base, tmp_path / "run")
    expected = logits(trainer.model, tokenizer)
    trainer.model.add_adapter("ref", trainer.model.peft_config["default"])
    save_adapter(trainer.model, tmp_path / "adapter", tokenizer)
    assert sorted(path.name for path in (tmp_path / "adapter").rglob("*")) == [*FILES, "tokenizer_config.json"]
    assert (expected - logits(reload(base, tmp_path / "adapter"), tokenizer)).abs().max() == 0


def test_an_adapter_is_continued_from_where_it_was(base, tmp_path):
    trainer, tokenizer = train(base, tmp_path / "one")
    first = save_policy(trainer, tmp_path / "one", tokenizer)
    model_args, args = ModelArguments(model_name_or_path=base, adapter_name_or_path=str(first)), config(tmp_path)
    policy = load_policy(model_args, args, load_training_tokenizer(model_args, args))
    assert (logits(policy, tokenizer) - logits(trainer.model, tokenizer)).abs().max() == 0
    assert list(policy.peft_config) == ["default"]
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)

    again, tokenizer = train(base, tmp_path / "two", adapter_name_or_path=str(first))
    second = save_policy(again, tmp_path / "two", tokenizer)
    assert (logits(again.model, tokenizer) - logits(reload(base, second), tokenizer)).abs().max() == 0
    old, new = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert old.keys() == new.keys() and any(not torch.equal(old[name], new[name]) for name in old)


def test_every_weight_is_trained_and_saved_without_peft(base, tmp_path):
    trainer, tokenizer = train(base, tmp_path / "run", use_peft=False)
    folder = save_policy(trainer, tmp_path, tokenizer)
    assert folder == tmp_path / "model" and not (folder / "training_args.bin").exists()
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert (logits(trainer.model, tokenizer) - logits(loaded, tokenizer)).abs().max() == 0
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert all(not torch.equal(before[name], tensor) for name, tensor in loaded.state_dict().items())


def test_the_same_seed_starts_the_same_adapter(base, tmp_path):
    def start(seed):
        model_args, args = ModelArguments(model_name_or_path=base), config(tmp_path, seed=seed)
        state = load_policy(model_args, args, load_training_tokenizer(model_args, args)).state_dict()
        return torch.cat([tensor.flatten() for name, tensor in state.items() if "lora_A" in name])

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))


def test_saving_that_fails_leaves_the_old_adapter(base, tmp_path):
    trainer, tokenizer = train(base, tmp_path / "run")
    folder = save_policy(trainer, tmp_path, tokenizer)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = type("Broken", (), {"save_pretrained": lambda self, path: 1 / 0})()
    with pytest.raises(ZeroDivisionError):
        save_adapter(trainer.model, folder, broken)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def plant_unread_rows(folder, ids, tied):
    """Rows as pretraining leaves them for tokens it never read: one common direction, little else."""
    weights = load_file(folder / "model.safetensors")
    name = "model.embed_tokens.weight" if tied else "lm_head.weight"
    generator = torch.Generator().manual_seed(0)
    rows = weights[name]
    rows[ids] = torch.randn(rows.shape[1], generator=generator) + 0.02 * torch.randn(
        (len(ids), rows.shape[1]), generator=generator
    )
    weights[name] = rows
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_unread_tokens_are_found_and_only_their_rows_are_trained(tmp_path, tied):
    folder = make_tiny_model(tmp_path / "base", tied=tied)
    eos, others = 0, [20, 30, 40]  # EOS among some bytes that no text had
    plant_unread_rows(folder, [eos, *others], tied)
    rows = EmbeddingRows.find(str(folder))
    assert rows.untrained(list(range(60))) == [eos, *others]
    assert rows.modules == (["embed_tokens"] if tied else ["embed_tokens", "lm_head"])

    trainer, tokenizer = train(str(folder), tmp_path / "run", trainable_new_tokens=True)
    assert eos in template_tokens(tokenizer) and not set(others) & set(template_tokens(tokenizer))
    adapter = save_policy(trainer, tmp_path, tokenizer)
    loaded = reload(str(folder), adapter)
    assert (logits(trainer.model, tokenizer) - logits(loaded, tokenizer)).abs().max() == 0
    before = AutoModelForCausalLM.from_pretrained(folder)
    merged = loaded.merge_and_unload()
    for part in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, part)().weight, getattr(merged, part)().weight
        assert (old != new).any(dim=1).nonzero().flatten().tolist() == [eos]


def test_a_base_that_read_all_its_tokens_gets_no_token_rows(base, tmp_path):
    trainer, _ = train(base, tmp_path, trainable_new_tokens=True)
    assert trainer.model.peft_config["default"].trainable_token_indices is None


def test_sharded_and_absent_weights(tmp_path):
    folder = make_tiny_model(tmp_path / "base")
    plant_unread_rows(folder, [0, 20], tied=True)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink()
    assert EmbeddingRows.find(str(folder)).untrained([0, 19, 20]) == [0, 20]
    next(folder.glob("model-00001*")).unlink()
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    assert EmbeddingRows.find(str(folder)) is None


def test_a_real_base_never_read_its_eos(shared):
    """stories260k separates its stories with BOS. Its end-of-sequence row equals that of bytes no story contains."""
    folder = shared / "models/stories260k"
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].double().numpy()
    distances = np.linalg.norm(table[:, None] - table[None], axis=2) + np.diag(np.full(len(table), np.inf))
    brute = np.flatnonzero(distances.min(axis=1) < 0.1 * np.linalg.norm(table, axis=1)).tolist()
    found = EmbeddingRows.find(str(folder)).untrained(list(range(len(table))))
    assert found == brute
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id in found and tokenizer.unk_token_id in found
    read = {tokenizer.bos_token_id, *tokenizer("Once upon a time, there was a little girl.\n")["input_ids"]}
    assert not read & set(found)


def test_precision_follows_the_hardware_unless_told(tmp_path):
    frozen, whole = ModelArguments(), ModelArguments(use_peft=False)
    fast, slow = config(tmp_path), config(tmp_path)
    fast.bf16 = True
    assert weights_dtype(frozen, fast) == "bfloat16"
    assert weights_dtype(whole, fast) == weights_dtype(frozen, slow) == "float32"
    assert weights_dtype(ModelArguments(dtype="float16"), slow) == "float16"


def test_eos_and_template_of_the_recipe_are_saved_with_the_adapter(base, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    args = config(tmp_path, chat_template_path=str(template), eos_token="#")
    tokenizer = load_training_tokenizer(ModelArguments(model_name_or_path=base), args)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "a#"
    assert args.chat_template_path is None
    with pytest.raises(ValueError, match="not in the vocabulary"):
        load_training_tokenizer(ModelArguments(model_name_or_path=base), config(tmp_path, eos_token="<no>"))
    with pytest.raises(ValueError, match=r"not a \.jinja file"):
        load_training_tokenizer(ModelArguments(model_name_or_path=base), config(tmp_path, chat_template_path=base))
