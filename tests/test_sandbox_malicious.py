"""Malicious programs: none passes, none leaves anything behind, and the next ordinary program passes, for any user."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from malicious_programs import MARK, PROGRAMS, run_all


ORDINARY_USER = 65534

if sys.platform != "linux":
    pytest.skip("programs run on Linux only", allow_module_level=True)


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """Targets of the programs: a process, a listening socket, a readable file, a secret."""
    secret = Path(f"/var/tmp/{os.getpid()}_sandbox_secret")  # readable by everybody, unlike pytest's own folders
    secret.write_text("hunter2")
    secret.chmod(0o666)
    monkeypatch.setenv("SCHOOLHOUSE_TOKEN", "hunter2")
    users = {"user": ORDINARY_USER, "group": ORDINARY_USER, "extra_groups": []} if os.getuid() == 0 else {}
    victim = subprocess.Popen(["sleep", "3600"], **users, cwd="/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        yield victim, listener, secret
        with pytest.raises(TimeoutError):
            listener.accept()
    assert victim.poll() is None
    limits = Path(f"/proc/{victim.pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max cpu time")).split()[3] != "0"
    victim.send_signal(signal.SIGTERM)
    victim.wait()
    assert secret.read_text() == "hunter2" and secret.stat().st_mode & 0o777 == 0o666 and secret.stat().st_mtime > 0
    secret.unlink()


def leftovers():
    folders = ("/tmp", "/dev/shm", "/var/tmp", "/run", "/", ".", os.path.expanduser("~"), os.path.dirname(os.__file__))
    segments = Path("/proc/sysvipc/shm").read_text() + Path("/proc/sysvipc/sem").read_text()
    return [str(path) for folder in folders for path in Path(folder).glob(f"*{MARK}*")] + (
        ["System V"] if str(0x5C4001) in segments.split() else []
    )


def assert_harmless(outcome):
    rows = outcome["rows"]
    assert len(rows) == sum(map(len, PROGRAMS.values())) >= 80
    assert [row for row in rows if row["passed"] is not False] == []  # neither passed nor excused
    assert [row for row in rows if row["next"] != "passed"] == []
    assert [row for row in rows if row["left"]] == []
    assert leftovers() == []
    deadline = time.monotonic() + 60
    while alive := [pid for pid in outcome["alive"] if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"processes {alive} outlive the sandbox"
        time.sleep(0.05)
    print(
        {
            category: dict(Counter(row["status"] for row in rows if row["category"] == category))
            for category in PROGRAMS
        }
    )


def test_malicious_programs_gain_nothing(surroundings):
    victim, listener, secret = surroundings
    assert_harmless(run_all(victim.pid, listener.getsockname()[1], str(secret)))


def test_malicious_programs_gain_nothing_from_an_ordinary_user(surroundings):
    if os.getuid():
        pytest.skip("this user is an ordinary one: the other test covers it")
    victim, listener, secret = surroundings
    user = {"user": ORDINARY_USER, "group": ORDINARY_USER, "extra_groups": [], "cwd": "/"}
    script = Path(__file__).with_name("malicious_programs.py")
    # An interpreter under root's home cannot be executed by anybody else: fall back on the system's.
    check = f"import sys; assert sys.version_info >= (3, 11); open({str(script)!r})"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([python, "-c", check], **user, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        break
    else:
        pytest.skip("no Python >= 3.11 that an ordinary user may execute, or the repository is not readable to one")
    arguments = [str(victim.pid), str(listener.getsockname()[1]), str(secret)]
    environment = {"PATH": os.environ["PATH"], "SCHOOLHOUSE_TOKEN": "hunter2", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, script, *arguments], **user, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["layers"]["uid"] is False
    assert_harmless(outcome)
