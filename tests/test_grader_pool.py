"""Worker processes of the grader: they time out, die and are replaced, and never outlive the trainer."""

import contextlib
import itertools
import logging
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

# (reference, right answer): decided by computer algebra alone.
RIGHT = [("x^2 + 2x + 1", "\\boxed{(x+1)^2}"), ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}"), ("4", "\\boxed{\\sqrt{16}}")]
# No worker can finish these.
# Verdicts are kept by pair and time limit: a limit that was never used before asks the workers again.
FRESH_LIMITS = itertools.count(20, 0.001)
ENDLESS = [("x^2", "\\boxed{(10^7)!}"), ("5", "\\boxed{\\sum_{k=1}^{1000000000} \\sin(k^2)}")]


def grade(completion, reference, style="hash", timeout_s=1.0):
    return grade_many([completion], [reference], style, timeout_s)[0]


def assert_the_pool_is_alive() -> None:
    references, answers = zip(*RIGHT, strict=True)
    grades = grade_many(answers, references, timeout_s=next(FRESH_LIMITS))
    assert [one.correct for one in grades] == [True] * len(RIGHT)


def in_a_thread(function):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result(timeout=120)


def processes() -> dict[int, int]:
    """Parent of each process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_and_rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if name_and_rest[0] != "Z":
            parents[int(stat.parent.name)] = int(name_and_rest[1])
    return parents


def children(of: int) -> list[int]:
    return [pid for pid, parent in processes().items() if parent == of]


def servers() -> list[int]:
    command = b"schoolhouse.graders.worker"
    return [pid for pid in children(os.getpid()) if command in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]


def server_and_workers() -> tuple[int, list[int]]:
    (server,) = servers()
    return server, children(server)


def cpu_seconds(server: int) -> float:
    """CPU seconds of the server, its workers and those that it has waited for."""
    ticks = 0
    for pid in (server, *children(server)):
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def gone(pid: int, patience_s: float = 5.0) -> bool:
    deadline = time.monotonic() + patience_s
    while pid in processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    return pid not in processes()


@on_linux
@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("5", "#### 9^9^9"),
        ("x^2", "\\boxed{9^{9^{9}}}"),
        ("5", "#### 10^7!"),
        ("x^2", "\\boxed{10^7!}"),
        ("5", "\\boxed{(10^7)!}"),
        ("5", "\\boxed{\\sum_{k=1}^{1000000000} \\sin(k^2)}"),
    ],
)
def test_huge_numbers_are_given_up_after_the_time_limit_also_off_the_main_thread(reference, answer):
    in_a_thread(assert_the_pool_is_alive)
    (server,) = servers()
    before = cpu_seconds(server)
    assert in_a_thread(lambda: grade(answer, reference)).correct is False
    assert cpu_seconds(server) - before < 2  # the limit is 1 s, and a killed worker is replaced
    in_a_thread(assert_the_pool_is_alive)


@on_linux
def test_an_answer_that_ran_out_of_time_is_wrong_logged_and_not_remembered(caplog):
    (reference, answer), (other, wrong) = ENDLESS[0], ("x^2", "\\boxed{x^3}")
    with caplog.at_level(logging.WARNING):
        grades = grade_many([answer, wrong], [reference, other], timeout_s=0.9)
    assert [(one.correct, one.failure) for one in grades] == [(False, "timeout"), (False, None)]
    assert "1 of 2 comparisons of expressions: answers could not be evaluated and are wrong: timeout 1" in caplog.text
    pool.close()
    assert grade(wrong, other, timeout_s=0.9).correct is False
    assert servers() == []  # a kept verdict needs no process
    assert grade(answer, reference, timeout_s=0.9).failure == "timeout"
    assert servers() != []  # a time-out is no verdict


@on_linux
def test_a_reference_that_cannot_be_evaluated_gives_no_verdict(caplog):
    with caplog.at_level(logging.WARNING):
        grades = grade_many(["\\boxed{\\sqrt{16}}", "\\boxed{(10^7)!}"], ["(10^{8})!"] * 2, timeout_s=0.5)
    assert [(one.correct, one.failure) for one in grades] == [(None, "reference")] * 2
    assert "2 of 2 comparisons of expressions: gave no verdict: reference 2" in caplog.text
    assert grade("\\boxed{(10^8)!}", "(10^{8})!").correct is True  # as text


@contextlib.contextmanager
def little_processor_time(share: float = 0.05):
    """Let the workers run for this share of the time only, as on a machine with twenty times as much to do."""
    ended = threading.Event()

    def starve() -> None:
        while not ended.is_set():
            workers = server_and_workers()[1]
            for number, pause in ((signal.SIGSTOP, 0.1 * (1 - share)), (signal.SIGCONT, 0.1 * share)):
                for pid in workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(pause)

    thread = threading.Thread(target=starve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@on_linux
def test_a_busy_machine_changes_no_verdict():
    pool.close()  # new workers, which take longer
    assert_the_pool_is_alive()
    reference, answer = "\\frac{x^{180}-1}{x-1}", "\\boxed{\\frac{(x^{90}-1)(x^{90}+1)}{x-1}}"
    began = time.monotonic()
    with little_processor_time():
        assert grade(answer, reference, timeout_s=0.3).correct is True
    assert time.monotonic() - began > 0.3  # longer than the limit, which is processor time


def test_many_threads_at_once_get_their_own_verdicts():
    limit = next(FRESH_LIMITS)

    def ask(number: int) -> list:
        texts = [f"\\boxed{{\\sqrt{{{n * n}}}}}" for n in range(number, number + 5)]
        return [one.correct for one in grade_many(texts, [str(number + 2)] * 5, timeout_s=limit)]

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
    references, answers = zip(ENDLESS[1], *RIGHT, strict=True)
    with ThreadPoolExecutor(1) as executor:
        grades = executor.submit(grade_many, answers, references, timeout_s=2 + next(FRESH_LIMITS) / 1000)
        time.sleep(0.3)
        for process in [server] if victim == "server" else workers:
            os.kill(process, signal.SIGKILL)
        assert [one.correct for one in grades.result(timeout=30)] == [False, *[True] * len(RIGHT)]
    assert all(gone(pid) for pid in workers)
    assert_the_pool_is_alive()


def kill_the_busy_worker(besides: set[int] = frozenset()) -> int:
    """Kill the worker that has computed for a while, and return its number."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        _, workers = server_and_workers()
        for pid in set(workers) - besides:
            with contextlib.suppress(OSError):
                state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if state == "R" and int(rest[10]) >= 10:  # hundredths of a second
                    os.kill(pid, signal.SIGKILL)
                    return pid
        time.sleep(0.01)
    raise AssertionError("no worker computes")


