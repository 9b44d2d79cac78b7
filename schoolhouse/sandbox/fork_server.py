"""The process that programs are forked from: small, preimported, without secrets, and executed rather than forked.

It never sees a test. Per program it is handed three descriptors by the judge (a socket for calls, standard input and
standard output), forks a child that locks itself down before it reads the program, watches the child's CPU clock and
reports how it ended. In a PID namespace it is process 1, so that its death takes everything with it.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import random
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from schoolhouse.sandbox import isolation
from schoolhouse.sandbox.wire_format import NotPlain, read_trusted, to_plain, write_answer


CONTROL = 3  # in the zygote the socket to the judge, in a child the socket for calls
LOADED = write_answer({"loaded": True})
OUT_OF_MEMORY = 71  # exit code of a child that had too little memory left to say so

# After the change of user an interpreter under another user's home can import nothing: what programs may use is here.
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


def main() -> None:
    """Entry point: `argv[1]` is the control socket's descriptor, the rest are layers to leave off (for tests)."""
    os.dup2(int(sys.argv[1]), CONTROL)
    without = set(sys.argv[2:])
    for name in PREIMPORTED:
        with contextlib.suppress(ImportError):  # builds without an optional C library
            importlib.import_module(name)
    outside = isolation.Outside()
    if not without & isolation.NAMESPACES:
        isolation.enter_namespaces()
    child = os.fork()  # only children enter a PID namespace
    if child:
        os.close(CONTROL)
        os.waitpid(child, 0)
        os._exit(0)
    isolation.die_with_parent()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, a program must go and not the trainer
    held = {name: name not in without and isolation.probe(name, outside) for name in isolation.LAYERS}
    outside.close()
    described: dict[str, Any] = dict(held)
    if held["landlock"]:
        described["landlock"] = isolation.landlock_abi()
    if held["uid"]:
        described["uid"] = isolation.NOBODY
    lock = isolation.Lockdown({name for name, holds in held.items() if holds})
    lock.before_fork()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # too much output kills, which the exit status shows
    random.seed(0)  # the same program, the same verdict
    control = socket.socket(fileno=CONTROL)
    control.send(json.dumps({"layers": described}).encode())
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page of the zygote
    serve(control, lock)


def serve(control: socket.socket, lock: isolation.Lockdown) -> None:
    """Fork a child per request until the judge goes away. Requests and reports are one packet of JSON each."""
    calls = open(CONTROL, "rb", closefd=False)  # noqa: SIM115  # a child's; unused before the fork
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 65536, 3)
        if not packet:
            return
        request = json.loads(packet)
        if request["op"] != "run":
            continue  # an "end" that crossed the report of a child which had just died
        try:
            child = os.fork()
        except OSError as error:
            child, report = -1, {"error": f"the zygote cannot fork: {error}"}
        if child == 0:
            run_child(descriptors, calls, lock, request)
        for descriptor in descriptors:
            os.close(descriptor)
        if child > 0:
            report = watch(child, control, request["cpu_s"], request["wall_s"])
        control.send(json.dumps({"id": request["id"], **report}).encode())


def watch(child: int, control: socket.socket, cpu_s: float, wall_s: float) -> dict[str, Any]:
    """
    Wait until a child ends, is no longer needed or has used up its time, then make sure that nothing of it is left.

    CPU time comes first: the wait never needs to be shorter than what is left of it, since one thread cannot use more
    CPU than the time that passes. Wall time only ends what sleeps.
    """
    deadline = time.monotonic() + wall_s
    clock = ~child << 3 | 2  # the kernel's identifier of a process's CPU clock
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLIN)
    end, left = "", cpu_s
    while not end:
        with contextlib.suppress(OSError):  # it has just died: the poll below returns at once
            if (left := cpu_s - time.clock_gettime(clock)) <= 0:
                end = "cpu"
                break
        wall_left = deadline - time.monotonic()
        if wall_left <= 0:
            end = "wall"
            break
        ready = {descriptor for descriptor, _ in poll.poll(min(left, wall_left) * 1000 + 1)}
        if pidfd in ready:
            end = "died"
        elif ready:
            end = "done"
            control.recv(65536)
    os.close(pidfd)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # whatever it started, should the filter be off
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    return {"end": end, "code": os.waitstatus_to_exitcode(status), "cpu_s": usage.ru_utime + usage.ru_stime}


def run_child(
    descriptors: list[int], calls: io.BufferedReader, lock: isolation.Lockdown, request: dict[str, Any]
) -> NoReturn:
    """Lock down, then read and run one program. Nothing that this process says afterwards is believed as such."""
    code = 70
    try:
        for source, target in zip(descriptors, (CONTROL, 0, 1), strict=True):
            os.dup2(source, target)
        os.dup2(1, 2)
        os.closerange(CONTROL + 1, isolation.MAX_FILES)
        lock.after_fork(request["cpu_s"], request["memory_mb"])
        code = converse(calls.read)
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        pass
    finally:
        os._exit(code)


def converse(read: Callable[[int], bytes]) -> int:
    """Read the program from the judge, run it, and answer calls of its entry point until the judge hangs up."""

    def send(message: dict[str, Any]) -> None:
        try:
            frame = write_answer(message)
        except NotPlain as error:
            frame = write_answer({"id": message.get("id"), "bad": str(error)})
        while frame:
            frame = frame[os.write(CONTROL, frame) :]

    program, prelude, entry_point = read_trusted(read)
    as_script = entry_point == ""
    module = types.ModuleType("__main__" if as_script else "solution")
    sys.modules[module.__name__] = module
    sys.argv = ["program.py"]
    try:
        exec(compile(prelude, "<prelude>", "exec"), module.__dict__)
        module.__dict__.pop(entry_point, None)  # the prompt's stub is no answer
        try:
            code = compile(program, "<program>", "exec")
        except (SyntaxError, ValueError) as error:
            send({"syntax": describe(error)})
            return 1
        exec(code, module.__dict__)
        if as_script:
            sys.stdout.flush()
            return 0
        function = module.__dict__.get(entry_point)
        if not callable(function):
            raise NameError(f"the program defines no function {entry_point!r}")
    except SystemExit as error:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        send({"exit": str(error.code)[:100]})
        return 0 if not error.code else 1
    except MemoryError:
        raise
    except BaseException as error:
        send({"error": type(error).__name__, "detail": describe(error)})
        return 1
    os.write(CONTROL, LOADED)
    while call := read_trusted(read):
        number, positional, keywords = call
        try:
            answer = {"id": number, "value": to_plain(function(*positional, **keywords))}
        except NotPlain as error:
            answer = {"id": number, "bad": str(error)}
        except SystemExit as error:
            answer = {"id": number, "exit": str(error.code)[:100]}
        except MemoryError:
            raise
        except BaseException as error:
            answer = {"id": number, "error": type(error).__name__, "detail": describe(error)}
        send(answer)
    return 0


def describe(error: BaseException) -> str:
    """An exception in one line, whatever its own methods do."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return "an exception that cannot be printed"


if __name__ == "__main__":
    main()
