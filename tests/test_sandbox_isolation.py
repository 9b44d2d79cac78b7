"""The sandbox where a layer is missing: nothing hostile gains by it, nothing honest suffers, and it is said aloud."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile_programs import FORMULA, HONEST, HOSTILE, NAMESPACES, run_hostile
from malicious_programs import escape, fill

from schoolhouse.graders import code
from schoolhouse.sandbox import Job, Sandbox, isolation
from schoolhouse.sandbox.test_runner import ROOT


if sys.platform != "linux":
    pytest.skip("programs run on Linux only", allow_module_level=True)

TESTS = "assert f(1) == 2"


@pytest.fixture(scope="module")
def secret():
    path = Path(f"/var/tmp/hostile_{os.getpid()}.py")  # readable by everybody, unlike pytest's own folders
    path.write_text(FORMULA)
    path.chmod(0o644)
    yield path
    assert path.read_text() == FORMULA
    path.unlink()


def assert_nothing_went_wrong(outcome):
    assert outcome["programs"] >= 60 and outcome["honest"] >= 12
    wrong = ("passed", "hung", "escaped", "spoiled", "refused")
    assert {kind: outcome[kind] for kind in wrong} == {kind: [] for kind in wrong}


def test_hostile_programs_gain_nothing_and_honest_ones_pass_with_the_fewest_layers(secret):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = run_hostile(str(secret), os.getpid(), listener.getsockname()[1], ("landlock", *NAMESPACES))
    assert_nothing_went_wrong(outcome)


def test_the_same_for_an_ordinary_user(secret):
    if os.getuid():
        pytest.skip("this user is an ordinary one: the other test covers it")
    script = Path(__file__).with_name("hostile_programs.py")
    user = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    environment = {"PATH": "/usr/bin:/bin", "SCHOOLHOUSE_TOKEN": "hunter2", "PYTHONDONTWRITEBYTECODE": "1"}
    # An interpreter under root's home cannot be executed by anybody else: fall back on the system's.
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            check = [python, "-c", f"import sys; assert sys.version_info >= (3, 11); open({str(script)!r})"]
            subprocess.run(check, **user, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        break
    else:
        pytest.skip("no Python >= 3.11 that an ordinary user may execute, or the repository is not readable to one")
    command = [python, script, "--new", ",".join(("landlock", *NAMESPACES))]
    done = subprocess.run(command, **user, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["layers"]["uid"], outcome["layers"]["landlock"]) == (False, False)
    assert_nothing_went_wrong(outcome)


def test_no_program_takes_the_threads_of_another():
    hog = (
        "import threading, time\n"
        "for _ in range(62): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "def f(x): time.sleep(9)"
    )
    pool = (
        "from concurrent.futures import ThreadPoolExecutor\nimport time\ntime.sleep(0.5)\ndef f(x):\n"
        "    with ThreadPoolExecutor(24) as pool: return len(list(pool.map(time.sleep, [0.01] * 48))) - 46"
    )
    with Sandbox(workers=2, cache_size=0) as sandbox:
        if not sandbox.layers["threads"]:
            pytest.skip("threads are not counted by worker here")
        verdicts = sandbox.run([Job(hog, tests=TESTS, timeout_s=2), Job(pool, tests=TESTS)])
    assert [verdict.status for verdict in verdicts] == ["timeout", "passed"]


def test_a_verdict_that_another_program_may_have_caused_is_not_kept():
    more = "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(9,)).start()"
    with Sandbox(workers=1) as sandbox:
        jobs = [Job(source, tests=TESTS) for source in (more, "def f(x): return 3")]
        first, again = sandbox.run(jobs), sandbox.run(jobs)
        assert "can't start new thread" in first[0].detail
        assert [one is other for one, other in zip(first, again, strict=True)] == [False, True]


def test_waiting_for_a_busy_core_makes_no_program_wrong():
    program = "import time\ndef f(x):\n    while time.process_time() < 0.25: pass\n    return 2"
    with Sandbox(workers=1, cache_size=0) as sandbox:
        core = os.sched_getaffinity(sandbox.process_ids[0])
        busy = [
            # A session each, as the kernel may share a core out by sessions.
            subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True, cwd="/")
            for _ in range(10)
        ]
        try:
            for process in busy:
                os.sched_setaffinity(process.pid, core)
            start = time.monotonic()
            (verdict,) = sandbox.run([Job(program, tests=TESTS, timeout_s=0.3)])
            assert verdict.passed, verdict
            assert time.monotonic() - start > 1  # it did wait
        finally:
            for process in busy:
                process.kill()
                process.wait()


def test_uid_0_without_capabilities_gets_a_sandbox_without_namespaces():
    if os.getuid():
        pytest.skip("needs root")
    program = f"""
import ctypes, logging, sys
sys.path[:0] = [{ROOT!r}, {str(Path(__file__).parent)!r}]
from hostile_programs import HONEST, TESTS
from schoolhouse.sandbox import Job, Sandbox, isolation
for capability in range(64):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
isolation._drop_capabilities()
logging.basicConfig(format="%(levelname)s %(message)s")
with Sandbox(workers=1) as sandbox:
    print(*[verdict.status for verdict in sandbox.run([Job(source, tests=TESTS) for source in HONEST.values()])])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    assert done.stdout.split() == ["passed"] * len(HONEST), done.stderr
    assert "Traceback" not in done.stderr
    assert "WARNING sandbox: rlimits" in done.stderr and "netns, ipcns, pidns" in done.stderr.partition("off:")[2]


def test_packages_within_the_standard_library_are_not_readable(tmp_path, monkeypatch):
    names = (
        "json/decoder.py abc.py lib-dynload/_x.so site-packages/planted.py dist-packages/planted.py tests.py test/a.py"
    )
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    monkeypatch.setattr(isolation, "TIME_ZONES", ())
    assert {path.name for path in isolation.readable()} == {"json", "abc.py", "lib-dynload"}


def test_a_program_cannot_read_the_packages_of_this_interpreter():
    attempt = """
        for name in ("site-packages", "dist-packages"):
            found = os.path.join(os.path.dirname(os.__file__), name)
            if os.path.isdir(found): break
        assert os.listdir(found)
    """
    # Without a user of its own the program may go wherever this user may, but for Landlock.
    with Sandbox(workers=1, cache_size=0, without=("uid",)) as sandbox:
        (verdict,) = sandbox.run([Job(fill(escape(attempt)), tests="assert solve(2) == 17")])
    assert verdict.passed is False


def test_a_layer_that_is_off_is_a_warning_and_on_record(caplog):
    with caplog.at_level(logging.INFO), Sandbox(workers=1, without=("landlock",)):
        pass
    (record,) = [record for record in caplog.records if "sandbox:" in record.message]
    assert record.levelname == "WARNING" and "off: landlock" in record.message
    code.shared_sandbox.cache_clear()
    assert code.sandbox_layers() is None
    layers = code.shared_sandbox().layers
    assert code.sandbox_layers() == {name: bool(value) for name, value in layers.items()} and layers["rlimits"]


def test_the_environment_can_allow_weak_isolation(monkeypatch):
    monkeypatch.setenv("SCHOOLHOUSE_ALLOW_WEAK_ISOLATION", "1")
    with Sandbox(workers=1, cache_size=0, without=("seccomp", "landlock")) as sandbox:
        assert sandbox.run([Job("def f(x): return 2", tests=TESTS)])[0].passed


def test_hostile_programs_are_many_and_distinct():
    sources = [source for group in HOSTILE.values() for source in group.values()]
    assert len(set(sources)) == len(sources) >= 60
