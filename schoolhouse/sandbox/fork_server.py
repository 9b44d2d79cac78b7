"""The process that untrusted programs are forked from.

It is small, has the allowed modules imported, holds no secrets and was started with `exec`, not forked, so that
nothing of the trainer is in its memory. It never sees a test.

For each program the test runner sends it a request and two descriptors: a socket for calls and a file for output. It
forks a child that gives up its rights *before* it reads the program, watches the child's CPU clock and reports how the
child ended. In a PID namespace this process is number 1, so its death ends everything that it started.
"""

import contextlib
import encodings
import gc
import importlib
import importlib.util
import io
import itertools
import json
import os
import pkgutil
import random
import select
import selectors
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

from schoolhouse.sandbox import activity, isolation
from schoolhouse.sandbox.calls import CONTROL, converse, warm_up


OUT_OF_MEMORY = 71  # exit code of a child that had too little memory left to send a message

# Modules that programs use most: their import costs nothing.
PREIMPORTED = """
abc array ast base64 bisect binascii calendar cmath codecs collections collections.abc concurrent.futures.thread
contextlib copy csv dataclasses datetime decimal difflib encodings.ascii encodings.hex_codec encodings.idna
encodings.latin_1 encodings.punycode encodings.raw_unicode_escape encodings.rot_13 encodings.unicode_escape
encodings.utf_16 encodings.utf_16_le encodings.utf_32 enum errno fnmatch fractions functools gc glob graphlib hashlib
heapq hmac html inspect io ipaddress itertools json keyword linecache locale logging math mmap numbers opcode operator
os os.path pathlib pickle platform pprint queue random re resource sched secrets select shlex shutil signal socket stat
statistics string stringprep struct subprocess sys tempfile textwrap threading time timeit token tokenize traceback
types typing unicodedata unittest urllib.parse uuid warnings weakref zlib _strptime
""".split()
# Without Landlock no file can be opened, so programs can import only what the fork server has imported: all of the
# standard library but what opens a browser, prints or draws, with the submodules in use.
ALL_MODULES = sorted(sys.stdlib_module_names - {"antigravity", "idlelib", "this", "turtledemo"})
ALL_MODULES += """
concurrent.futures.process ctypes.util email.message email.mime.multipart email.mime.text email.parser email.policy
email.utils html.entities html.parser http.client http.cookies importlib.abc importlib.metadata importlib.resources
json.tool logging.config logging.handlers multiprocessing.dummy multiprocessing.pool unittest.mock urllib.error
urllib.request xml.dom.minidom xml.etree.ElementTree xml.sax xmlrpc.client
""".split()
ALL_MODULES += [f"encodings.{module.name}" for module in pkgutil.iter_modules(encodings.__path__)]
SAMPLE_S = 0.05  # seconds between two looks at a program that has not ended


def main() -> None:
    """Run the fork server: `argv[1]` is the control socket's descriptor, the others are layers to leave off."""
    os.dup2(int(sys.argv[1]), CONTROL)
    without = set(sys.argv[2:])
    import_all(PREIMPORTED)
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]  # others are denied
    user, test_runner = isolation.own_user(), os.getppid()
    outside = isolation.Outside()
    user_namespace = not without & isolation.NAMESPACES and isolation.enter_namespaces()
    watcher, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()  # a process stays in its PID namespace, only its children enter the new one
    if child:
        os.close(CONTROL)
        theirs.close()
        isolation.hide_memory()
        with contextlib.suppress(ConnectionError):
            activity.answer(watcher, test_runner)
        os.waitpid(child, 0)
        os._exit(0)
    watcher.close()
    isolation.die_with_parent()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, the kernel must kill a program and not the trainer
    isolation.hide_memory()
    # Nothing is taken on trust: a layer counts only if an escape from it, tried in a child, has failed.
    held = {name: name not in without and isolation.probe(name, outside, user) for name in isolation.LAYERS}
    # An ordinary user's threads are counted together, unless each worker has a user namespace.
    held["threads"] = held["threads"] and (held["uid"] or user_namespace)
    outside.close()
    described: dict[str, Any] = dict(held)
    if held["landlock"]:
        described["landlock"] = isolation.landlock_abi()
    else:
        import_all(ALL_MODULES)
        read_time_zones()
    if held["uid"]:
        described["uid"] = user
        import_through_working_directory()
    layers = isolation.Isolation({name for name, holds in held.items() if holds}, user)
    layers.before_fork()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # too much output kills the child, and the exit status says so
    random.seed(0)  # the same program gets the same verdict
    control = socket.socket(fileno=CONTROL)
    control.send(json.dumps({"layers": described}).encode())
    warm_up()
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page of the fork server
    serve(control, layers, theirs)


