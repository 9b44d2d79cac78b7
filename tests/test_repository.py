"""The repository as a whole: the direction of imports, what each script loads, files that the README names."""

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import make_tiny_model


ROOT = Path(__file__).parent.parent
# A sub-package imports those of the rows above its own, and among those of its own row only what is named here.
LAYERS = [
    ("config",),
    ("core",),
    ("data",),
    ("sandbox",),
    ("graders",),
    ("evaluation",),
    ("rewards",),
    ("training",),
    ("pipeline", "report", "hub"),
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def _modules():
    """Module name -> file of the package."""
    for path in sorted((ROOT / "schoolhouse").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _imports(path, modules):
    """Modules of the package that a file imports anywhere: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in modules else node.module


def test_imports_run_one_way():
    modules = dict(_modules())
    wrong = []
    for name, path in modules.items():
        own = name.split(".")[1] if "." in name else None
        for other in _imports(path, modules) if own in LAYER else ():
            theirs = other.split(".")[1] if "." in other else None
            if theirs in LAYER and theirs != own and LAYER[theirs] >= LAYER[own]:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    modules = dict(_modules())
    graph = {name: set(_imports(path, modules)) - {name} for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


LOADED = """
import json, runpy, sys
script, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("LOADED", json.dumps([name for name in sys.modules if name.split(".")[0] in ("schoolhouse", "scipy")]))
"""


def loaded(folder, script, *flags):
    """Modules of the package, and `scipy`, that a process has imported when a script ends."""
    command = [sys.executable, "-c", LOADED, ROOT / script, *flags]
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("LOADED ")[2])


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A folder with a tiny model and rows for every stage."""
    folder = tmp_path_factory.mktemp("school")
    make_tiny_model(folder / "base")
    row = {"prompt": "2 + 2", "completion": "#### 4", "answer": "4", "chosen": "#### 4", "rejected": "no"}
    for name, columns in {
        "sft": ("prompt", "completion"),
        "pairs": ("prompt", "chosen", "rejected"),
        "sums": ("prompt", "answer"),
    }.items():
        (folder / f"{name}.jsonl").write_text((json.dumps({key: row[key] for key in columns}) + "\n") * 8)
    return folder


TRAINING = (
    "--model_name_or_path base --per_device_train_batch_size 2 --dataset_test_split null --report_to none".split()
)
REWARDED = "--num_generations 2 --max_completion_length 4 --rewards".split()
NEVER = {
    "sft": ("sandbox", "graders", "evaluation", "rewards", "pipeline", "report", "hub"),
    "reward": ("sandbox", "graders", "evaluation", "rewards", "pipeline", "report", "hub"),
    "grpo": ("pipeline", "report", "hub"),
    "ppo": ("pipeline", "report", "hub"),
}


@pytest.mark.parametrize("recipe", NEVER)
def test_a_check_loads_only_what_its_stage_needs(school, recipe):
    data = {"sft": "sft", "reward": "pairs", "grpo": "sums", "ppo": "sums"}[recipe]
    flags = ["--dataset_name", f"{data}.jsonl", "--output_dir", recipe, "--check", *TRAINING]
    flags += [*REWARDED, "[{name: math}]"] if recipe in ("grpo", "ppo") else []
    names = loaded(school, f"recipes/{recipe}.py", *flags)
    packages = {name.split(".")[1] for name in names if name.startswith("schoolhouse.")}
    assert packages & set(NEVER[recipe]) == set()
    assert {"config", "core", "data", "training"} <= packages


def test_an_sft_run_passes_few_modules_and_a_report_fewer(school):
    flags = ["--dataset_name", "sft.jsonl", "--output_dir", "run", "--max_steps", "1", *TRAINING]
    names = loaded(school, "recipes/sft.py", *flags)
    assert not {name.split(".")[1] for name in names if name.startswith("schoolhouse.")} & set(NEVER["sft"])
    assert "scipy.stats" not in names
    assert len([name for name in names if name.startswith("schoolhouse")]) <= 36
    evaluation = "--model_name_or_path base --tasks tiny_heldout --limit 2 --output_dir results".split()
    loaded(school, "eval/run.py", *evaluation)
    names = loaded(school, "eval/report.py", "--stages", "base=results", "--output_dir", "report")
    assert len([name for name in names if name.startswith("schoolhouse")]) <= 25


def test_every_file_that_the_readme_and_the_docs_name_exists():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    named = re.compile(r"`((?:recipes|data|eval|schoolhouse|tests|benchmarks|docs)/[\w./-]*)`")
    absent = [name for page in pages for name in named.findall(page.read_text()) if not (ROOT / name).exists()]
    assert absent == []


def test_the_package_imports_from_any_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", "import schoolhouse"], cwd=tmp_path, check=True, env=environment)
