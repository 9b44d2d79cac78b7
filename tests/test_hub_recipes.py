"""Products of real recipes, shared: PPO without its value model, a reward model with its head, a pipeline."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from schoolhouse.core.models import load_model, load_tokenizer
from schoolhouse.core.reward_models import load_scorer
from tests.hub_runs import REAL, TOKEN, call, command, elsewhere, in_fresh_process, loopback


pytest_plugins = ["tests.hub_fixtures"]
pytestmark = pytest.mark.usefixtures("surroundings")


ROOT = Path(__file__).parents[1]
RECIPES = {
    "sft": {"dataset_name": "tiny/sft", "lora_r": 2, "lora_target_modules": "all-linear"},
    "reward": {"dataset_name": "tiny/preferences", "adapter_name_or_path": "sft/adapter"},
    "ppo": {
        "dataset_name": "tiny/descriptions", "adapter_name_or_path": "sft/adapter", "max_completion_length": 8,
        "rewards": [{"name": "reward_model", "model": "reward/adapter"}],
    },
}  # fmt: skip
EVALS = {"sft": ["tiny_heldout"], "reward": [], "ppo": []}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, base):
    """The folder of a small pipeline as recipes/pipeline.py leaves it: SFT, reward model and PPO, two steps each."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name, recipe in RECIPES.items():
        recipe |= {"model_name_or_path": str(base[0]), "output_dir": name, "max_steps": 2, "save_steps": 1}
        recipe |= {"max_train_rows": 32, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe | {"learning_rate": 1.0e-2}))
    stages = [
        {"name": name, "recipe": name, "config": f"{name}.yaml", "evals": EVALS[name]}
        | ({"parent": "sft"} if name != "sft" else {})
        for name in RECIPES
    ]
    pipeline = {"name": "small", "model_name_or_path": str(base[0]), "output_dir": "out", "evals": ["tiny_heldout"]}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline | {"stages": stages}))
    line = [sys.executable, ROOT / "recipes/pipeline.py", "--config", "pipeline.yaml"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "out"


def test_a_pipeline_is_one_repository_with_a_folder_per_stage(api, base, pipeline, repo_id):
    assert call("push", pipeline, repo_id, "--base_model", base[1]) == 0
    paths = set(api.list_repo_files(repo_id)) - {".gitattributes"}
    adapter = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    adapter |= {"chat_template.jinja", "run.json"}
    wanted = {f"{stage}/{name}" for stage in RECIPES for name in adapter} | {"README.md", "lineage.json"}
    assert paths == wanted | {"sft/results.json", "reward/reward_statistics.json"}
    lineage = json.loads(Path(api.hf_hub_download(repo_id, "lineage.json")).read_text())
    sft, *others = lineage["stages"]
    assert sft["parent"] is None and [stage["parent"] for stage in others] == [sft["adapter"]] * 2
    reward_models = {stage["name"]: stage["reward_models"] for stage in lineage["stages"]}
    assert reward_models == {"sft": [], "reward": [], "ppo": [others[0]["adapter"]]}
    assert len(api.list_repo_refs(repo_id).tags) == 3
    card = ModelCard.load(repo_id, token=TOKEN)
    card.validate()
    for stage in RECIPES:
        assert f"](#stage-{stage})" in card.text and f"\n## Stage {stage}\n" in card.text
    recipe = yaml.safe_load(card.text.split("## Stage ppo")[1].split("```yaml")[1].split("```")[0])
    assert recipe["rewards"] == [{"name": "reward_model", "model": f"{repo_id.split('/')[1]}/reward"}]
    assert recipe["adapter_name_or_path"] == f"{repo_id.split('/')[1]}/sft"
    assert str(pipeline) not in card.content and str(base[0]) not in card.content


def test_every_stage_of_a_shared_pipeline_loads_with_plain_peft_and_keeps_its_head(
    hub, base, pipeline, repo_id, tmp_path
):
    assert call("push", pipeline, repo_id, "--base_model", base[1]) == 0
    code = f"""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
ids = torch.arange(30).view(1, -1)
def logits(stage, base, adapter, **where):
    kind = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
    torch.manual_seed(len(where))  # a head that is not brought along would be another one
    model = kind.from_pretrained(base, **({{"num_labels": 1}} if stage == "reward" else {{}}))
    model.config.pad_token_id = 0
    plain = model(input_ids=ids).logits
    return plain, PeftModel.from_pretrained(model, adapter, **where)(input_ids=ids).logits
for stage in {list(RECIPES)}:
    _, local = logits(stage, {str(base[0])!r}, f"{pipeline}/{{stage}}/adapter")
    plain, shared = logits(stage, {base[1]!r}, {repo_id!r}, subfolder=stage)
    print(stage, torch.equal(local, shared), torch.equal(plain, shared))
"""
    printed = in_fresh_process(code, hub, tmp_path / "home").split()
    assert printed == [word for stage in RECIPES for word in (stage, "True", "False")]


def test_code_on_the_card_works_as_it_is_printed(hub, base, pipeline, repo_id, tmp_path):
    assert call("push", pipeline, repo_id, "--base_model", base[1]) == 0
    text = hub.files(repo_id)["README.md"].decode() if not REAL else ModelCard.load(repo_id, token=TOKEN).text
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) == 2  # a language model and a reward model
    for block in blocks:  # plain code: no line needs anything of this project
        assert "schoolhouse." not in block
    printed = in_fresh_process("\nprint('----')\n".join(blocks), hub, tmp_path / "home").split("----\n")
    # The reference: the local adapters, with the loaders of this project.
    chat = [{"role": "user", "content": "What is 17 + 25?"}]
    adapter = str(pipeline / "ppo/adapter")
    tokenizer, model = load_tokenizer(str(base[0]), adapter), load_model(str(base[0]), adapter, "float32", "cpu")
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=64, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) + "\n" == printed[0]
    scorer, tokenizer = load_scorer(str(pipeline / "reward/adapter"), str(base[0]), "float32", "cpu")
    chat.append({"role": "assistant", "content": "42"})
    ids = tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")
    assert float(printed[1]) == pytest.approx(float(scorer(**ids).logits[0, 0]), abs=1e-5)


