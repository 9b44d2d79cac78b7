"""A stage of the user's own as `docs/add_a_stage.md` shows it, from a folder outside the checkout."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peft import PeftModel
from tiny_models import make_tiny_model
from transformers import AutoModelForCausalLM


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
