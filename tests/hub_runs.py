"""Run folders to push, and how tests call recipes/share.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from recipes import share
from schoolhouse.core.models import adapter_hash, model_hash


# With a token the very same tests ask the real Hub; SCHOOLHOUSE_TEST_HUB is set by `make test-hub`.
REAL = bool(os.environ.get("SCHOOLHOUSE_TEST_HUB"))
TOKEN = os.environ.get("HF_TOKEN", "") if REAL else "hf_ownersTokenForTests"
loopback = pytest.mark.skipif(REAL, reason="faults and other accounts can only be had on loopback")


def data_source(name: str, **values) -> dict:
    """An entry of run.json's `data`."""
    source = {"role": "train", "name": name, "location": name, "split": "train", "kind": "prompt-completion"}
    return source | {"rows": 689, "used_rows": 689, "sha256": "a" * 64, "license": "MIT"} | values


def make_run(folder: Path, base: Path, kind="sft", task_type="CAUSAL_LM", seed=0, **record) -> Path:
    """A run folder as a recipe leaves it, with an adapter that does something."""
    loader = AutoModelForCausalLM if task_type == "CAUSAL_LM" else AutoModelForSequenceClassification
    torch.manual_seed(seed)
    model = loader.from_pretrained(base, **({} if task_type == "CAUSAL_LM" else {"num_labels": 1}))
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type=task_type, init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder / "adapter")
    (folder / "adapter/README.md").unlink()
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "adapter")
    values = {
        "schema": 2,
        "status": "done",
        "recipe": kind,
        "command": [f"{kind}.py", "--config", "recipes/configs/tiny/sft.yaml"],
        "config": {"model_name_or_path": str(base), "learning_rate": 0.001, "output_dir": str(folder)},
        "seeds": {"seed": 0},
        "model": {"name": str(base), "revision": "main", "hash": model_hash(str(base))},
        "parent_adapter": None,
        "data": [data_source("svamp")],
        "git": {"revision": "b" * 40, "dirty": False},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "hardware": {"system": "Linux", "machine": "x86_64", "cores": 2, "threads": 2, "accelerators": [],
                     "processes": 1},
        "seconds": 12.0,
        "steps": 20,
        "product": "adapter",
        "product_hash": adapter_hash(str(folder / "adapter")),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(values | record))
    return folder


def change_record(run: Path, **values) -> None:
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_results(run: Path, value=0.6, interval=(0.55, 0.65), n=311, task="svamp", date=None, **more) -> Path:
    record = json.loads((run / "run.json").read_text())
    results = {
        "schema": 2,
        "model": record["model"]["name"],
        "adapter": str(run / "adapter"),
        "hashes": {"model": record["model"]["hash"], "adapter": record["product_hash"], "chat_template": None},
        "git": {"revision": "b" * 40, "dirty": False},
        "versions": {},
        "command": f"python eval/run.py --model_name_or_path {record['model']['name']} --tasks {task}",
        "date": date,
        "sampling": {"num_samples": 1, "temperature": 0.0, "dtype": "float32"},
        "tasks": {task: {"version": 1, "higher_is_better": True, "n": n, "value": value, "interval": list(interval),
                         "metrics": {"truncated": 0.1}, "max_new_tokens": 128} | more},
    }  # fmt: skip
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval/results.json").write_text(json.dumps(results))
    return run


def call(*argv) -> int:
    return share.main([str(part) for part in argv])


def command(*argv) -> list[str]:
    return [sys.executable, str(Path(share.__file__)), *map(str, argv)]


def elsewhere(hub, cache: Path, **variables: str) -> dict[str, str]:
    """The environment of a process whose cache is empty and whose Hub is the loopback server."""
    environment = os.environ | {"HF_HOME": str(cache), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return environment | ({} if REAL else {"HF_ENDPOINT": hub.url}) | variables


def in_fresh_process(code: str, hub, cache: Path) -> str:
    """Output of code in such a process."""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=elsewhere(hub, cache), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
