"""Recipes and their adapters beside the ecosystem's own tools."""

from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser
from vllm_rules import MAX_LORA_RANKS, refusals

from schoolhouse.config.arguments import ModelArguments
from schoolhouse.training.policy import load_policy, load_training_tokenizer, save_adapter


CONFIGS = Path(__file__).parents[1] / "recipes/configs"


@pytest.mark.parametrize("name", ["tiny/sft.yaml", "smollm2-135m/sft.yaml"])
def test_the_keys_of_an_sft_recipe_mean_the_same_to_trl(name):
    # The parser of `trl sft --config`. That command passes over the keys it does not know.
    kinds = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)
    values = yaml.safe_load((CONFIGS / name).read_text())
    parser = TrlParser(kinds)
    # TRL turns bf16 on unasked, which the trainer's arguments refuse on a CPU; we ask the hardware.
    *parsed, unknown = parser.parse_args_and_config(
        args=["--config", str(CONFIGS / name), "--bf16", "false"], return_remaining_strings=True
    )
    theirs = {key: value for key, value in values.items() if any(key in kind.__dataclass_fields__ for kind in kinds)}
    assert {"model_name_or_path", "learning_rate", "output_dir", "use_peft", "lora_r"} <= set(theirs)
    for key, value in theirs.items():
        (holder,) = [part for part in parsed if hasattr(part, key)][:1]
        got = getattr(holder, key)
        if key == "report_to":
            assert got in ([], value, [value])
        elif key == "lora_target_modules":
            assert got in (value, [value])
        elif key != "datasets":
            assert got == value, key
    assert {text.removeprefix("--") for text in unknown if text.startswith("--")} == set(values) - set(theirs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An adapter as a recipe makes it, with the LoRA keys of a shipped configuration."""
    folder = tmp_path_factory.mktemp("trained")
    base = make_tiny_model(folder / "base")

    def train(name, **keys):
        values = {"lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear"} | keys
        model_args = ModelArguments(model_name_or_path=str(base), **values)
        args = SFTConfig(str(folder / name), bf16=False, use_cpu=True, report_to=[])
        tokenizer = load_training_tokenizer(model_args, args)
        model = load_policy(model_args, args, tokenizer)
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data.normal_(0, 0.05)
        save_adapter(model, folder / name, tokenizer)
        return folder / name

    return base, train


def test_an_adapter_is_one_that_plain_peft_loads_and_vllm_accepts(trained):
    base, train = trained
    adapter = train("plain")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    assert list(model.peft_config) == ["default"]
    assert refusals(adapter) == []


def test_an_adapter_that_vllm_refuses_is_recognised(trained):
    _, train = trained
    assert refusals(train("wide", lora_r=32)) == ["rank 32"] and refusals(train("wide", lora_r=32), 32) == []
    assert "DoRA" in refusals(train("dora", use_dora=True))
    assert "modules_to_save" in refusals(train("head", lora_modules_to_save=["lm_head"]))


def test_every_recipe_that_trains_an_adapter_says_so():
    # `use_peft` is true here by default and false in TRL, where the same file would train all weights.
    recipes = [path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "accelerate"]
    trains = [path for path in recipes if path.name not in ("pipeline.yaml", "pretrain.yaml")]
    values = {path: yaml.safe_load(path.read_text()) for path in trains}
    assert len(values) >= 14 and [path for path in values if values[path].get("use_peft") is not True] == []


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/sft.yaml")), ids=lambda path: path.parent.name)
def test_shipped_recipes_make_adapters_that_vllm_serves(path):
    values = yaml.safe_load(path.read_text())
    assert values["lora_r"] in MAX_LORA_RANKS
    assert values["lora_target_modules"] == "all-linear"
    assert not {"use_dora", "lora_modules_to_save", "trainable_new_tokens"} & {key for key in values if values[key]}


def test_vllm_itself_loads_the_adapter(trained):
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.lora.peft_helper import PEFTHelper
    from vllm.lora.request import LoRARequest

    base, train = trained
    adapter = train("served")
    PEFTHelper.from_local_dir(str(adapter), max_position_embeddings=128)
    engine = vllm.LLM(str(base), enable_lora=True, max_lora_rank=16, max_model_len=64, enforce_eager=True)
    prompt, sampling = ["How many apples"], vllm.SamplingParams(temperature=0, max_tokens=8)
    with_adapter, without = (
        engine.generate(prompt, sampling, lora_request=request)[0].outputs[0].token_ids
        for request in (LoRARequest("served", 1, str(adapter)), None)
    )
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    ids = AutoTokenizer.from_pretrained(base)(prompt[0], return_tensors="pt")
    expected = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert list(with_adapter) == expected.tolist() != list(without)
