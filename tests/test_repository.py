"""What holds for the repository as a whole: its layout, its sizes, its imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
SOURCES = [path for room in ("recipes", "data", "eval") for path in sorted((ROOT / room).rglob("*.py"))]


def _imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_imports_go_one_way():
    allowed = {"data": {"data"}, "eval": {"eval", "data"}, "recipes": {"recipes", "eval", "data"}}
    for path in SOURCES:
        room = path.relative_to(ROOT).parts[0]
        ours = {module.split(".")[0] for module in _imported_packages(path)} & set(allowed)
        assert ours <= allowed[room], f"{path.relative_to(ROOT)} imports {sorted(ours - allowed[room])}"


def test_no_module_of_an_entry_folder_hides_a_library_or_a_package_of_ours():
    # `python recipes/sft.py` puts recipes/ first on sys.path, so each of its modules becomes a top-level name.
    taken = set(sys.stdlib_module_names) | {"datasets", "transformers", "trl", "peft", "accelerate", "torch", "data"}
    for room in ("recipes", "eval"):
        scripts = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
        packages = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}
        assert not (scripts | packages) & taken
        assert not scripts & packages


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_600_lines(path):
    assert len(path.read_text().splitlines()) <= 600


def test_every_file_that_the_readme_names_exists():
    names = re.findall(r"`((?:recipes|data|eval|tests|benchmarks)/[\w./-]*)`", (ROOT / "README.md").read_text())
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_packages_import_from_any_folder(tmp_path):
    subprocess.run([sys.executable, "-c", "import recipes, data, eval"], cwd=tmp_path, check=True)
