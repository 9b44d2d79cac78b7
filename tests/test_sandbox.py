"""The sandbox for ordinary programs: verdicts, time, failures of its own processes, and layers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from malicious_programs import escape, fill, processes

from schoolhouse.sandbox import Job, Sandbox, SandboxError, entry_point_of
from schoolhouse.sandbox import sandbox as sandbox_module
from schoolhouse.sandbox.prepared_tests import Unsupported, prepare
from schoolhouse.sandbox.test_runner import ROOT, ForkServer, ForkServerLost
from schoolhouse.sandbox.types import STATUSES


if sys.platform != "linux":
    pytest.skip("programs run on Linux only", allow_module_level=True)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, cache_size=0) as sandbox:
        yield sandbox


def run(sandbox, program, tests="assert f(1) == 2", **options):
    (verdict,) = sandbox.run([Job(program, tests=tests, **options)])
    assert verdict.status in STATUSES
    return verdict


def gone(pids):
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


# Jobs


@pytest.mark.parametrize(
    ("tests", "name"),
    [
        ("assert add(1, 2) == 3", "add"),
        ("assert set(find((1, 2))) == set((1, 2))", "find"),
        ("assert sum(10, 15) == 6", "sum"),
        ("import math\nassert math.isclose(area(outer(2)), 4)", "area"),
        ("def check(x):\n    return x\nassert check(mine(3))", "mine"),
        ("assert not is_odd(2)\nassert is_even(2)", "is_odd"),
        ("assert chain([Pair(1, 2)], 1) == 1", "chain"),
    ],
)
def test_the_entry_point_is_read_from_the_asserts(tests, name):
    assert entry_point_of(tests) == name
    assert Job("", tests=tests).entry_point == name


@pytest.mark.parametrize("tests", ["x = 1", "assert True", "assert (", "assert x.y(1) == 2"])
def test_tests_without_a_called_name_are_refused(tests):
    with pytest.raises(ValueError, match="entry_point"):
        Job("", tests=tests)


@pytest.mark.parametrize(
    "fields",
    [{"tests": ""}, {"tests": "assert f()", "timeout_s": 0}, {"tests": "assert f()", "memory_mb": 0}],
)
def test_a_job_needs_tests_and_limits(fields):
    with pytest.raises(ValueError, match=r"needs `tests`|must both be above 0"):
        Job("", **fields)


# Verdicts


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("def f(x): return x + 1", "passed"),
        ("f = lambda x: x + 1", "passed"),
        ("def f(x): return x", "wrong_answer"),
        ("def f(x): return None", "wrong_answer"),
        ("def f(x): return 1 / 0", "exception"),
        ("def g(x): return x + 1", "exception"),
        ("import no_such_module", "exception"),
        ("def f(x) return x", "syntax"),
        ("def f(x):\n    while True: pass", "timeout"),
        ("def f(x): return [0] * 10**12", "memory"),
        ("import sys\nsys.exit(1)", "exit"),
        ("import os\ndef f(x): os._exit(0)", "exit"),
        ("open('/tmp/x', 'w')", "denied"),
        ("import ctypes\ndef f(x): ctypes.string_at(0)", "crashed"),
        ("def f(x): return object()", "bad_return"),
        ("import os\ndef f(x): os.write(3, b'x' * 99)", "protocol"),
        ("def f(x):\n    while True: print('x' * 9999)", "output_limit"),  # long before its CPU time is used up
    ],
)
def test_each_outcome_has_its_status(sandbox, program, status):
    verdict = run(sandbox, program, timeout_s=0.5, memory_mb=64)
    assert verdict.status == status
    assert verdict.passed is (status == "passed")
    assert verdict.fraction == (status == "passed")


def test_each_test_counts_on_its_own(sandbox):
    tests = (
        "x = 3\nassert f(1) == 1\nassert f(2) == 4\nfor i in range(3):\n    assert f(i) == i\nassert f(5) == 5, 'no'"
    )
    verdict = run(sandbox, "def f(x): return x", tests)
    assert (verdict.status, verdict.fraction) == ("wrong_answer", 3 / 4)
    check = "def check(candidate):\n    assert candidate(1) == 1\n    assert candidate(2) == 3\n"
    assert run(sandbox, "def f(x): return x", check, entry_point="f").fraction == 1 / 2


def test_a_crash_ends_the_tests_and_keeps_what_had_passed(sandbox):
    tests = "assert f(0) == 0\nassert f(1) == 1\nassert f(0) == 0"
    verdict = run(sandbox, "import os\ndef f(x): return os._exit(1) if x else 0", tests)
    assert (verdict.status, verdict.fraction) == ("exit", 1 / 3)


def test_a_program_reads_no_input_and_prints_into_the_void(sandbox):
    assert run(sandbox, "import sys\nprint('x')\ndef f(x): return len(sys.stdin.read()) + 2").passed


def test_the_prelude_serves_the_program_and_the_tests(sandbox):
    prelude = "import math\ndef double(x): return 2 * x\ndef f(x):\n    '''Stub.'''\n"
    tests = "def check(candidate):\n    assert candidate(3) == double(3)\n"
    options = {"tests": tests, "entry_point": "f", "prelude": prelude}
    assert run(sandbox, "def f(x): return double(math.floor(x))", **options).passed
    assert run(sandbox, prelude + "    return double(x)\n", **options).passed
    verdict = run(sandbox, "def g(x): return 6", **options)
    assert verdict.status == "exception" and "'f'" in verdict.detail  # the stub does not count as the answer


def test_a_call_may_have_keywords_and_every_builtin_type(sandbox):
    tests = "assert f([1, (2,)], key={3: {4}}) == [[1, (2,)], {3: {4}}]\nassert f(1.5, key=b'x') == [1.5, b'x']"
    assert run(sandbox, "def f(x, key=None): return [x, key]", tests).passed


def test_the_tests_see_the_kind_of_an_exception(sandbox):
    tests = "try:\n    f(0)\n    assert False\nexcept ZeroDivisionError as error:\n    assert 'division' in str(error)"
    assert run(sandbox, "def f(x): return 1 / x", tests).passed
    assert run(sandbox, "def f(x): raise KeyError('division')", tests).status == "exception"


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit"])
def test_no_exception_of_a_program_steers_the_tests(sandbox, error):
    tests = "assert all(map(f, [1, 2]))\n"  # StopIteration out of `f` would end the `map` as if all were well
    assert run(sandbox, f"def f(x): raise {error}", tests, entry_point="f").passed is False


def test_tests_that_swallow_everything_do_not_pass_on_a_dead_program(sandbox):
    tests = "try:\n    f(1)\nexcept:\n    pass\nassert True\nfor x in [1]:\n    try: f(x)\n    except: assert True"
    for body in ("import os; os._exit(0)", "return object()", "raise SystemExit"):
        verdict = run(sandbox, f"def f(x):\n    {body}", tests, entry_point="f")
        assert (verdict.passed, verdict.fraction) == (False, 1 / 2)


@pytest.mark.parametrize(
    ("tests", "word"),
    [
        ("assert f(pair(1, 2)) == 1", "pair"),
        ("assert f(lambda x: x) == 1", "function"),
        ("assert f(object()) == 1", "object"),
        ("try:\n    f(1)\nexcept Empty:\n    pass", "Empty"),
        ("assert Pair(1, 2) == Pair(1, 2)", "Pair"),
        ("a = Pair(1, 2)\nassert a.x and f(3) < a", "Pair"),
        ("import no_such_module\nassert f(1) == 2", "no_such_module"),
        ("if False:\n    assert f(1) == 2", "never call"),
        ("assert undefined == 1\nassert f(1) == 2", "undefined"),
    ],
)
def test_tests_that_cannot_be_run_give_no_verdict(sandbox, tests, word):
    verdict = run(sandbox, "def f(x): return x + 1", tests, entry_point="f")
    assert (verdict.status, verdict.passed, verdict.fraction) == ("unsupported", None, None)
    assert word in verdict.detail


def test_a_program_cannot_make_the_tests_unsupported(sandbox):
    tests = "x = f(1) + 1\nassert f(x) == 2"  # the first statement fails on what the program returned
    for value in ("'a'", "None", "object()", "(lambda: 0)", "'x' * 2_000_000"):
        assert run(sandbox, f"def f(x): return {value}", tests).passed is False


def test_modules_of_the_standard_library_need_no_import_in_the_tests(sandbox):
    assert run(
        sandbox, "import sys\ndef f(x): return sys.getsizeof(x)", "assert f((1,)) == sys.getsizeof((1,))"
    ).passed


def test_unsupported_tests_cost_no_process():
    with pytest.raises(Unsupported, match="node"):
        prepare("assert f(node(1))", "", "f")


def test_the_same_program_gets_the_same_verdict(sandbox):
    program = (
        "import random\nr = random.random()\ndef f(x): return (r, random.random(), hash('a'), sorted({'b', 'c'}))"
    )
    tests = "import random\nassert f(random.random()) == 0, hash(str(f(random.random())))"
    assert len({run(sandbox, program, tests).detail for _ in range(4)}) == 1


# Time


def test_a_program_may_sleep_within_its_limit(sandbox):
    verdict = run(sandbox, "import time\ndef f(x):\n    time.sleep(0.4)\n    return 2", timeout_s=1)
    assert verdict.passed and verdict.cpu_s < 0.4


def test_computing_is_counted_up_to_the_limit(sandbox):
    verdict = run(sandbox, "def f(x):\n    while True: pass", timeout_s=0.3)
    assert verdict.status == "timeout" and "CPU" in verdict.detail
    assert 0.3 <= verdict.cpu_s < 1.3  # on a busy core the fork server wakes late


@pytest.mark.parametrize(
    "program",
    ["import time\ntime.sleep(1000)", "def f(x):\n    import time; time.sleep(1000)", "input = open(3).read()",
     "import threading as t\nk = t.Lock()\ndef f(x):\n    t.Thread(target=k.acquire).start()\n    k.acquire()",
     "import time\ndef f(x):\n    while True: time.sleep(0.01)"],
)  # fmt: skip
def test_a_sleeping_program_costs_no_more_than_its_limit(sandbox, program):
    start = time.monotonic()
    verdict = run(sandbox, program, timeout_s=1)
    assert verdict.status == "timeout" and "waited" in verdict.detail
    assert 1 <= time.monotonic() - start < 3  # before, 6


def test_a_value_that_makes_the_tests_slow_stops_neither_test_runner_nor_trainer(sandbox):
    slow = "for _ in range(f(1)):\n    pass\nassert f(1) == 2"
    assert run(sandbox, "def f(x): return 10**15", slow, timeout_s=0.2).status == "timeout"
    assert run(sandbox, "def f(x): return 2", slow).passed
    # One C loop, which no signal handler interrupts: the kernel ends the test runner, and the trainer replaces it.
    stuck = "assert sum(range(f(1))) == 1"
    assert run(sandbox, "def f(x): return 10**15", stuck, timeout_s=0.1).status == "timeout"
    assert run(sandbox, "def f(x): return 2", stuck).passed


def test_a_value_that_makes_the_tests_huge_is_a_wrong_answer(sandbox):
    assert run(sandbox, "def f(x): return 10**11", "assert [0] * f(1) == [0]").status == "wrong_answer"


# Failures of its own processes


def test_dead_or_hung_processes_are_replaced():
    with Sandbox(workers=1, cache_size=0) as sandbox:
        good = "def f(x): return x + 1"
        runner = sandbox.process_ids[0]
        fork_server = processes(runner)[-1]
        for pid, number in ((fork_server, signal.SIGKILL), (runner, signal.SIGKILL)):
            os.kill(pid, number)
            assert run(sandbox, good).passed
        fork_server = processes(sandbox.process_ids[0])[-1]
        os.kill(fork_server, signal.SIGSTOP)
        assert run(sandbox, good, timeout_s=0.3).passed
        assert gone([fork_server])


def test_processes_are_replaced_in_the_middle_of_a_program():
    with Sandbox(workers=1, cache_size=0) as sandbox:
        fork_server = processes(sandbox.process_ids[0])[-1]
        threading.Timer(0.5, os.kill, (fork_server, signal.SIGKILL)).start()
        assert run(sandbox, "import time\ntime.sleep(1)\ndef f(x): return x + 1").passed


@pytest.mark.parametrize(
    "lie", ["", "s.send(b'garbage')", "s.send(b'[]')", "s.send(b'{}')", "s.send(b'\\xff' * 60000)"]
)
def test_a_fork_server_that_lies_at_the_start_is_refused(lie):
    program = f"import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\n{lie}"
    with pytest.raises(ForkServerLost):
        ForkServer(command=[sys.executable, "-c", program])


@pytest.mark.parametrize(
    "report",
    ['b"garbage"', "b'{}'", "b'[]'", 'b\'{"id": 9, "end": "died", "code": 0, "cpu_s": 0}\'', "b'{\"id\": 1}'",
     'b\'{"id": 1, "end": "died", "code": "x", "cpu_s": 0}\'', 'b\'{"id": 1, "error": "cannot fork"}\''],
)  # fmt: skip
def test_a_fork_server_that_lies_about_a_program_is_found_out(report):
    program = f"""
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.send(b'{{"layers": {{}}}}')
socket.recv_fds(s, 65536, 2)
s.send({report})
s.recv(1)
"""
    fork_server = ForkServer(command=[sys.executable, "-c", program])
    try:
        descriptors = [os.open("/dev/null", os.O_RDWR) for _ in range(2)]
        fork_server.start(0.1, 64, descriptors)
        with pytest.raises(ForkServerLost):
            fork_server.end()
    finally:
        fork_server.stop()
        for descriptor in descriptors:
            os.close(descriptor)


def test_nothing_outlives_a_trainer_that_is_killed():
    program = (
        f"import sys, time; sys.path[:0] = [{ROOT!r}, {str(Path(__file__).parent)!r}]\n"
        "from malicious_programs import processes\nfrom schoolhouse.sandbox import Sandbox\n"
        "s = Sandbox(workers=1); print(*processes(s.process_ids[0]), flush=True); time.sleep(100)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    started = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(started) == 3
    trainer.kill()
    trainer.wait()
    assert gone(started)


# Use from a trainer


def test_verdicts_come_in_order_from_many_threads(sandbox):
    def batch(n):
        jobs = [Job(f"def f(x): return {k}", tests=f"assert f(0) == {k - k % 2}") for k in range(n, n + 10)]
        return [verdict.passed for verdict in sandbox.run(jobs)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(batch, [0, 10, 20, 30])) == [[True, False] * 5] * 4


def test_equal_jobs_are_run_once():
    with Sandbox(workers=1, cache_size=2) as sandbox:
        jobs = [Job(f"def f(x): return x + {k}", tests="assert f(1) == 2") for k in range(3)]
        first, again = sandbox.run([jobs[0], jobs[0]])
        assert first is again is sandbox.run([jobs[0]])[0]
        sandbox.run(jobs)  # only two fit
        assert sandbox.run([jobs[0]])[0] is not first
        other = Job(jobs[1].program, tests="assert f(1) == 3")
        assert [verdict.passed for verdict in sandbox.run([jobs[1], other])] == [True, False]


def test_a_forked_copy_starts_its_own_processes():
    with Sandbox(workers=1, cache_size=0) as sandbox:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if run(sandbox, "def f(x): return x + 1").passed else 1
                sandbox.close()
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert run(sandbox, "def f(x): return x + 1").passed


def test_closing_ends_what_still_runs():
    sandbox = Sandbox(workers=1)
    pids = processes(sandbox.process_ids[0])
    with ThreadPoolExecutor(2) as pool:  # one of the two programs waits for the only test runner
        asked = [pool.submit(run, sandbox, f"import time\ntime.sleep({seconds})") for seconds in (1000, 2000)]
        time.sleep(0.3)
        pids += processes(sandbox.process_ids[0])
        sandbox.close()
        for waiting in asked:
            with pytest.raises(SandboxError, match="closed"):
                waiting.result(timeout=60)
    assert gone(pids)


def test_a_closed_sandbox_leaves_no_process_and_says_so():
    sandbox = Sandbox(workers=1)
    pids = processes(sandbox.process_ids[0])
    sandbox.close()
    sandbox.close()
    assert gone(pids)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.run([Job("def f(x): return 1", tests="assert f(1) == 1")])


# Layers


def test_it_refuses_to_run_programs_without_isolation():
    for layers in (("seccomp", "landlock"), ("rlimits",), ("seccomp", "netns", "ipcns", "pidns")):
        with pytest.raises(SandboxError, match="SCHOOLHOUSE_ALLOW_WEAK_ISOLATION=1"):
            Sandbox(workers=1, without=layers)
    with Sandbox(workers=1, without=("seccomp", "landlock"), allow_weak_isolation=True) as sandbox:
        assert not sandbox.layers["seccomp"] and not sandbox.layers["landlock"]
        assert "off: seccomp, landlock" in sandbox.describe()
        assert run(sandbox, "def f(x): return x + 1").passed


def test_other_systems_than_linux_get_one_clear_line(monkeypatch):
    monkeypatch.setattr(sandbox_module.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="Linux only, this is darwin") as refused:
        Sandbox()
    assert "\n" not in str(refused.value)


TASK = "assert solve(2) == 17"


@pytest.mark.parametrize(
    ("layers", "attempt"),
    [
        (("landlock", "seccomp"), "open('/etc/passwd').read()"),
        (("seccomp",), "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"),
        (("seccomp",), "os.memfd_create('x')"),
        (("rlimits",), "import mmap\nmmap.mmap(-1, 1 << 30)"),
    ],
)
def test_a_layer_is_what_stops_an_escape(layers, attempt):
    program = fill(escape(attempt))
    with Sandbox(workers=1, cache_size=0) as sandbox:
        if not all(sandbox.layers[layer] for layer in layers):
            pytest.skip(f"{layers} not available here")
        assert run(sandbox, program, TASK, memory_mb=64).passed is False
    with Sandbox(workers=1, cache_size=0, without=layers, allow_weak_isolation=True) as sandbox:
        assert run(sandbox, program, TASK, memory_mb=64).passed is True


def test_landlock_and_namespaces_suffice_without_a_filter():
    attempts = ["open('/tmp/schoolhouse_malicious', 'w')", "open('/etc/passwd')", "os.kill(-1, 0)",
                "import socket\nsocket.create_connection(('127.0.0.1', 22), timeout=1)"]  # fmt: skip
    with Sandbox(workers=1, cache_size=0, without=("seccomp",)) as sandbox:
        if not (sandbox.layers["landlock"] and sandbox.layers["pidns"]):
            pytest.skip("needs Landlock and a PID namespace")
        for attempt in attempts:
            assert run(sandbox, fill(escape(attempt)), TASK).passed is False
        idle = processes(sandbox.process_ids[0])
        fork = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\ndef f(x): return 2"
        assert run(sandbox, fork).passed  # it may fork, but nothing stays
        assert processes(sandbox.process_ids[0]) == idle


PROBE = """
import json, os, sys
from schoolhouse.sandbox import isolation
outside = isolation.Outside()
print(json.dumps({layer: isolation.escapes(layer, outside) for layer in sys.argv[1:]}), flush=True)
os._exit(0)
"""


def test_every_probe_succeeds_where_nothing_is_locked():
    # A probe that could not escape from nothing would call a missing layer present.
    layers = ["landlock", "netns", "ipcns", "pidns", "threads", "rlimits", "seccomp"]
    layers += ["uid", "capabilities"] if os.getuid() == 0 else []
    command = [sys.executable, "-c", PROBE, *layers]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert [layer for layer, worked in json.loads(run.stdout).items() if not worked] == []


def test_a_token_of_the_trainer_reaches_neither_program_nor_test_runner(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    with Sandbox(workers=1) as sandbox:
        tests = "import os\nassert 'HF_TOKEN' not in f(1) and 'HF_TOKEN' not in os.environ"
        assert run(sandbox, "import os\ndef f(x): return dict(os.environ)", tests, entry_point="f").passed


# Real data


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_humaneval_solution_passes(shared, sandbox):
    rows = _rows(shared / "data/humaneval/test.jsonl")
    jobs = [
        Job(program, tests=row["test"], entry_point=row["entry_point"], prelude=row["prompt"], timeout_s=10)
        for row in rows
        for program in (row["prompt"] + row["canonical_solution"], row["prompt"] + "    return None\n")
    ]
    verdicts = sandbox.run(jobs)
    assert len(rows) == 164
    assert [job.entry_point for job, verdict in zip(jobs[::2], verdicts[::2], strict=True) if not verdict.passed] == []
    assert [job.entry_point for job, verdict in zip(jobs[1::2], verdicts[1::2], strict=True) if verdict.passed] == []


def test_every_mbpp_solution_passes(shared, sandbox):
    rows = [
        row
        for split in ("train", "validation", "test", "prompt")
        for row in _rows(shared / f"data/mbpp/{split}.jsonl")
    ]
    jobs = [
        Job(row["code"], tests="\n".join([row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]]),
            timeout_s=10)
        for row in rows
    ]  # fmt: skip
    verdicts = sandbox.run(jobs)
    failed = {
        row["task_id"]: verdict.status for row, verdict in zip(rows, verdicts, strict=True) if not verdict.passed
    }
    assert len(rows) == 974
    assert failed == {}  # of four the tests build classes of the program or pass a type
