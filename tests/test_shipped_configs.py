"""Every recipe that ships passes its own `--check`."""

import importlib
import json
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from schoolhouse.core.chat_templates import ensure_chat_template
from schoolhouse.data import dataset_names


ROOT = Path(__file__).parents[1]
BASE = ROOT / "data/tiny/base"
FOLDERS = {"oasst_pairs": "oasst_en100", "rasbt_pairs": "rasbt_instruct"}  # where a data set's folder has another name
CONFIGS = sorted(
    path
    for path in (ROOT / "recipes/configs").glob("*/*.yaml")
    if path.parent.name != "accelerate" and path.stem != "pipeline"
)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter on the tiny base, as an earlier stage leaves it."""
    folder = tmp_path_factory.mktemp("stage") / "adapter"
    model = AutoModelForCausalLM.from_pretrained(BASE)
    config = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder)
    ensure_chat_template(AutoTokenizer.from_pretrained(BASE)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judge(adapter, tmp_path_factory):
    """A reward adapter with its statistics; no weights are read by a check."""
    folder = tmp_path_factory.mktemp("judge") / "adapter"
    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS")).save_pretrained(folder)
    (folder / "reward_statistics.json").write_text('{"mean": 0.0, "sd": 1.0, "n": 2}')
    return folder


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_recipe_passes_its_check(config, request, adapter, judge, monkeypatch, capsys, tmp_path):
    recipe, values = config.stem.split("_")[0], yaml.safe_load(config.read_text())
    flags = ["--output_dir", str(tmp_path / "run"), "--check"]
    if recipe == "pretrain":
        flags += ["--num_documents", "2000"]
    if "/" in (name := values.get("model_name_or_path", "")) and not (ROOT / name).exists():
        # The tiny base stands in for a model of the Hub. Its vocabulary is small, so every text is longer.
        flags += ["--model_name_or_path", str(BASE)] + ["--max_length", "4096"] * (recipe in ("sft", "reward"))
    if "adapter_name_or_path" in values:
        flags += ["--adapter_name_or_path", str(adapter)]
    if any("model" in reward for reward in values.get("rewards", [])):
        rewards = [reward | {"model": str(judge)} if "model" in reward else reward for reward in values["rewards"]]
        flags += ["--rewards", json.dumps(rewards)]
    dataset = values.get("dataset_name", "")
    if dataset in dataset_names() and not dataset.startswith("tiny/"):
        flags += ["--dataset_path", str(request.getfixturevalue("shared") / "data" / FOLDERS.get(dataset, dataset))]
    if mixture := values.get("datasets"):
        shared = request.getfixturevalue("shared") / "data"
        entries = [{**entry, "path": str(shared / FOLDERS.get(entry["name"], entry["name"]))} for entry in mixture]
        flags += ["--datasets", json.dumps(entries)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [f"{recipe}.py", "--config", str(config), *flags])
    importlib.import_module(f"recipes.{recipe}").main()
    assert capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_recipe_says_that_it_trains_an_adapter(config):
    # TRL's own commands, which read the same file, train all weights otherwise.
    assert yaml.safe_load(config.read_text()).get("use_peft") is (None if config.stem == "pretrain" else True)


def test_every_recipe_script_ships_a_tiny_config():
    scripts = {path.stem for path in (ROOT / "recipes").glob("*.py") if "RecipeParser(" in path.read_text()}
    assert scripts == {path.stem.split("_")[0] for path in CONFIGS if path.parent.name == "tiny"} - {"pipeline"}
