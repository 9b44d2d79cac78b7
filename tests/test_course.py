"""What a change makes a course train again, and that killed courses end like undisturbed ones."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_models import make_tiny_model

from eval.harness.models import adapter_hash
from recipes.syllabus.keys import code_hash, eval_key, is_done, product, set_keys
from recipes.syllabus.plan import load_course
from recipes.syllabus.process import Stop, run_program, tail
from recipes.syllabus.runner import clear, write_json


ROOT = Path(__file__).parents[1]
RECIPE = """
model_name_or_path: base
dataset_path: {data}
dataset_name: prompt-completion
learning_rate: {rate}
output_dir: out/{name}
{parent}
"""
COURSE = """
name: planted
model_name_or_path: base
output_dir: out
evals: [tiny_heldout]
stages:
  - {name: sft, recipe: sft, config: sft.yaml, evals: [tiny_heldout]}
  - {name: math, recipe: grpo, config: math.yaml, after: sft}
  - {name: judge, recipe: reward, config: judge.yaml, after: sft}
  - {name: ppo, recipe: ppo, config: ppo.yaml, after: sft}
"""


@pytest.fixture
def school(tmp_path, monkeypatch):
    """A course of four stages, whose adapters are planted: planning does not look into weights."""
    monkeypatch.chdir(tmp_path)
    make_tiny_model(tmp_path / "base")
    for name in ("sft", "math", "judge", "ppo"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
        parent = "" if name == "sft" else "adapter_name_or_path: out/sft/adapter"
        if name == "ppo":
            parent += "\nrewards: [{name: reward_model, model: out/judge/adapter}]"
        text = RECIPE.format(data=f"{name}.jsonl", rate="1.0e-3", name=name, parent=parent)
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "course.yaml").write_text(COURSE)
    course = load()
    for stage in course.stages[1:]:
        (stage.folder / "adapter").mkdir(parents=True)
        (stage.folder / "adapter" / "adapter_config.json").write_text("{}")
        (stage.folder / "adapter" / "adapter_model.safetensors").write_text(stage.name)
    settle(course)
    return tmp_path


def load():
    course = load_course("course.yaml")
    set_keys(course)
    return course


def settle(course):
    """Write the records that a finished course leaves."""
    by_name = {stage.name: stage for stage in course.stages}
    for stage in course.stages[1:]:
        parents = {name: product(by_name[name]) for name in stage.parents}
        state = {
            "key": stage.key,
            "parts": stage.parts,
            "parents": parents,
            "status": "done",
            "product": product(stage),
        }
        write_json(stage.folder / "stage.json", state)


def stale():
    course = load()
    return [stage.name for stage in course.stages if not is_done(course, stage)]


def replace(path, old, new):
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def test_a_settled_course_has_nothing_to_do_also_when_only_evals_change(school):
    assert stale() == []
    replace(
        "course.yaml",
        "after: sft}\n  - {name: judge",
        "after: sft, evals: [tiny_facts], minutes: 3}\n  - {name: judge",
    )
    assert stale() == []


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda: replace("sft.yaml", "1.0e-3", "2.0e-3"), ["sft", "math", "judge", "ppo"]),
        (lambda: replace("math.yaml", "1.0e-3", "2.0e-3"), ["math"]),
        (lambda: replace("judge.yaml", "1.0e-3", "2.0e-3"), ["judge", "ppo"]),
        (lambda: Path("judge.jsonl").write_text("{} \n"), ["judge", "ppo"]),
        (lambda: Path("ppo.jsonl").write_text("{} \n"), ["ppo"]),
        (lambda: make_tiny_model(Path("base"), seed=1), ["sft", "math", "judge", "ppo"]),
        (
            lambda: replace("course.yaml", "math.yaml, after: sft", "math.yaml, after: sft, overrides: {seed: 1}"),
            ["math"],
        ),
        (lambda: Path("out/math/adapter/adapter_model.safetensors").write_text("other"), ["math"]),
        (lambda: Path("out/judge/adapter/adapter_model.safetensors").unlink(), ["judge", "ppo"]),
        (lambda: Path("math.yaml").write_text("# a comment\n" + Path("math.yaml").read_text()), []),
    ],
    ids=["root", "leaf", "judge", "data", "leaf-data", "base", "override", "adapter", "lost", "comment"],
)
def test_a_change_reaches_the_stage_and_its_children_and_no_other(school, change, expected):
    change()
    assert stale() == expected


def test_only_code_that_a_stage_runs_belongs_to_it(tmp_path):
    for name, text in {
        "recipes/sft.py": "from recipes.training.common import x\n",
        "recipes/training/__init__.py": "",
        "recipes/training/common.py": 'def f():\n    import data.rows\nP = "from eval.sandbox.inner import main"\n',
        "data/rows.py": "",
        "eval/sandbox/inner.py": "",
        "eval/run.py": "",
        "recipes/ppo.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def changed_by(name, added="changed = 1\n"):
        # Files are read once per process, so each change is looked at from a copy.
        import shutil

        copy = tmp_path.with_name(f"{tmp_path.name}-{name.replace('/', '-')}-{len(added)}-{time.monotonic_ns()}")
        shutil.copytree(tmp_path, copy)
        (copy / name).write_text((copy / name).read_text() + added)
        return code_hash("recipes/sft.py", copy) != code_hash("recipes/sft.py", tmp_path)

    assert all(
        changed_by(name)
        for name in ("recipes/sft.py", "recipes/training/common.py", "data/rows.py", "eval/sandbox/inner.py")
    )
    assert not changed_by("eval/run.py") and not changed_by("recipes/ppo.py")
    assert not changed_by("recipes/sft.py", "# a comment\n")


def test_an_eval_belongs_to_the_adapter_itself_and_its_tasks(school):
    course = load()
    stage = course.stages[1]
    assert eval_key(course, stage, "a") != eval_key(course, stage, "b")
    before = eval_key(course, stage, "a")
    assert before == eval_key(load(), stage, "a")
    stage.evals = ["tiny_facts"]
    assert eval_key(course, stage, "a") != before


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("recipe: grpo", "recipe: gpro", r"course.yaml:8: stages.1.recipe: unknown recipe 'gpro'; known: sft"),
        ("math.yaml, after: sft", "math.yaml, after: ppo", r"course.yaml:8: .*'ppo' is no earlier stage"),
        ("math.yaml, after: sft", "math.yaml", r"course.yaml:8: .*after is missing: math.yaml continues out/sft"),
        ("name: judge", "name: sft", r"course.yaml:9: .*'sft' is taken"),
        ("name: judge", "name: ../x", r"course.yaml:9: .*use letters"),
        ("after: sft}\n  - {name: judge", "aftr: sft}\n  - {name: judge", r"course.yaml:8: .*did you mean after"),
        ("config: ppo.yaml", "config: none.yaml", r"course.yaml:10: .*none.yaml does not exist"),
    ],
)
def test_a_mistake_is_named_with_its_line(school, old, new, message):
    replace("course.yaml", old, new)
    with pytest.raises(ValueError, match=message):
        load_course("course.yaml")


def test_a_folder_that_the_course_did_not_make_is_kept(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    write_json(mine / "stage.json", {"key": "k"})
    write_json(other / "run.json", {"kept": True})
    clear(mine)
    clear(other)
    assert [path.name for path in tmp_path.iterdir()] == ["other.kept-1"]
    assert json.loads((tmp_path / "other.kept-1" / "run.json").read_text()) == {"kept": True}


def test_programs_die_with_the_course_that_is_killed(tmp_path):
    # The grandchild is what accelerate's training process is to the course.
    inner = "import os, time, pathlib; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    course = (
        "import sys; from pathlib import Path; from recipes.syllabus.process import Stop, run_program\n"
        f"run_program([sys.executable, '-c', {launcher!r}], Path('log'), Stop())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", course], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    pid = int((tmp_path / "pid").read_text())
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_signal_reaches_the_program_and_its_last_work_is_waited_for(tmp_path):
    inner = (
        "import signal, sys, time, pathlib\n"
        "def stop(*_):\n    time.sleep(0.5); pathlib.Path('saved').touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); pathlib.Path('ready').touch(); time.sleep(60)"
    )
    # The launcher dies of the signal at once, as accelerate's does.
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    course = (
        "import sys; from pathlib import Path; from recipes.syllabus.process import Stop, run_program\n"
        f"stop = Stop(); run_program([sys.executable, '-c', {launcher!r}], Path('log'), stop)\n"
        "sys.exit(7 if stop.number == 15 and Path('saved').exists() else 1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", course], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 7


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_log_shows_the_end_without_control_characters(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        program = r"print('\x1b[31mred'); print('1/2\r2/2'); raise SystemExit(3)"
        status, seconds, peak = run_program([sys.executable, "-c", program], tmp_path / "log", Stop())
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    assert status == 3 and seconds > 0 and peak > 1_000_000
    assert tail(tmp_path / "log") == "[31mred\n2/2"


@pytest.mark.evidence
@pytest.mark.timeout(3600)
def test_a_course_killed_ten_times_ends_with_the_same_adapters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tiny_model(tmp_path / "base")
    recipe = (
        "model_name_or_path: base\ndataset_name: tiny/sft\nmax_length: 128\nper_device_train_batch_size: 2\n"
        "max_steps: 200\nsave_steps: 5\nlearning_rate: 1.0e-3\ngradient_checkpointing: false\nreport_to: none\n"
        "use_cpu: true\n"
    )
    Path("a.yaml").write_text(recipe + "lora_r: 4\nlora_target_modules: all-linear\noutput_dir: out/a\n")
    Path("b.yaml").write_text(recipe + "adapter_name_or_path: out/a/adapter\noutput_dir: out/b\n")
    Path("course.yaml").write_text(
        "model_name_or_path: base\noutput_dir: whole\nstages:\n  - {name: a, recipe: sft, config: a.yaml}\n"
        "  - {name: b, recipe: sft, config: b.yaml, after: a, evals: [tiny_facts]}\n"
    )
    command = [sys.executable, ROOT / "recipes/course.py", "--config", "course.yaml", "--output_dir"]
    began = time.monotonic()
    subprocess.run([*command, "whole"], check=True)
    whole = time.monotonic() - began
    rng, finished = random.Random(0), {}
    for _ in range(10):
        process = subprocess.Popen([*command, "killed"])
        time.sleep(rng.uniform(0.1, 0.5) * whole)
        process.kill()
        process.wait()
        for name in ("a", "b"):
            record = Path("killed", name, "run.json")
            if record.is_file() and json.loads(record.read_text())["status"] == "finished":
                assert finished.setdefault(name, record.read_text()) == record.read_text()
    subprocess.run([*command, "killed"], check=True)
    for name, text in finished.items():
        assert Path("killed", name, "run.json").read_text() == text
    for name in ("a", "b"):
        assert adapter_hash(f"killed/{name}/adapter") == adapter_hash(f"whole/{name}/adapter")
