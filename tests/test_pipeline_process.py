"""The programs that a pipeline starts: their progress, their signals, their logs and their end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schoolhouse.pipeline.process import Progress, Stop, run_program, tail


ROOT = Path(__file__).parents[1]


def test_a_full_disk_ends_the_program_with_one_line(tmp_path, signals, monkeypatch):
    (tmp_path / "log").symlink_to("/dev/full")
    program = "import os, time; open('pid', 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(60)"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="No space left on device"):
        run_program([sys.executable, "-c", program], tmp_path / "log", Stop())
    deadline = time.monotonic() + 60
    while _lives(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


REPORTS = """
import time
from schoolhouse.core.progress import report_progress
report_progress("train", 0, 4)
for step in (1, 2, 3, 4):
    time.sleep(0.4)
    report_progress("train", step, 4, {"loss": 1 / step})
print("done")
"""


def test_progress_comes_as_the_program_reports_it(tmp_path, signals):
    seen = []
    command = [sys.executable, "-c", REPORTS]
    environment = {"PYTHONPATH": str(ROOT)}
    assert run_program(command, tmp_path / "log", Stop(), lambda p: seen.append((p.done, p.left)), environment) == 0
    assert {done for done, _ in seen} == {0, 1, 2, 3, 4} and (tmp_path / "log").read_text() == "done\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_pace_counts_from_the_first_event_of_a_kind():
    progress = Progress()
    for now, step in ((100.0, 50), (110.0, 55)):
        progress.update({"what": "train", "step": step, "of": 60, "metrics": {"loss": 0.5}}, now)
    progress.update({"what": "train", "step": 56, "of": 60, "metrics": {}}, 112.0)
    assert (progress.done, progress.total, progress.left, progress.metrics) == (56, 60, 8.0, {"loss": 0.5})
    progress.update({"what": "tiny_facts", "step": 8, "of": 80, "metrics": {}}, 113.0)
    assert (progress.what, progress.done, progress.left) == ("tiny_facts", 8, None)


def test_programs_die_with_the_pipeline_that_is_killed(tmp_path):
    # The grandchild is what accelerate's training process is to the pipeline.
    inner = "import os, time, pathlib; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    pipeline = (
        "import sys; from pathlib import Path; from schoolhouse.pipeline.process import Stop, run_program\n"
        f"run_program([sys.executable, '-c', {launcher!r}], Path('log'), Stop())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", pipeline], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
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
    pipeline = (
        "import sys; from pathlib import Path; from schoolhouse.pipeline.process import Stop, run_program\n"
        f"stop = Stop(); run_program([sys.executable, '-c', {launcher!r}], Path('log'), stop)\n"
        "sys.exit(7 if stop.number == 15 and Path('saved').exists() else 1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", pipeline], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
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


def test_a_log_shows_the_end_without_control_characters(tmp_path, signals):
    program = r"print('\x1b[31mred'); print('1/2\r2/2'); raise SystemExit(3)"
    assert run_program([sys.executable, "-c", program], tmp_path / "log", Stop()) == 3
    assert tail(tmp_path / "log") == "[31mred\n2/2"
    launcher = 'Traceback (most recent call last):\n  File "<frozen runpy>", line 1, in x\n'
    (tmp_path / "log").write_text(
        f"Traceback (most recent call last):\n  File x\nOSError: own\n{launcher}"
        "subprocess.CalledProcessError: Command 'x' returned non-zero exit status 2.\n"
    )
    assert tail(tmp_path / "log").endswith("OSError: own")
