"""The code that a script runs is part of its fingerprint, however it is imported."""

import json
import subprocess
import sys
import time
from pathlib import Path

from tiny_models import make_tiny_model

from schoolhouse.core.fingerprint import code_hash


ROOT = Path(__file__).parents[1]


def _copy_of_the_code(folder):
    for name in ("recipes", "eval", "schoolhouse"):
        for file in (path for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".jinja", ".css", ".js")):
            (folder / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.relative_to(ROOT)).write_bytes(file.read_bytes())
    return folder


def _changes_the_hash(script, file, code, added="changed = 1\n"):
    # Files are read once per process, so each change is looked at from a new copy of that one file.
    import shutil

    copy = code.with_name(f"copy-{time.monotonic_ns()}")
    shutil.copytree(code, copy)
    (copy / file).write_text((copy / file).read_text() + added)
    changed = code_hash(copy / script, copy / "schoolhouse") != code_hash(code / script, code / "schoolhouse")
    shutil.rmtree(copy)
    return changed


def test_every_way_to_import_a_module_makes_it_part_of_the_code(tmp_path):
    code = tmp_path / "code"
    for name, text in {
        "recipes/sft.py": "from schoolhouse.training.one import x\nfrom schoolhouse.training.two import y\n",
        "schoolhouse/training/__init__.py": "",
        "schoolhouse/training/one.py": "from schoolhouse.data import rows\nfrom ..data.more import (\n    x,\n)\n",
        "schoolhouse/training/two.py": "def f():\n    import schoolhouse.data.inside\n",
        "schoolhouse/data/rows.py": "",
        "schoolhouse/data/more.py": "",
        "schoolhouse/data/inside.py": "",
        "schoolhouse/core/templates/plain.jinja": "",
        "schoolhouse/sandbox/inner.py": "",
        "schoolhouse/report/page.py": "",
        "eval/run.py": "",
        "eval/tasks/sums.yaml": "",
        "data/tiny/sums.yaml": "",
        "recipes/ppo.py": "",
    }.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(text)
    tasks = ("eval/tasks/sums.yaml", "data/tiny/sums.yaml")
    others = ("eval/run.py", "recipes/ppo.py", "schoolhouse/report/page.py", *tasks)
    for path in sorted(code.rglob("*.*")):
        file = str(path.relative_to(code))
        assert _changes_the_hash("recipes/sft.py", file, code) == (file not in others), file
    assert not _changes_the_hash("recipes/sft.py", "recipes/sft.py", code, "# a comment\n")
    assert all(_changes_the_hash("eval/run.py", file, code) for file in tasks)


LOADED = """
import json, runpy, sys
from pathlib import Path
script, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_path(script, run_name="__main__")
finally:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
    root = Path(script).parents[1]
    ours = sorted(str(Path(file).relative_to(root)) for file in files if Path(file).is_relative_to(root))
    Path("loaded.json").write_text(json.dumps(ours))
"""


def test_what_real_runs_load_belongs_to_their_code(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    rows = {"prompt": "2 + 2", "completion": "#### 4", "answer": "4", "chosen": "#### 4", "rejected": "no"}
    for file, columns in {
        "sft": ("prompt", "completion"), "pairs": ("prompt", "chosen", "rejected"), "sums": ("prompt", "answer")
    }.items():  # fmt: skip
        (tmp_path / f"{file}.jsonl").write_text((json.dumps({key: rows[key] for key in columns}) + "\n") * 4)
    training = [
        *("--model_name_or_path", base, "--max_steps", "1", "--per_device_train_batch_size", "2", "--report_to"),
        *("none", "--dataset_test_split", "null"),
    ]
    rewarded = ["--num_generations", "2", "--max_completion_length", "4", "--rewards"]
    rewarded += ["{name: math}", "{name: format, weight: 0.1}"]
    runs = {
        "recipes/sft.py": ["--dataset_name", "sft.jsonl", "--output_dir", "sft", *training],
        "recipes/grpo.py": [
            *("--dataset_name", "sums.jsonl", "--output_dir", "grpo", "--preflight_prompts", "0"),
            *(*rewarded, *training),
        ],
        "recipes/reward.py": ["--dataset_name", "pairs.jsonl", "--output_dir", "scorer", *training],
        "recipes/ppo.py": ["--dataset_name", "sums.jsonl", "--output_dir", "ppo", *rewarded[2:], *training],
        "eval/run.py": [
            *("--model_name_or_path", base, "--tasks", "tiny_heldout,tiny_arithmetic", "--limit", "2"),
            *("--max_new_tokens", "4", "--output_dir", "results"),
        ],
        "eval/report.py": ["--stages", "base=results", "--output_dir", "report"],
    }
    code = _copy_of_the_code(tmp_path / "code")
    for script, flags in runs.items():
        done = subprocess.run(
            [sys.executable, "-c", LOADED, ROOT / script, *map(str, flags)],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert not done.returncode, done.stderr[-2000:]
        loaded = json.loads((tmp_path / "loaded.json").read_text())
        ours = [file for file in loaded if not file.startswith((".venv", "tests"))]
        one_of_each_package = {str(Path(file).parent): file for file in ours}
        assert len(one_of_each_package) > 3
        for file in one_of_each_package.values():
            assert _changes_the_hash(script, file, code), f"{script} runs {file}, which is in no key"
