"""What holds for the repository as a whole: its layout, its sizes, its imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parent.parent
LAYERS = [
    "config",
    "core",
    "data",
    "sandbox",
    "graders",
    "evaluation",
    "rewards",
    "training",
    "pipeline",
    "report",
    "hub",
]


def _imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_every_file_that_the_readme_names_exists():
    names = re.findall(
        r"`((?:recipes|data|eval|schoolhouse|tests|benchmarks|docs)/[\w./-]*)`", (ROOT / "README.md").read_text()
    )
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_package_imports_from_any_folder(tmp_path):
    subprocess.run([sys.executable, "-c", "import schoolhouse"], cwd=tmp_path, check=True)