def import_all(modules: list[str]) -> None:
    """Import modules, passing over those that this build or platform lacks."""
    with warnings.catch_warnings(action="ignore"):  # of modules that are to be removed
        for name in modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def read_time_zones() -> None:
    """Read every time zone, for programs that will not be able to: `load_tzdata` is asked for what is in no folder."""
    import zoneinfo
    from zoneinfo import _common

    zones: dict[str, bytes] = {}
    for folder, key in itertools.product(zoneinfo.TZPATH, zoneinfo.available_timezones()):
        path = Path(folder, key)
        if key not in zones and path.is_file():
            zones[key] = path.read_bytes()

    def load(key: str) -> io.BytesIO:
        if key not in zones:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return io.BytesIO(zones[key])

    zoneinfo.reset_tzpath(to=())
    _common.load_tzdata = load  # type: ignore[assignment]


def import_through_working_directory() -> None:
    """
    Have later imports find the standard library through a link of the kernel to the working directory, from where no
    rights on the folders above it are needed: the interpreter may lie in the home of root.
    """
    library, link = os.path.dirname(os.__file__), "/proc/self/cwd"
    os.chdir(library)
    sys.path = [path.replace(library, link) for path in sys.path]
    for module in sys.modules.copy().values():
        if paths := getattr(module, "__path__", None):
            module.__path__ = [path.replace(library, link) for path in paths]
    importlib.util.find_spec("no_such_module")  # reads the folder, which Landlock will deny; imports remember it


def serve(control: socket.socket, layers: isolation.Isolation, parent: socket.socket) -> None:
    """Fork a child for each request until the test runner closes. Requests and reports are one JSON packet each."""
    calls = open(CONTROL, "rb", closefd=False)  # noqa: SIM115  # for the children; unused before the fork
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 65536, 2)
        if not packet:
            return
        request = json.loads(packet)
        if request["op"] != "run":
            continue  # an "end" that was sent while the report of a dead child was on its way
        report: dict[str, Any] = {}
        try:
            child = os.fork()
        except OSError as error:
            child, report = -1, {"error": f"the fork server cannot fork: {error}"}
        if child == 0:
            run_child(descriptors, calls, layers, request)
        for descriptor in descriptors:
            os.close(descriptor)
        if child > 0:
            report = watch(child, control, parent, request["limit_s"], request["delay_s"])
        control.send(json.dumps({"id": request["id"], **report}).encode())


def watch(child: int, control: socket.socket, parent: socket.socket, limit_s: float, delay_s: float) -> dict[str, Any]:
    """
    Wait until a child ends, is no longer needed or has used up its time, then make sure that nothing of it is left.

    The limit is on the CPU time of the child and its threads, plus the time that all of them sleep. Waiting for a busy
    core, or for the test runner, does not count, so another program's load changes no verdict. A message on
    `control`, from the test runner, asks for the end of the child.

    Args:
        limit_s (`float`):
            Seconds to compute and to sleep.
        delay_s (`float`):
            Seconds of waiting for a busy core after which a child is given up.

    Returns:
        `dict[str, Any]`: `end` (`"cpu"`, `"asleep"`, `"threads"`, `"died"` or `"done"`), `code` (exit code, negative
        for a signal) and `cpu_s`; or `error` alone.
    """
    last = time.monotonic()
    clock = ~child << 3 | 2  # the kernel's identifier of the CPU clock of a process
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLIN)
    end, asleep, delayed, cpu, error = "", 0.0, 0.0, 0.0, ""
    while not end:
        # A look at moments that a program cannot foresee: it finds a sleeper awake as seldom as it is.
        wait_s = SAMPLE_S * (0.5 + os.urandom(1)[0] / 255)
        ready = {descriptor for descriptor, _ in poll.poll(min(limit_s - cpu - asleep, wait_s) * 1000 + 1)}
        if pidfd in ready:
            end = "died"
            break
        if ready:
            end = "done"
            control.recv(65536)
            break
        sample = activity.ask(parent, pidfd)
        now = time.monotonic()
        with contextlib.suppress(OSError):  # it has just died
            before, cpu = cpu, time.clock_gettime(clock)
        idle = max(0.0, now - last - (cpu - before))
        last = now
        if sample is None or sample.awake:
            delayed += idle
        elif not sample.runner_awake:
            asleep += idle
        if sample and sample.threads > isolation.MAX_THREADS:
            end = "threads"
        elif cpu + asleep >= limit_s:
            end = "cpu" if asleep < cpu else "asleep"
        elif delayed >= delay_s:
            end = "asleep"  # it may be, where nothing is known
            if sample:
                error = f"this machine is too busy: a program waited for its core for {delay_s:.0f} s"
    os.close(pidfd)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # everything that it started, in case the filter is off
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    if error:
        return {"error": error}
    return {"end": end, "code": os.waitstatus_to_exitcode(status), "cpu_s": usage.ru_utime + usage.ru_stime}


def run_child(
    descriptors: list[int], calls: io.BufferedReader, layers: isolation.Isolation, request: dict[str, Any]
) -> NoReturn:
    """Give up all rights, then read and run one program. From then on, no message of this process is trusted."""
    code = 70
    try:
        calls_socket, output = descriptors
        for source, target in ((calls_socket, CONTROL), (output, 1), (0, 2)):  # 0 is /dev/null already
            os.dup2(source, target)
        os.closerange(CONTROL + 1, isolation.MAX_FILES)
        layers.after_fork(request["limit_s"], request["memory_mb"])
        code = converse(calls.read)
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        pass
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