def test_a_shared_ppo_adapter_carries_nothing_of_the_value_model(hub, api, base, pipeline, repo_id):
    checkpoint = pipeline / "ppo/checkpoints/checkpoint-2"
    values = {tensor.numpy().tobytes() for tensor in load_file(checkpoint / "value_model.safetensors").values()}
    assert values  # it lies beside the adapter
    assert call("push", pipeline / "ppo", repo_id, "--base_model", base[1]) == 0
    assert not [path for path in api.list_repo_files(repo_id) if "value" in path or path.endswith((".pt", ".bin"))]
    shared = load_file(api.hf_hub_download(repo_id, "adapter_model.safetensors"))
    assert all("lora_" in name for name in shared)
    assert not values & {tensor.numpy().tobytes() for tensor in shared.values() if tensor.any()}
    mine = load_file(pipeline / "ppo/adapter/adapter_model.safetensors")
    assert mine.keys() == shared.keys() and all(torch.equal(mine[name], shared[name]) for name in mine)
    assert not any(
        value in body for value in values if len(value) > 64 for body in [*hub.received, *hub.blobs.values()]
    )


@loopback
@pytest.mark.parametrize("claimed", ["honest", pytest.param("inflated", marks=pytest.mark.evidence)])
def test_verify_measures_the_claim_again(hub, api, base, pipeline, repo_id, tmp_path, claimed):
    run = Path(shutil.copytree(pipeline / "sft", tmp_path / "run"))
    if claimed == "inflated":
        results = json.loads((run / "eval/results.json").read_text())
        task = results["tasks"]["tiny_heldout"]
        task["value"], task["interval"] = 0.8 * task["value"], [0.8 * bound for bound in task["interval"]]
        (run / "eval/results.json").write_text(json.dumps(results))
    assert call("push", run, repo_id, "--base_model", base[1]) == 0
    line = command("verify", repo_id, "--base_model", base[0])
    environment = elsewhere(hub, tmp_path / "home")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    status, verdict = (0, "reproduced") if claimed == "honest" else (1, "differs")
    assert done.returncode == status and done.stdout.splitlines()[-1] == verdict, done.stdout + done.stderr
    assert f"sft tiny_heldout: {verdict} (claimed " in done.stdout


def sft_in_fresh_process(hub, tmp_path, base, then="", **recipe) -> str:
    """Output of an SFT run of two steps; `then` is run after it."""
    recipe |= {
        "model_name_or_path": str(base), "use_peft": True, "lora_r": 2, "dataset_name": "tiny/sft",
        "max_train_rows": 32, "output_dir": str(tmp_path / "run"), "max_steps": 2, "per_device_train_batch_size": 4,
        "save_steps": 1, "report_to": "none", "bf16": False,
    }  # fmt: skip
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["sft.py", "--config", str(tmp_path / "sft.yaml")]
    code = f"import sys; sys.argv = {arguments}; import recipes.sft as sft; sft.main(); {then}"
    return in_fresh_process(code, hub, tmp_path / "home")


@loopback
def test_recipe_with_push_to_hub_shares_adapter_and_no_checkpoint(hub, base, repo_id, tmp_path):
    printed = sft_in_fresh_process(hub, tmp_path, base[1], push_to_hub=True, hub_model_id=repo_id)
    assert f"pushed to {hub.url}/{repo_id}" in printed
    paths = set(hub.files(repo_id))
    assert {"adapter_model.safetensors", "README.md", "run.json", "lineage.json"} <= paths
    assert not [path for path in paths if path.endswith(".bin") or "checkpoint" in path]


def test_recipe_without_push_to_hub_imports_no_hub_code(hub, base, tmp_path):
    then = "print('hub:', [name for name in sys.modules if name.startswith('schoolhouse.hub')])"
    assert sft_in_fresh_process(hub, tmp_path, base[0], then).splitlines()[-1] == "hub: []"
