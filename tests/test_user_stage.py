"""A stage of the user's own as `docs/add_a_stage.md` shows it, from a folder outside the checkout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peft import PeftModel
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM

from schoolhouse.pipeline.plan import load_pipeline
from schoolhouse.pipeline.recipe_checks import check_recipes
from schoolhouse.pipeline.staleness import stale_reason


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the page's script, a tiny model, pairs and a recipe."""
    folder = tmp_path_factory.mktemp("mine")
    page = (ROOT / "docs/add_a_stage.md").read_text()
    (folder / "dpo.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    make_tiny_model(folder / "base")
    pairs = [
        {
            "prompt": [{"role": "user", "content": f"What is {n} + 1?"}],
            "chosen": [{"role": "assistant", "content": f"{n} + 1 = {n + 1}"}],
            "rejected": [{"role": "assistant", "content": "Who knows?"}],
        }
        for n in range(8)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "dpo.yaml").write_text(
        """
model_name_or_path: base
dataset_name: train.jsonl
dataset_test_split: null
output_dir: run
max_steps: 2
per_device_train_batch_size: 4
learning_rate: 1.0e-3
gradient_checkpointing: false
logging_steps: 1
save_steps: 1
report_to: none
use_cpu: true
"""
    )
    return folder


def dpo(folder, *flags):
    # The package as it is installed: from the folder itself nothing of the checkout is seen.
    command = [sys.executable, "dpo.py", "--config", "dpo.yaml", *flags]
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path('dpo.py', run_name='__main__')"
    command[1:2] = ["-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


def test_the_page_s_stage_leaves_a_run_folder_that_others_can_read(folder):
    done = dpo(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((folder / "run/run.json").read_text())
    assert manifest["status"] == "done" and manifest["recipe"] == "dpo" and manifest["steps"] == 2
    assert manifest["product"] == "adapter" and manifest["metrics"]["loss"] > 0
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    assert list(PeftModel.from_pretrained(base, folder / "run/adapter").peft_config) == ["default"]


def test_its_check_loads_no_weights_and_a_mistake_is_one_line(folder):
    checked = dpo(folder, "--check", "--output_dir", "other")
    assert checked.returncode == 0 and checked.stdout.startswith("8 pairs") and not (folder / "other").exists()
    wrong = dpo(folder, "--learning_rat", "1e-3")
    assert wrong.returncode == 2
    assert wrong.stderr.strip().splitlines()[-1] == "--learning_rat: unknown flag; did you mean learning_rate?"


PIPELINE = """
name: mine
model_name_or_path: base
output_dir: out
stages:
  - {name: preferred, recipe: dpo.py, config: dpo.yaml}
"""


def test_a_pipeline_trains_it_and_its_script_is_part_of_its_fingerprints(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("pipelines").mkdir()
    Path("pipelines/mine.yaml").write_text(PIPELINE)
    command = [sys.executable, str(ROOT / "recipes/pipeline.py"), "--config", "pipelines/mine.yaml"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(Path("out/preferred/run.json").read_text())["recipe"] == "dpo"
    assert json.loads(Path("out/pipeline.json").read_text())["stages"][1]["recipe"] == "dpo"
    assert "dpo" in Path("out/report/report.html").read_text()

    def stale():
        pipeline = load_pipeline("pipelines/mine.yaml")
        return stale_reason(pipeline, pipeline.stages[1])

    assert stale() == ""
    # Beside the pipeline's file it is found as well, and counts by what it holds.
    Path("dpo.py").rename("pipelines/dpo.py")
    assert stale() == ""
    text = Path("pipelines/dpo.py").rename("dpo.py").read_text()
    Path("pipelines/changed").mkdir()
    Path("pipelines/changed/dpo.py").write_text(text.replace("return 0", "return 0 + 0"))
    Path("pipelines/mine.yaml").write_text(PIPELINE.replace("dpo.py", "changed/dpo.py"))
    assert stale() == "changed: code"


@pytest.mark.parametrize(
    "script, recipe, message",
    [
        ("import nothing_here\n", "", "stage preferred: .*broken.py:1: ModuleNotFoundError: .*nothing_here"),
        ("x = 1\n", "", "stage preferred: .*broken.py has no function 'recipe_parser'"),
        (None, "learning_rte: 1.0\n", "stage preferred: .*learning_rte: .*learning_rate"),
    ],
)
def test_a_mistake_in_it_is_told_before_anything_is_trained(folder, monkeypatch, script, recipe, message):
    monkeypatch.chdir(folder)
    Path("broken.py").write_text(script or Path("dpo.py").read_text())
    Path("broken.yaml").write_text(Path("dpo.yaml").read_text() + recipe)
    Path("broken_pipeline.yaml").write_text(PIPELINE.replace("dpo", "broken"))
    pipeline = load_pipeline("broken_pipeline.yaml")
    with pytest.raises(ValueError, match=message):
        check_recipes(pipeline, pipeline.stages[1:])
