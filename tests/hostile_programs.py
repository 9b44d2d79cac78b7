# ruff: noqa: E501  (programs read better unbroken)
"""Hostile programs for the sandbox with layers left off, and ordinary programs that must pass there all the same.

None of them is in `malicious_programs.py`, with which they share the task. The secret is a file that all may read, with
the formula in it. Run as a script this file tries all programs of both files (`--new`: its own) in settings, each a list
of layers to leave off, and prints the outcomes as JSON: `python hostile_programs.py [--new] [LAYER,LAYER,...]...`
"""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from malicious_programs import ORDINARY, PROGRAMS, TESTS, equal, escape, fill, frames, inside, processes


FORMULA = "FORMULA = lambda n: n * n + 3 * n + 7"
NAMESPACES = ("netns", "ipcns", "pidns")
SETTINGS = ((), ("landlock",), NAMESPACES, ("landlock", *NAMESPACES))
LIMIT_S = 0.15


def steal(expression):
    """A program that evaluates the formula if an expression gets at the text of the secret file."""
    return inside(f"text = {expression}\nnames = {{}}\nexec(text, names)\nreturn names['FORMULA'](n)")


_ANSWER = """
import marshal, threading
def ask():
    length = struct.unpack(">I", os.read(3, 4))[0]
    return marshal.loads(os.read(3, length))
def reply(number, **fields): os.write(3, frame(json.dumps({"id": number, **fields}).encode()))
os.write(3, frame(b'{"loaded":true}'))
"""