@on_linux
@pytest.mark.parametrize(("deaths", "failure"), [(1, "timeout"), (2, "died")])
def test_an_answer_is_to_blame_for_its_workers_end_if_it_ends_a_new_one_too(deaths, failure):
    pool.close()
    assert_the_pool_is_alive()
    reference, answer = ENDLESS[1]
    with ThreadPoolExecutor(1) as executor:
        graded = executor.submit(grade, answer, reference, timeout_s=2)
        killed: set[int] = set()
        for _ in range(deaths):
            killed.add(kill_the_busy_worker(besides=killed))
        one = graded.result(timeout=60)
    assert (one.correct, one.failure) == (False, failure)


@on_linux
def test_without_any_worker_there_is_no_verdict(monkeypatch):
    pool.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    one = grade(RIGHT[1][1], RIGHT[1][0], timeout_s=next(FRESH_LIMITS))
    assert (one.correct, one.failure) == (None, "lost")
    monkeypatch.undo()
    assert_the_pool_is_alive()


@on_linux
def test_an_idle_worker_that_was_killed_costs_no_verdict():
    assert_the_pool_is_alive()
    os.kill(server_and_workers()[1][0], signal.SIGKILL)
    time.sleep(0.5)
    assert_the_pool_is_alive()


def _graded_in_child(results) -> None:
    results.put([one.correct for one in grade_many([a for _, a in RIGHT], [r for r, _ in RIGHT], timeout_s=20)])
    pool.close()


@on_linux
def test_a_forked_child_grades_and_leaves_its_parents_pool_alone():
    assert_the_pool_is_alive()
    before = server_and_workers()[0]
    context = get_context("fork")
    results = context.Queue()
    child = context.Process(target=_graded_in_child, args=(results,))
    child.start()
    assert results.get(timeout=30) == [True] * len(RIGHT)
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
import threading
from schoolhouse.graders import grade_many
assert all(one.correct for one in grade_many([f"#### {n}" for n in range(100)], [str(n) for n in range(100)]))
assert threading.active_count() == 1, "ordinary pairs start no server"
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
from pathlib import Path
from schoolhouse.graders import grade_many
grade_many([r"\\boxed{{\\sqrt{{16}}}}"], ["4"], timeout_s=20)
arguments = [r"\\boxed{{(10^7)!}}"], ["x^2"], "hash", 500
threading.Thread(target=grade_many, args=arguments, daemon=True).start()
time.sleep(0.5)
print(Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
{end}
"""
    (server,) = map(int, run_script(tmp_path, script).stdout.split())
    assert gone(server)
    deadline = time.monotonic() + 5
    while group := subprocess.run(["pgrep", "-g", str(server), "-r", "R,S,D"], capture_output=True).stdout:
        assert time.monotonic() < deadline, group
        time.sleep(0.05)


def _spin(reference: str, answer: str) -> bool:
    while True:
        pass


def test_a_worker_that_nobody_is_left_to_kill_ends_by_itself(monkeypatch):
    monkeypatch.setitem(worker.TASKS, "same_value", _spin)
    child = get_context("fork").Process(target=worker.run_task, args=("same_value", "1", "1", 0.1))
    child.start()
    child.join(20)
    assert child.exitcode == -signal.SIGPROF


@on_linux
def test_closing_starts_anew():
    assert_the_pool_is_alive()
    (before,) = servers()
    pool.close()
    assert servers() == []
    assert_the_pool_is_alive()
    assert servers() != [before] and threading.active_count() < 50
