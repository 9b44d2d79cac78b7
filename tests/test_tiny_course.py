"""The tiny school's stages do what they claim, on three seeds each; minutes, so behind the marker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


def run(script, *flags):
    subprocess.run([sys.executable, script, *map(str, flags)], cwd=ROOT, check=True)


def measure(folder, tasks, *flags):
    run("eval/run.py", "--model_name_or_path", "data/tiny/base", "--tasks", tasks, "--output_dir", folder, *flags)
    return folder


def compare(before, after):
    run("eval/run.py", "--compare", before, after, "--output_dir", after)
    return json.loads((after / "comparison.json").read_text())["tasks"]


@pytest.mark.evidence
@pytest.mark.timeout(1800)
def test_sft_teaches_the_tiny_base_to_answer_on_every_seed(tmp_path):
    tasks = "tiny_arithmetic,tiny_stories,tiny_facts"
    before = measure(tmp_path / "base", tasks)
    for seed in (0, 1, 2):
        folder = tmp_path / f"seed{seed}"
        run("recipes/sft.py", "--config", "recipes/configs/tiny/sft.yaml", "--seed", seed, "--output_dir", folder)
        after = measure(folder / "eval", tasks, "--adapter_name_or_path", folder / "adapter")
        changes = compare(before, after)
        for task in tasks.split(","):
            assert changes[task]["difference"] > 0 and changes[task]["p_adjusted"] < 0.01, (seed, task)
        # A third to two thirds, so that practice has room to show a gain.
        assert 0.33 < changes["tiny_arithmetic"]["after"] < 0.67, seed