HOSTILE = {
    "read the tests": {
        "pathlib": steal("__import__('pathlib').Path(SECRET).read_text()"),
        "FileIO": steal("__import__('io').FileIO(SECRET).read()"),
        "open_code": steal("__import__('io').open_code(SECRET).read()"),
        "linecache": steal("''.join(__import__('linecache').getlines(SECRET)) or 1 / 0"),
        "fileinput": steal("''.join(__import__('fileinput').input([SECRET]))"),
        "run_path": inside("import runpy\nreturn runpy.run_path(SECRET)['FORMULA'](n)"),
        "loader": inside("from importlib.machinery import SourceFileLoader\nreturn SourceFileLoader('x', SECRET).load_module().FORMULA(n)"),
        "imported": inside("sys.path.insert(0, os.path.dirname(SECRET))\nimport importlib\nimportlib.invalidate_caches()\nreturn importlib.import_module(os.path.basename(SECRET)[:-3]).FORMULA(n)"),
        "C file": inside("p = ctypes.create_string_buffer(200)\nlibc.fopen.restype = ctypes.c_void_p\nf = libc.fopen(SECRET.encode(), b'r')\nlibc.fread(p, 1, 199, ctypes.c_void_p(f))\nexec(p.value.decode(), globals())\nreturn FORMULA(n)"),
        "through the root link": steal("open('/proc/self/root' + SECRET).read()"),
        "through the working directory": steal("open('/proc/self/cwd' + '/..' * 12 + SECRET).read()"),
        "relative to a folder": steal("os.read(os.open(SECRET[1:], 0, dir_fd=os.open('/', os.O_PATH)), 200)"),
        "through a descriptor of its path": steal("open(f'/proc/self/fd/{os.open(SECRET, os.O_PATH)}').read()"),
        "raw openat": inside("d = raw(257, 56, -100, SECRET.encode(), 0, 0)\nexec(os.read(d, 200), globals())\nreturn FORMULA(n)"),
        "in a thread": inside("import threading\nout = []\nt = threading.Thread(target=lambda: out.append(open(SECRET).read()))\nt.start()\nt.join()\nexec(out[0], globals())\nreturn FORMULA(n)"),
        "shared object": escape("ctypes.CDLL(SECRET)"),
        "database": escape("import sqlite3\nsqlite3.connect(f'file:{SECRET}?mode=ro', uri=True).execute('select 1 from sqlite_master')"),
        "archive": escape("import zipfile\nzipfile.ZipFile('/proc/self/exe')"),
        "list by scandir": escape("assert list(os.scandir(os.path.dirname(SECRET)))"),
        "list by glob": escape("import glob\nassert glob.glob(os.path.dirname(SECRET) + '/*')"),
        "list by walk": escape("assert [f for _, _, f in os.walk('/etc') if f]"),
        "installed packages": escape("import sysconfig\nassert os.listdir(sysconfig.get_path('purelib'))"),
        "packages beside the library": escape("import glob\nroot = os.path.dirname(os.__file__)\nassert any(os.listdir(root + '/' + p) for p in ('site-packages', 'dist-packages'))"),
        "readme of the packages": escape("open(os.path.dirname(os.__file__) + '/site-packages/README.txt').read()"),
    },
    "memory and environment of others": {
        "every process's memory": escape("for p in range(1, 40000):\n    if p != os.getpid() and os.path.exists(f'/proc/{p}'):\n        try: open(f'/proc/{p}/mem', 'rb'); break\n        except OSError: pass\nelse: raise OSError"),
        "every process's environment": escape("for p in range(1, 40000):\n    try:\n        if b'hunter2' in open(f'/proc/{p}/environ', 'rb').read(): break\n    except OSError: pass\nelse: raise OSError"),
        "every command line": escape("for p in range(1, 40000):\n    try:\n        if open(f'/proc/{p}/cmdline', 'rb').read(): break\n    except OSError: pass\nelse: raise OSError"),
        "read from every process": escape("b = ctypes.create_string_buffer(64)\nv = (ctypes.c_uint64 * 2)(ctypes.addressof(b), 64)\nfor p in range(1, 3000):\n    if p != os.getpid():\n        raw(310, 270, p, v, 1, v, 1, 0)"),
        "attach to every process": escape("for p in range(1, 3000): raw(101, 117, 16, p, 0, 0)"),
        "be traced": escape("raw(101, 117, 0, 0, 0, 0)"),
        "compare processes": escape("raw(312, 272, os.getpid(), os.getppid(), 0, 0, 0)"),
        "C's environment": escape("e = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\nassert any(b'hunter2' in e[i] for i in range(len(os.environ)))"),
        "bytes of the environment": escape("assert any(b'hunter2' in v for v in os.environb.values())"),
        "own memory file": escape("open('/proc/self/mem', 'rb')"),
        "page map": escape("open('/proc/self/pagemap', 'rb')"),
        "kernel log": escape("raw(103, 116, 3, ctypes.create_string_buffer(4096), 4096)"),
        "physical memory": escape("open('/dev/mem', 'rb')"),
        "test runner's working directory": escape("os.readlink('/proc/%d/exe' % os.getppid())"),
        "users": escape("import pwd\nassert len(pwd.getpwall()) > 1"),
        "the machine's name by file": escape("open('/etc/hostname').read()"),
    },
    "sockets": {
        "asyncio": escape("import asyncio\nasync def go(): await asyncio.open_connection('127.0.0.1', PORT)\nasyncio.run(go())"),
        "urllib": escape("import urllib.request\nurllib.request.urlopen(f'http://127.0.0.1:{PORT}', timeout=1)"),
        "from a descriptor": escape("import socket\nsocket.socket(fileno=os.dup(3)).connect(('127.0.0.1', PORT))"),
        "address on a pair": escape("import socket\na, b = socket.socketpair()\nd = (ctypes.c_char * 16)(2, 0)\nraw(44, 206, a.fileno(), b'x', 1, 0, d, 16)"),
        "sender of a pair": escape("import socket\na, b = socket.socketpair()\na.send(b'x')\nraw(45, 207, b.fileno(), ctypes.create_string_buffer(9), 9, 0, ctypes.create_string_buffer(99), ctypes.byref(ctypes.c_int(99)))"),
        "urgent data": escape("import socket\na, b = socket.socketpair()\na.send(b'x', socket.MSG_OOB)"),
        "descriptors over a pair": escape("import socket\na, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [0])"),
        "listening pair": escape("import socket\na, b = socket.socketpair()\na.listen()"),
        "bound pair": escape("import socket\na, b = socket.socketpair()\na.bind('\\0schoolhouse')"),
        "filter on a pair": escape("import socket\na, b = socket.socketpair()\na.setsockopt(1, 26, b'x' * 16)"),
        "sequenced pair": escape("import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)"),
        "internet pair": escape("import socket\nsocket.socketpair(socket.AF_INET, socket.SOCK_STREAM)"),
        "netlink": escape("import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
        "vsock": escape("import socket\nsocket.socket(40, socket.SOCK_STREAM)"),
        "packets": escape("import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    },
    "processes and threads": {
        "multiprocessing": escape("import multiprocessing as m\np = m.get_context('fork').Process(target=print)\np.start()\np.join()"),
        "process pool": escape("from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(2).submit(int).result(timeout=1)"),
        "terminal": escape("os.forkpty()"),
        "clone that shares memory": escape("raw(56, 220, 0x4100 | 17, 0, 0, 0, 0)"),
        "thread in a namespace": escape("raw(56, 220, 0x10000 | 0x20000000, 0, 0, 0, 0)"),
        "62 threads that stay": "import threading, time\nfor _ in range(62): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\ndef solve(n): time.sleep(99)",
        "as many threads as there are": "import threading, time\nthreading.stack_size(32768)\ntry:\n    while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nexcept BaseException: time.sleep(99)",
        "threads without end": "import _thread, time\n_thread.stack_size(32768)\ndef again():\n    try: _thread.start_new_thread(again, ())\n    except RuntimeError: pass\n    time.sleep(0.001)\n    again()\nagain()",
        "interpreter hooks": escape("import atexit, os\nos.register_at_fork(before=print)\nos.fork()"),
        "change of folder": escape("os.chdir('/')"),
        "change of mask": escape("os.umask(0)\nassert os.umask(0) == 0"),
        "session": escape("os.setsid()"),
    },
    "sleeping": {
        "event": inside("import threading\nthreading.Event().wait(1e6)"),
        "queue": inside("import queue\nqueue.Queue().get()"),
        "asyncio": inside("import asyncio\nasyncio.run(asyncio.sleep(1e6))"),
        "naps": inside("while True: time.sleep(0.001)"),
        "poll": inside("import select\nselect.poll().poll()"),
        "at import": "import time\ntime.sleep(1e6)\ndef solve(n): pass",
        "in __del__": "import time\nclass A:\n    def __del__(self): time.sleep(1e6)\nA()\ndef solve(n): pass",
        "in every thread": inside("import threading\nfor _ in range(9): threading.Thread(target=time.sleep, args=(1e6,)).start()\ntime.sleep(1e6)"),
        "waits for a second call": frames(_ANSWER + "ask()\nos.read(3, 1)"),
        "half an answer": frames(_ANSWER + "ask()\nos.write(3, b'\\0\\0\\1\\0{')\ntime.sleep(1e6)"),
        "a drip of an answer": frames(_ANSWER + "ask()\nos.write(3, b'\\0\\0\\7\\0')\nwhile True:\n    os.write(3, b' ')\n    time.sleep(0.01)"),
    },
    "memory and output": {
        "strings": "x = 'x'\nwhile True: x += x",
        "deque": "import collections\nx = collections.deque()\nwhile True: x.append(bytes(9999))",
        "reserved memory": escape("import mmap\nmmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)"),
        "interned names": "import sys\ni = 0\nwhile True:\n    i += 1\n    globals()[sys.intern(str(i) * 99)] = i",
        "logging": "import logging\nwhile True: logging.error('x' * 9999)",
        "warnings": "import warnings\nwarnings.simplefilter('always')\nwhile True: warnings.warn('x' * 9999)",
        "output past the end": "import os\nos.lseek(1, 1 << 40, 0)\nos.write(1, b'x')\ndef solve(n): pass",
    },
    "signals": {
        "raise SIGKILL": "import ctypes, os\nctypes.CDLL(None).raise_(9)\nos.abort()",
        "interval timer": inside("signal.signal(signal.SIGALRM, lambda *a: 1 / 0)\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\nwhile True: pass"),
        "thread by signal": escape("import threading\nsignal.pthread_kill(threading.get_ident(), 0)"),
        "CPU limit ignored": "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "group of process 1": escape("os.killpg(1, 0)"),
    },
    "collisions": {
        "equal sets": inside("return {i * (2**61 - 1) for i in range(4000)}"),
        "dict": inside("return dict.fromkeys(i * (2**61 - 1) for i in range(4000))"),
        "frozen": inside("return frozenset(frozenset({i * (2**61 - 1)}) for i in range(4000))"),
        "frame of a dict": frames(_ANSWER + "number = ask()[0]\nbody = frame(json.dumps({'id': number, 'value': {'d': [[{'i': hex(i * (2**61 - 1))}, 0] for i in range(50000)]}}).encode())\nwhile body: body = body[os.write(3, body):]\ntime.sleep(99)"),
        "names in the frame": frames(_ANSWER + "number = ask()[0]\nbody = frame(json.dumps({'id': number, **{str(i): 0 for i in range(150000)}}).encode())\nwhile body: body = body[os.write(3, body):]\ntime.sleep(99)"),
    },
    "exceptions": {
        "group": inside("raise ExceptionGroup('x', [AssertionError()])"),
        "base group": inside("raise BaseExceptionGroup('x', [SystemExit()])"),
        "named as passed": "class NoResult(BaseException): pass\ndef solve(n): raise NoResult",
        "huge message": inside("raise ValueError('x' * 10**7)"),
        "lying class": "class E(ValueError):\n    __class__ = property(lambda s: SystemExit)\n    __str__ = lambda s: 'passed'\ndef solve(n): raise E",
        "cause of itself": inside("e = ValueError()\ne.__context__ = e.__cause__ = e\nraise e"),
        "hook": "import sys\nsys.excepthook = sys.unraisablehook = lambda *a: None\ndef solve(n): raise SystemExit(0)",
    },
    "frames and collector": {
        "stack": inside("import inspect\nfor f in inspect.stack():\n    for v in (*f.frame.f_locals.values(), *f.frame.f_globals.values()):\n        if isinstance(v, str) and 'assert' + ' solve' in v: return n * n + 3 * n + 7"),
        "frames of all threads": escape("needle = 'assert' + ' solve'\nassert any(needle in repr(f.f_back and f.f_back.f_locals) for f in sys._current_frames().values())"),
        "strings of the collector": escape("import gc\nneedle = ''.join(['solve(', '11)'])\nassert any(needle in repr(o)[:9999] for o in gc.get_objects() if type(o) is tuple)"),
        "trace of the loop": inside("sys._getframe(1).f_trace = lambda *a: None\nsys.settrace(lambda *a: None)\nreturn sys._getframe(1).f_locals.get('tests', 0)"),
        "socket of the loop": escape("import gc, socket\nassert any(type(o) is socket.socket and o.family == socket.AF_UNIX and o.fileno() > 3 and o.send(b'x') for o in gc.get_objects())"),
        "descriptors of the fork server": escape("for d in range(4, 32): os.write(d, b'x')"),
    },
    "patched": {
        "os._exit": "import os\nos._exit = lambda c: None\ndef solve(n): raise SystemExit",
        "sys.exit and time": "import sys, time\nsys.exit = lambda *a: None\ntime.monotonic = time.time = lambda: 0\ndef solve(n): time.sleep(99)",
        "import": "import builtins\nbuiltins.__import__ = lambda *a, **k: 1 / 0\ndef solve(n): return None",
        "encoder": "import json\njson.JSONEncoder.encode = json.JSONEncoder.iterencode = lambda s, o: '{\"value\": 7}'\ndef solve(n): return None",
        "frame writer": "import os\nwrite = os.write\nos.write = lambda d, b: write(d, b.replace(b'null', b'7'))\ndef solve(n): return None",
        "module loader of the sandbox": "import sys\nfor m in [m for m in sys.modules if 'schoolhouse' in m]: sys.modules[m] = None\ndef solve(n): return None",
        "every socket method": "import socket\nsocket.socket.recv = socket.socket.send = lambda *a: b'{}'\ndef solve(n): return None",
    },
    "forged": {
        "thread that answers first": frames(_ANSWER + "def race():\n    while True: os.write(3, frame(b'{\"id\": \"0\", \"value\": 7}'))\nthreading.Thread(target=race).start()\ntime.sleep(9)"),
        "value and error": frames(_ANSWER + "while True:\n    number = ask()[0]\n    reply(number, value=None, error='passed', exit='0', bad='passed', status='passed', passed=True)"),
        "an object for a value": frames(_ANSWER + "while True: reply(ask()[0], value={'__class__': 'int'})"),
        "number that is no number": frames(_ANSWER + "while True: reply(ask()[0], value=float('nan'))"),
        "two answers": frames(_ANSWER + "while True:\n    number = ask()[0]\n    reply(number, value=0)\n    reply(number, value=7)"),
        "answer of the last call": frames(_ANSWER + "number = ask()[0]\nwhile True:\n    reply(number, value=7)\n    ask()"),
        "report through the output": "import os, json\nfor d in (0, 1, 2):\n    try: os.write(d, json.dumps({'id': 1, 'end': 'died', 'code': 0, 'cpu_s': 0}).encode())\n    except OSError: pass\nos._exit(0)",
        "equal complex": equal("complex"),
        "equal bytes": equal("bytes"),
        "equal set": equal("frozenset"),
        "timing": inside("start = time.perf_counter()\nwhile time.perf_counter() - start < 0.01: pass\nreturn int(start * 1e6) % 50"),
    },
}  # fmt: skip

HONEST = {
    "formula": ORDINARY,
    "asyncio": "import asyncio\nasync def one(n):\n    await asyncio.sleep(0.001)\n    return await asyncio.to_thread(lambda: n * n)\nasync def both(n):\n    a, b = await asyncio.gather(one(n), asyncio.sleep(0.001, 3 * n))\n    return a + b + 7\ndef solve(n): return asyncio.run(both(n))",
    "time zones": "from datetime import datetime\nfrom zoneinfo import ZoneInfo\nhours = datetime(2020, 7, 1, tzinfo=ZoneInfo('Asia/Bangkok')).utcoffset().seconds // 3600\ndef solve(n): return n * n + 3 * n + hours",
    "thread pool": "from concurrent.futures import ThreadPoolExecutor\ndef solve(n):\n    with ThreadPoolExecutor(24) as pool: return sum(pool.map(lambda k: 2 * k + 1, range(n))) + sum(pool.map(int, [3] * n)) + 7",
    "forty threads": "import threading\ndef solve(n):\n    out, gate = [], threading.Barrier(40)\n    def work():\n        gate.wait()\n        out.append(1)\n    threads = [threading.Thread(target=work) for _ in range(40)]\n    for t in threads: t.start()\n    for t in threads: t.join()\n    return n * n + 3 * n + len(out) - 33",
    "naps": "import time\ndef solve(n):\n    time.sleep(0.01)\n    return n * n + 3 * n + 7",
    "modules": "import statistics, email.message, xml.etree.ElementTree as E, unittest.mock, argparse, tomllib, configparser, contextvars\ndef solve(n): return n * n + 3 * n + len(E.fromstring('<a>' + '<b/>' * 7 + '</a>'))",
    "late import": "def solve(n):\n    import http.client, html.parser, collections.abc, importlib.resources, numbers, difflib\n    return n * n + 3 * n + 7",
    "codecs": "def solve(n): return n * n + 3 * n + len('\\u4e00\\u4e01'.encode('big5')) + len('\\u0416'.encode('koi8-r') + 'xy'.encode('cp437'))",
    "recursion": "import functools\n@functools.cache\ndef f(n): return 7 if n == 0 else f(n - 1) + 2 * n + 2\ndef solve(n): return f(n)",
    "memory": "def solve(n): return len(bytes(60_000_000)) * 0 + n * n + 3 * n + 7",
    "prints": "import sys\ndef solve(n):\n    print('x' * 999)\n    print('y', file=sys.stderr)\n    return n * n + 3 * n + 7",
    "computes": "def solve(n):\n    for _ in range(100_000): pass\n    return n * n + 3 * n + 7",
    "traceback": "import traceback, logging\ndef solve(n):\n    try: 1 / 0\n    except ZeroDivisionError: logging.error(traceback.format_exc())\n    return n * n + 3 * n + 7",
}  # fmt: skip


def run_hostile(secret, victim, port, without=(), programs=HOSTILE, honest=HONEST, workers=4):
    """
    Run hostile programs with some layers left off, each followed by the ordinary one, and the honest programs.

    Returns what went wrong, by kind: who `passed` or was excused, who `hung`, who left a process (`escaped`), after whom
    the next program failed (`spoiled`), and which honest program failed (`refused`).
    """
    from schoolhouse.sandbox import Job, Sandbox

    wrong = {kind: [] for kind in ("passed", "hung", "escaped", "spoiled", "refused")}
    every = [(f"{kind}: {name}", source) for kind, group in programs.items() for name, source in group.items()]

    def run(share):
        with Sandbox(workers=1, cache_size=0, without=without) as sandbox:
            idle = len(processes(sandbox.process_ids[0]))
            for name, source in share:
                start = time.monotonic()
                job = Job(fill(source, victim, port, secret), tests=TESTS, timeout_s=LIMIT_S, memory_mb=128)
                (verdict,) = sandbox.run([job])
                if verdict.passed is not False:
                    wrong["passed"].append(f"{name} ({verdict.status}: {verdict.detail})")
                if time.monotonic() - start > 10 + 40 * LIMIT_S:
                    wrong["hung"].append(name)
                if len(processes(sandbox.process_ids[0])) != idle:
                    wrong["escaped"].append(name)
                (after,) = sandbox.run([Job(ORDINARY, tests=TESTS)])
                if not after.passed:
                    wrong["spoiled"].append(f"{name} ({after.status}: {after.detail})")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, [every[n::workers] for n in range(workers)]))
    with Sandbox(workers=1, cache_size=0, without=without) as sandbox:
        for name, source in honest.items():
            (verdict,) = sandbox.run([Job(source, tests=TESTS)])
            if not verdict.passed:
                wrong["refused"].append(f"{name} ({verdict.status}: {verdict.detail})")
        layers = sandbox.layers
    return {"programs": len(every), "honest": len(honest), "layers": layers, **wrong}


def main(settings, programs):
    """Run programs in settings of layers left off, and print the outcomes as JSON, one a line."""
    secret = Path(f"/var/tmp/hostile_{os.getpid()}.py")
    secret.write_text(FORMULA)
    secret.chmod(0o644)
    victim = subprocess.Popen(["sleep", "3600"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for without in settings:
                outcome = run_hostile(str(secret), victim.pid, listener.getsockname()[1], without, programs)
                print(json.dumps({"uid": os.getuid(), "without": without, **outcome}), flush=True)
        assert victim.poll() is None
        assert secret.read_text() == FORMULA
    finally:
        victim.kill()
        secret.unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    both = {**PROGRAMS, **{f"{kind} (2)": group for kind, group in HOSTILE.items()}}
    flags = [argument for argument in sys.argv[1:] if argument != "--new"]
    settings = [tuple(filter(None, argument.split(","))) for argument in flags]
    main(settings or SETTINGS, HOSTILE if len(flags) < len(sys.argv) - 1 else both)
