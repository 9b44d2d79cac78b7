"""The wheel, installed in an environment of its own, trains, evaluates and reports from another folder."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of an environment that has the wheel and, read only, the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False)
    # Paths from a .pth file are not searched for further .pth files: this checkout's own install is not among them.
    packages = next((folder / "env/lib").glob("python3*/site-packages"))
    (packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n" + _main_site_packages())
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    return folder / "env/bin/python"


def _main_site_packages():
    import torch

    return str(Path(torch.__file__).parents[1]) + "\n"


def run(python, folder, *arguments, status=0):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-m", "schoolhouse", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_the_wheel_has_all_that_the_package_needs(installed, tmp_path):
    names = {
        str(path.relative_to(ROOT / "schoolhouse")) for path in (ROOT / "schoolhouse").rglob("*") if path.is_file()
    }
    package = next((installed.parents[1] / "lib").glob("python3*/site-packages/schoolhouse"))
    missing = {name for name in names if "__pycache__" not in name and not (package / name).is_file()}
    assert missing == set()
    for folder in ("recipes", "data", "eval"):
        for path in (ROOT / folder).rglob("*"):
            assert (
                path.is_dir() or "__pycache__" in path.parts or (package / "shipped" / path.relative_to(ROOT)).exists()
            )
    assert not (package.parent / "recipes").exists() and not (package.parent / "tests").exists()


def test_it_trains_evaluates_and_reports_from_another_folder(installed, tmp_path):
    training = ("--config", "recipes/configs/tiny/sft.yaml", "--max_train_rows", "64", "--max_steps", "2")
    run(installed, tmp_path, "sft", *training, "--output_dir", "run")
    assert (tmp_path / "run/adapter/adapter_model.safetensors").is_file()
    evaluation = ("--model_name_or_path", "data/tiny/base", "--tasks", "tiny_arithmetic", "--limit", "4")
    run(installed, tmp_path, "eval", *evaluation, "--output_dir", "before")
    run(installed, tmp_path, "eval", *evaluation, "--adapter_name_or_path", "run/adapter", "--output_dir", "after")
    run(installed, tmp_path, "report", "--stages", "base=before", "sft=after", "--output_dir", "report")
    page = (tmp_path / "report/report.html").read_text()
    assert "tiny_arithmetic" in page and "<style>" in page
    plan = run(installed, tmp_path, "pipeline", "--config", "recipes/configs/tiny/pipeline.yaml", "--dry-run")
    assert "grpo_math" in plan


def test_commands_need_no_checkout(installed, tmp_path):
    assert "tiny_arithmetic" in run(installed, tmp_path, "eval", "--list")
    talk = ("chat", "data/tiny/base", "--prompt", "Exercise: What is 2+3?", "--max_new_tokens", "4")
    assert run(installed, tmp_path, *talk).strip()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_file_has_the_pinned_versions_and_all_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    locked = {name: packages[name].get("version") for name in packages}
    wanted = {canonicalize_name(name): version for name, version in pins}
    others = {
        name: (wanted[name], locked[name]) for name in wanted.keys() & locked.keys() if wanted[name] != locked[name]
    }
    assert len(wanted.keys() & locked.keys()) > 60 and others == {}, "make lock"
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    asked = {_requirement(text) for text in project["dependencies"] + extras}
    known = {
        (entry["name"], str(SpecifierSet(entry.get("specifier", ""))))
        for entry in packages["schoolhouse"]["metadata"]["requires-dist"]
    }
    assert asked == known, "make lock"


def _requirement(text):
    requirement = Requirement(text)
    return canonicalize_name(requirement.name), str(requirement.specifier)


def test_a_script_that_stands_alone_names_what_it_imports():
    text = (ROOT / "recipes/minimal_grpo.py").read_text()
    header = re.match(r"# /// script\n((?:# .*\n)+)# ///\n", text)[1]
    named = {_requirement(each) for each in tomllib.loads(re.sub("(?m)^# ", "", header))["dependencies"]}
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    assert {name for name, _ in named} == set(imported) - sys.stdlib_module_names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named <= {_requirement(each) for each in project["dependencies"]}


def test_an_unknown_script_is_one_line(installed, tmp_path):
    told = run(installed, tmp_path, "sfd", status=2)
    assert told.count("\n") == 1 and "sft" in told
