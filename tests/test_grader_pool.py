"""The worker processes behind the grader: they time out, die and are replaced, and never outlive the trainer."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from schoolhouse.graders import grade_many, pool, worker


on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processes from /proc")

# (gold, honest answer): decided by computer algebra alone.
HONEST = [("x^2 + 2x + 1", "\\boxed{(x+1)^2}"), ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"), ("4", "\\boxed{\\sqrt{16}}")]
# No worker can finish these.
ENDLESS = [("x^2", "\\boxed{(10^7)!}"), ("5", "\\boxed{\\sum_{k=1}^{1000000000} \\sin(k^2)}")]


def grade(completion, reference, style="hash", timeout_s=1.0):
    return grade_many([completion], [reference], style, timeout_s)[0]


def assert_the_pool_is_alive() -> None:
    golds, answers = zip(*HONEST, strict=True)
    pool._verdicts.clear()
    assert [one.correct for one in grade_many(answers, golds, timeout_s=20)] == [True] * len(HONEST)


def in_a_thread(function):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def processes() -> dict[int, int]:
    """The parent of each process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_and_rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if name_and_rest[0] != "Z":
            parents[int(stat.parent.name)] = int(name_and_rest[1])
    return parents


def server_and_workers() -> tuple[int, list[int]]:
    (server,) = (server._process.pid for server in pool._servers.values() if server.alive)
    return server, [pid for pid, parent in processes().items() if parent == server]


def gone(pid: int, patience_s: float = 5.0) -> bool:
    deadline = time.monotonic() + patience_s
    while pid in processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    return pid not in processes()


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "#### 9^9^9"),
        ("x^2", "\\boxed{9^{9^{9}}}"),
        ("5", "#### 10^7!"),
        ("x^2", "\\boxed{10^7!}"),
        ("5", "\\boxed{(10^7)!}"),
        ("5", "\\boxed{\\sum_{k=1}^{1000000000} \\sin(k^2)}"),
    ],
)
def test_digit_towers_are_answered_within_two_seconds_off_the_main_thread(gold, answer):
    in_a_thread(assert_the_pool_is_alive)
    start = time.monotonic()
    verdict = in_a_thread(lambda: grade(answer, gold))
    assert time.monotonic() - start < 2
    assert verdict.correct is not True
    in_a_thread(assert_the_pool_is_alive)


def test_a_comparison_that_ran_out_of_time_is_none_counted_and_remembered():
    gold, answer = ENDLESS[0]
    before = pool.outcomes().get("timeout", 0)
    assert grade(answer, gold, timeout_s=0.9).correct is None
    start = time.monotonic()
    assert grade(answer, gold, timeout_s=0.9).correct is None
    assert time.monotonic() - start < 0.2
    assert pool.outcomes()["timeout"] == before + 2


def test_many_threads_at_once_get_their_own_verdicts():
    pool._verdicts.clear()

    def ask(number: int) -> list:
        texts = [f"\\boxed{{\\sqrt{{{n * n}}}}}" for n in range(number, number + 5)]
        return [one.correct for one in grade_many(texts, [str(number + 2)] * 5, timeout_s=20)]

    with ThreadPoolExecutor(8) as executor:
        assert list(executor.map(ask, range(2, 18))) == [[False, False, True, False, False]] * 16


@on_linux
def test_workers_have_a_memory_limit_and_need_no_consent_to_be_killed():
    assert_the_pool_is_alive()
    _, workers = server_and_workers()
    for pid in workers:
        limits = Path(f"/proc/{pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max address space"))
        assert line.split()[3] == str(worker.WORKER_MEMORY_BYTES)
        caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
        assert not int(caught, 16) & 1 << signal.SIGTERM - 1


@on_linux
@pytest.mark.parametrize("victim", ["workers", "server"])
def test_what_waits_when_processes_are_killed_is_done_by_new_ones(victim):
    assert_the_pool_is_alive()
    server, workers = server_and_workers()
    pool._verdicts.clear()
    golds, answers = zip(ENDLESS[1], *HONEST, strict=True)
    with ThreadPoolExecutor(1) as executor:
        grades = executor.submit(grade_many, answers, golds, timeout_s=2)
        time.sleep(0.3)
        for process in [server] if victim == "server" else workers:
            os.kill(process, signal.SIGKILL)
        assert [one.correct for one in grades.result(timeout=30)] == [None, *[True] * len(HONEST)]
    assert all(gone(pid) for pid in workers)
    assert_the_pool_is_alive()


@on_linux
def test_an_idle_worker_that_was_killed_costs_no_verdict():
    assert_the_pool_is_alive()
    os.kill(server_and_workers()[1][0], signal.SIGKILL)
    time.sleep(0.5)
    assert_the_pool_is_alive()


def _graded_in_child(results) -> None:
    results.put([one.correct for one in grade_many([a for _, a in HONEST], [g for g, _ in HONEST], timeout_s=20)])
    pool.close()


def test_a_forked_child_grades_and_leaves_its_parents_pool_alone():
    assert_the_pool_is_alive()
    before = server_and_workers()[0]
    context = get_context("fork")
    results = context.Queue()
    child = context.Process(target=_graded_in_child, args=(results,))
    child.start()
    assert results.get(timeout=30) == [True] * len(HONEST)
    child.join(10)
    assert_the_pool_is_alive()
    assert server_and_workers()[0] == before


def run_script(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_script_without_a_main_guard_runs_once_and_never_imports_sympy(tmp_path):
    (tmp_path / "sympy.py").write_text("raise SystemExit('the working folder was on the path of the workers')")
    script = """
import sys
print("once")
from schoolhouse.graders import grade_many
from schoolhouse.graders import pool
assert all(one.correct for one in grade_many([f"#### {n}" for n in range(100)], [str(n) for n in range(100)]))
assert not pool._servers, "ordinary pairs start no process"
assert grade_many([r"\\boxed{\\sqrt{12}}"], [r"2\\sqrt{3}"], timeout_s=20)[0].correct is True
assert not {"sympy", "math_verify", "pebble", "torch"} & set(sys.modules)
"""
    finished = run_script(tmp_path, script)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "once\n", "")


@on_linux
@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_workers_end_with_the_trainer_however_it_ends(tmp_path, end):
    script = f"""
import os, signal, threading, time
from schoolhouse.graders import grade_many
from schoolhouse.graders import pool
grade_many([r"\\boxed{{\\sqrt{{16}}}}"], ["4"], timeout_s=20)
arguments = [r"\\boxed{{(10^7)!}}"], ["x^2"], "hash", 500
threading.Thread(target=grade_many, args=arguments, daemon=True).start()
time.sleep(0.5)
print(*(server._process.pid for server in pool._servers.values()), flush=True)
{end}
"""
    (server,) = map(int, run_script(tmp_path, script).stdout.split())
    assert gone(server)
    deadline = time.monotonic() + 5
    while group := subprocess.run(["pgrep", "-g", str(server), "-r", "R,S,D"], capture_output=True).stdout:
        assert time.monotonic() < deadline, group
        time.sleep(0.05)


def _spin(gold: str, answer: str) -> bool:
    while True:
        pass


def test_a_worker_that_nobody_is_left_to_kill_ends_by_itself(monkeypatch):
    monkeypatch.setitem(worker.TASKS, "same_value", _spin)
    monkeypatch.setattr(worker, "GRACE_S", 0.1)
    child = get_context("fork").Process(target=worker._run, args=("same_value", "1", "1", 0.1))
    child.start()
    child.join(20)
    assert child.exitcode == -signal.SIGPROF


def test_closing_starts_anew():
    assert_the_pool_is_alive()
    pool.close()
    assert not pool._servers
    assert_the_pool_is_alive()
    assert threading.active_count() < 50
