# ruff: noqa: E501  (programs read better unbroken)
"""Programs that try to pass without solving the task, to get out, to stay, or to break the sandbox.

The task: `solve(n)` is n*n + 3*n + 7, which no program is told. Many do know it and use it only *after* an escape has
worked, so that a verdict "passed" is the proof of an escape. Run as a script this file runs every one of them, each
followed by an ordinary program, and prints the outcome as JSON: `python malicious_programs.py VICTIM_PID PORT SECRET`.
"""

import json
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


TESTS = "\n".join(f"assert solve({n}) == {n * n + 3 * n + 7}" for n in (0, 2, 5, 11, 203))
ORDINARY = "import math, re, collections\ndef solve(n):\n    return n * n + 3 * n + 7\n"
MARK = "schoolhouse_malicious"

_HEAD = """
import ctypes, errno, os, platform, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def raw(x86, arm, *arguments):
    number = x86 if platform.machine() == "x86_64" else arm
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        raise PermissionError
    return result
VICTIM, PORT, SECRET = @VICTIM@, @PORT@, "@SECRET@"
"""


def escape(attempt):
    """A program that solves the task only if `attempt` raises nothing."""
    body = textwrap.indent(textwrap.dedent(attempt).strip(), "    ")
    return f"""{_HEAD}
won = False
try:
{body}
    won = True
except BaseException:
    pass
def solve(n):
    return n * n + 3 * n + 7 if won else None
"""


def inside(body):
    """A program whose `solve(n)` has this body."""
    return f"{_HEAD}\ndef solve(n):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"


def equal(base, extra=""):
    """A program that returns an object of its own class that claims to equal everything."""
    return (
        f"class Equal({base}):\n    __eq__ = __ge__ = __le__ = lambda self, other: True\n    __ne__ = lambda self, other: "
        f"False\n    __hash__ = lambda self: 0\n    __bool__ = lambda self: True\n{extra}\ndef solve(n):\n"
        "    return Equal()\n"
    )


def frames(body):
    """A program that writes to the descriptor of the calls."""
    return f"{_HEAD}\nimport json, struct\ndef frame(b): return struct.pack('>I', len(b)) + b\n" + textwrap.dedent(
        body
    )


_SCAN_OBJECTS = """
import gc
needle = " ".join(["assert", "solve"])  # joined at run time: the program must not find itself
texts = [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]
assert any(isinstance(v, str) and needle in v and v is not needle for o in texts for v in (o.values() if isinstance(o, dict) else o))
"""
_SCAN_MEMORY = """
found = False
for line in open("/proc/%s/maps"):
    low, high = (int(part, 16) for part in line.split()[0].split("-"))
    with open("/proc/%s/mem", "rb") as memory:
        memory.seek(low)
        found = found or b" ".join([b"assert", b"solve("]) in memory.read(high - low)
assert found
"""
_OWN_MEMORY = """
needle = b" ".join([b"assert", b"solve(11"])
base, found = id(object()) & ~0xFFFFF, False
for offset in range(0, 1 << 20, 1 << 12):
    found = found or needle in ctypes.string_at(base + offset, 1 << 12)
assert found
"""
_SHELLCODE_32 = """
import mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid of i386); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0
"""
_OWNER = """
import fcntl
read, write = os.dup(3), 3
fcntl.fcntl(read, fcntl.F_SETOWN, {pid})
fcntl.fcntl(read, 10, signal.SIGKILL)
fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
"""
_RETURN_DEEP = "x = []\nfor _ in range(100000):\n    x = [x]\nreturn x"

PROGRAMS = {
    "early exit": {
        "os._exit": "import os\nos._exit(0)",
        "sys.exit": "import sys\nsys.exit(0)",
        "exit builtin": "raise SystemExit",
        "os._exit in the call": inside("os._exit(0)"),
        "SystemExit in the call": inside("raise SystemExit(0)"),
        "SystemExit with a value": inside("raise SystemExit(n * n + 3 * n + 7)"),
        "KeyboardInterrupt": inside("raise KeyboardInterrupt"),
        "StopIteration": inside("raise StopIteration(n * n + 3 * n + 7)"),
        "GeneratorExit": inside("raise GeneratorExit"),
        "AssertionError": inside("raise AssertionError"),
        "exit in a thread": "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\ndef solve(n): pass",
        "exit by an alarm": inside("signal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.alarm(1)\nreturn n"),
        "exit in __del__": "import os\nclass A:\n    def __del__(self): os._exit(0)\nA()\n",
        "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef solve(n): raise SystemExit",
        "exit_group": escape("raw(231, 94, 0)"),
        "a generator": "def solve(n):\n    yield n * n + 3 * n + 7",
        "no function": "x = 1",
        "not a function": "solve = 17",
        "unprintable error": "class E(BaseException):\n    def __str__(self): raise E\ndef solve(n): raise E",
        "error type with a lying name": "E = type('passed', (BaseException,), {})\ndef solve(n): raise E('passed')",
    },
    "forged result": {
        "printed markers": "print('passed\\nALL TESTS PASSED\\n{\"status\": \"passed\"}')\ndef solve(n): return None",
        "printed exit code": "import sys\nsys.stderr.write('OK\\nRan 5 tests\\n')\nsys.exit(0)",
        "verdict on every descriptor": frames("""
            body = frame(json.dumps({"status": "passed", "fraction": 1.0, "detail": "", "cpu_s": 0.0}).encode())
            for descriptor in range(64):
                try: os.write(descriptor, body)
                except OSError: pass
            os._exit(0)"""),
        "report on every descriptor": frames("""
            for job in range(2000):
                for descriptor in range(3, 32):
                    try: os.write(descriptor, json.dumps({"id": job, "end": "died", "code": 0, "cpu_s": 0}).encode())
                    except OSError: pass
            def solve(n): return None"""),
        "answers before questions": frames("""
            os.write(3, frame(b'{"loaded":true}'))
            for n in (0, 2, 5, 11, 203):
                os.write(3, frame(json.dumps({"id": "", "value": n * n + 3 * n + 7}).encode()))
            time.sleep(100)"""),
        "answers True to everything": frames("""
            import marshal
            os.write(3, frame(b'{"loaded":true}'))
            while True:
                length = struct.unpack(">I", os.read(3, 4))[0]
                number, *_ = marshal.loads(os.read(3, length))
                os.write(3, frame(json.dumps({"id": number, "value": True, "passed": True}).encode()))"""),
        "an error that says passed": frames("""
            os.write(3, frame(b'{"error":"passed","status":"passed","detail":"passed"}'))
            os._exit(0)"""),
        "its own loop": "import schoolhouse.sandbox.fork_server as z, os\nz.converse = lambda *a: 0\nz.to_plain = lambda v: True\n"
        "def solve(n): return None",
        "loop's locals": inside("""
            frame = sys._getframe()
            while frame:
                frame.f_locals.update(answer={"value": True}, passed=True)
                frame = frame.f_back
            return None"""),
    },
    "always equal": {
        "object": equal("object"),
        "int": equal("int"),
        "float": equal("float"),
        "str": equal("str"),
        "list": equal("list"),
        "tuple": equal("tuple"),
        "dict": equal("dict"),
        "named tuple": equal("__import__('collections').namedtuple('P', '')"),
        "class spoofing int": equal("object", "    __class__ = property(lambda self: int)\n"),
        "class spoofing by isinstance": equal("object", "    __class__ = int\n    __index__ = lambda self: 17\n"),
        "metaclass": "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 0\n"
        "    __instancecheck__ = lambda s, o: True\nclass A(metaclass=M): pass\ndef solve(n): return A",
        "reduces to the answer": equal("object", "    __reduce__ = lambda self: (int, ('17',))\n"),
        "within a list": equal("object").replace("return Equal()", "return [Equal()]"),
        "counter": equal("__import__('collections').Counter"),
        "enum": "import enum\nclass E(enum.IntEnum):\n    A = 17\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 0\n"
        "def solve(n): return E.A",
        "nan": "def solve(n): return float('nan')",
        "mock any": "class A:\n    def __eq__(self, o): return True\n    def __getattr__(self, n): return self\n"
        "    def __call__(self, *a): return self\ndef solve(n): return A()",
    },
    "monster return": {
        "100k deep list": inside(_RETURN_DEEP),
        "100k deep dict": inside(_RETURN_DEEP.replace("[x]", "{0: x}")),
        "100k deep tuple": inside(_RETURN_DEEP.replace("[x]", "(x,)")),
        "200 MB string": inside("return 'x' * 200_000_000"),
        "200 MB of bytes": inside("return bytes(200_000_000)"),
        "a huge list": inside("return [0] * 10_000_000"),
        "a cyclic list": inside("x = []\nx.append(x)\nreturn x"),
        "a cyclic dict": inside("x = {}\nx[0] = x\nreturn x"),
        "a million digits": inside("return 10 ** 1_000_000"),
        "a huge integer": inside("return 1 << 100_000_000"),
        "colliding set": inside("return {i * (2**61 - 1) for i in range(3000)}"),
        "colliding frame": frames("""
            os.write(3, frame(b'{"loaded":true}'))
            import marshal
            number, *_ = marshal.loads(os.read(3, struct.unpack(">I", os.read(3, 4))[0]))
            keys = [{"i": hex(i * (2**61 - 1))} for i in range(60000)]
            body = frame(json.dumps({"id": number, "value": {"s": keys}}).encode())
            while body:
                body = body[os.write(3, body):]
            time.sleep(100)"""),
        "an endless generator": "import itertools\ndef solve(n): return itertools.count()",
        "lone surrogates": inside("return '\\ud800' * 10"),
        "a module": inside("return sys"),
        "a function": inside("return solve"),
        "an iterator": inside("return iter([17])"),
    },
    "poison": {
        "builtins": "import builtins\nfor name in ('len', 'isinstance', 'type', 'all', 'any', 'abs', 'repr', 'hash'):\n"
        "    setattr(builtins, name, lambda *a: True)\ndef solve(n): return None",
        "AssertionError": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\ndef solve(n): return None",
        "BaseException": "import builtins\nbuiltins.BaseException = ZeroDivisionError\ndef solve(n): raise SystemExit",
        "compile": "import builtins\nbuiltins.compile = builtins.exec = lambda *a, **k: None\ndef solve(n): return None",
        "json": "import json, sys\njson.loads = json.dumps = lambda *a, **k: True\nsys.modules['json'] = None\n"
        "def solve(n): return None",
        "marshal": "import marshal\nmarshal.loads = lambda b: None\nmarshal.dumps = lambda v: b''\ndef solve(n): return None",
        "wire format": "import schoolhouse.sandbox.wire_format as c\nc.to_plain = c.write_answer = lambda v: True\ndef solve(n): return None",
        "test runner imported": "import schoolhouse.sandbox.test_runner as j\nj.Tally.__exit__ = lambda *a: True\nj.verdict = lambda *a: "
        "{'status': 'passed', 'fraction': 1.0, 'detail': '', 'cpu_s': 0.0}\ndef solve(n): return None",
        "trace function": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef solve(n): return None",
        "int's comparison": "import ctypes\ntable = ctypes.c_void_p.from_address(id(int) + 200)\n"
        "always = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)(lambda a, b, o: True)\n"
        "table.value = ctypes.cast(always, ctypes.c_void_p).value\ndef solve(n): return 0",
        "a cached small integer": "import ctypes\nctypes.c_uint32.from_address(id(7) + 24).value = 8\ndef solve(n): return 7",
        "every function's code": "import gc, types\nfor f in gc.get_objects():\n    if type(f) is types.FunctionType:\n"
        "        f.__code__ = (lambda *a, **k: True).__code__ if not f.__code__.co_freevars else f.__code__\n"
        "def solve(n): return None",
        "entry point's closure": "class S:\n    def __call__(self, n): return NotImplemented\nsolve = S()",
        "import hook": "import sys\nsys.meta_path.insert(0, type('F', (), {'find_spec': lambda *a: 1 / 0})())\n"
        "def solve(n): import decimal, asyncio\n",
    },
    "scan for the tests": {
        "frames": escape("""
            frame, found = sys._getframe(), False
            while frame:
                found = found or "assert solve" in repr({**frame.f_globals, **frame.f_locals}.get("tests", ""))
                found = found or "assert solve" in repr(frame.f_locals.get("job", ""))
                frame = frame.f_back
            assert found"""),
        "objects": escape(_SCAN_OBJECTS),
        "referrers": escape("import gc\nassert any('tests' in r for r in gc.get_referrers(sys) if isinstance(r, dict))"),
        "own memory by maps": escape(_SCAN_MEMORY % ("self", "self")),
        "own memory by address": escape(_OWN_MEMORY),
        "parent's memory": escape(_SCAN_MEMORY % ("1", "1")),
        "parent's command line": escape("assert open(f'/proc/{os.getppid()}/cmdline').read()"),
        "processes": escape("assert os.listdir('/proc')"),
        "own descriptors": escape("assert os.listdir('/proc/self/fd')"),
        "parent's environment": escape("assert open('/proc/1/environ').read()"),
        "environment": escape("assert any('hunter2' in value for value in os.environ.values())"),
        "a readable file": escape("assert open(SECRET).read()"),
        "a file by link": escape("os.symlink(SECRET, 'x')"),
        "the repository": escape("assert os.listdir(os.path.dirname(SECRET))"),
        "the user's home": escape("assert os.listdir(os.path.expanduser('~'))"),
        "passwords": escape("assert open('/etc/passwd').read()"),
        "a file by raw open": escape("raw(2, -1, SECRET.encode(), 0)\nassert platform.machine() == 'x86_64'\n"
                                     "assert libc.open(SECRET.encode(), 0) >= 0"),
        "a file by handle": escape("raw(304, 265, -100, ctypes.create_string_buffer(64), 0)"),
        "inherited descriptors": escape("for d in range(4, 1024):\n    try: os.fstat(d)\n    except OSError: continue\n"
                                        "    break\nelse:\n    raise OSError"),
        "another's memory": escape("raw(310, 270, os.getppid(), ctypes.create_string_buffer(64), 1, None, 0, 0)"),
    },
    "kill": {
        "parent": escape("os.kill(os.getppid(), 9)"),
        "process 1": escape("os.kill(1, 9)"),
        "everything": escape("os.kill(-1, 9)"),
        "own group": escape("os.kill(0, 9)"),
        "group": escape("os.killpg(os.getpgid(0), 9)"),
        "a victim": escape("os.kill(VICTIM, 9)"),
        "victim by tkill": escape("raw(200, 130, VICTIM, 9)"),
        "parent by tgkill": escape("raw(234, 131, os.getppid(), os.getppid(), 9)"),
        "parent by sigqueue": escape("raw(129, 138, os.getppid(), 9, ctypes.create_string_buffer(128))"),
        "parent by tgsigqueue": escape("raw(297, 240, os.getppid(), os.getppid(), 9, ctypes.create_string_buffer(128))"),
        "parent by pidfd": escape("raw(424, 424, raw(434, 434, os.getppid(), 0), 9, None, 0)"),
        "victim by descriptor owner": escape(_OWNER.format(pid="VICTIM")),
        "parent by descriptor owner": escape(_OWNER.format(pid="os.getppid()")),
        "parent by ioctl owner": escape("import fcntl, struct\nfcntl.ioctl(3, 0x8901, struct.pack('i', os.getppid()))"),
        "parent's limits": escape("import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))"),
        "victim's limits": escape("import resource\nresource.prlimit(VICTIM, resource.RLIMIT_CPU, (0, 0))"),
        "trace the parent": escape("raw(101, 117, 16, os.getppid(), 0, 0)"),
        "seize the victim": escape("raw(101, 117, 0x4206, VICTIM, 0, 0)"),
        "write the parent": escape("raw(311, 271, os.getppid(), ctypes.create_string_buffer(64), 1, None, 0, 0)"),
        "slow the parent": escape("os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"),
        "confine the parent": escape("os.sched_setaffinity(os.getppid(), {0})"),
        "idle the parent": escape("os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0))"),
        "a timer's signal": escape("raw(222, 107, 0, ctypes.create_string_buffer(64), ctypes.create_string_buffer(8))"),
        "steal a descriptor": escape("raw(438, 438, raw(434, 434, os.getppid(), 0), 3, 0)"),
    },
    "bomb": {
        "fork": "import os\nwhile True:\n    os.fork()",
        "fork caught": "import os\nwhile True:\n    try: os.fork()\n    except BaseException: pass",
        "raw clone": escape("assert raw(56, 220, 17, 0, 0, 0, 0) >= 0"),
        "vfork": escape("raw(58, 1071, 0)"),
        "clone with a namespace": escape("raw(56, 220, 0x10000000 | 17, 0, 0, 0, 0)"),
        "raw clone3": escape("raw(435, 435, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88)"),
        "threads": "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(100,)).start()",
        "small threads": "import threading, time\nthreading.stack_size(32768)\nwhile True:\n    try:\n"
        "        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n    except RuntimeError: pass",
        "memory": "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "memory caught": "x = []\nwhile True:\n    try: x.append(bytearray(1 << 20))\n    except MemoryError: pass",
        "memory in the call": inside("x = [0]\nwhile True: x = x + x"),
        "memory at once": inside("return len(bytes(1 << 40))"),
        "mapped memory": "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 1 << 24))",
        "memory file": escape("d = os.memfd_create('x')\nos.ftruncate(d, 1 << 20)"),
        "output": "while True: print('x' * 10000)",
        "output caught": "import signal, os\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwhile True:\n"
        "    try: os.write(1, b'x' * 10000)\n    except OSError: pass",
        "standard error": "import os\nwhile True: os.write(2, b'x' * 10000)",
        "sparse output": escape("os.ftruncate(1, 1 << 40)"),
        "descriptors": "import os\nwhile True: os.dup(1)",
        "pipes": escape("os.pipe()"),
        "a huge power": inside("return 10 ** 10 ** 9 % 7"),
        "a huge format": inside("return '%1000000000d' % n"),
        "locked memory": escape("raw(149, 228, ctypes.create_string_buffer(1 << 20), 1 << 20)"),
        "deep recursion": inside("sys.setrecursionlimit(10**9)\nreturn solve(n)"),
    },
    "break out": {
        "execute": escape("os.execv('/bin/true', ['/bin/true'])"),
        "execute by descriptor": escape("raw(322, 281, -100, b'/bin/true', None, None, 0)"),
        "a shell": escape("assert os.system('true') == 0"),
        "a subprocess": escape("import subprocess\nsubprocess.run(['/bin/true'], check=True)"),
        "spawn": escape("os.posix_spawn('/bin/true', ['true'], {})"),
        "connect": escape("import socket\nsocket.create_connection(('127.0.0.1', PORT), timeout=1)"),
        "udp": escape("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))"),
        "unix socket": escape("import socket\nsocket.socket(socket.AF_UNIX)"),
        "socket pair": escape("import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"),
        "raw socket": escape("raw(41, 198, 17, 3, 0)"),
        "pass a descriptor": escape("raw(46, 211, 3, ctypes.create_string_buffer(56), 0)"),
        "connect the calls elsewhere": escape("raw(42, 203, 3, ctypes.create_string_buffer(16), 16)"),
        "user namespace": escape("raw(272, 97, 0x10000000)"),
        "mount namespace": escape("raw(272, 97, 0x00020000)"),
        "join a namespace": escape("raw(308, 268, 3, 0)"),
        "mount": escape("raw(165, 40, b'none', b'/tmp', b'tmpfs', 0, None)"),
        "change the root": escape("os.chroot('/')"),
        "root again": escape("os.setuid(0)\nassert os.getuid() == 0 and os.open('/etc/shadow', 0)"),
        "another user": escape("raw(117, 147, 1000, 1000, 1000)"),
        "capabilities": escape("raw(126, 91, ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20'), ctypes.create_string_buffer(24))"),
        "raise the limits": escape("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))"),
        "another filter": escape("raw(317, 277, 1, 0, ctypes.create_string_buffer(16))"),
        "process controls": escape("raw(157, 167, 4, 1, 0, 0, 0)"),
        "io_uring": escape("raw(425, 425, 8, ctypes.create_string_buffer(256))"),
        "bpf": escape("raw(321, 280, 0, ctypes.create_string_buffer(128), 128)"),
        "perf": escape("raw(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)"),
        "userfaultfd": escape("raw(323, 282, 1)"),
        "shared memory": escape("raw(29, 194, 0x5C4001, 4096, 0o1666)"),
        "message queue": escape("raw(240, 180, b'schoolhouse_malicious', 0o102, 0o666, None)"),
        "keyring": escape("raw(248, 217, b'user', b'schoolhouse_malicious', b'x', 1, -4)"),
        "x32 table": escape("assert platform.machine() == 'x86_64'\nraw(0x40000000 + 57, 0)"),
        "32-bit gate": escape("assert platform.machine() == 'x86_64'" + _SHELLCODE_32),
        "host name": escape("raw(170, 161, b'x', 1)"),
        "reboot": escape("raw(169, 142, 0xFEE1DEAD, 672274793, 0, None)"),
        "personality": escape("raw(135, 92, 0x0040000)"),
    },
    "unkillable": {
        "loop": "while True: pass",
        "loop in the call": inside("while True: pass"),
        "loop that catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "loop without signals": "import signal\nfor s in range(1, 64):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        "blocked signals": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: pass",
        "catastrophic regex": inside("import re\nreturn re.match(r'(a+)+$', 'a' * 40 + 'b')"),
        "a C loop": inside("import itertools\nreturn sum(itertools.repeat(1))"),
        "loop in __del__": "class A:\n    def __del__(self):\n        while True: pass\nA()",
        "loop in __str__ of an error": "class E(Exception):\n    def __str__(self):\n        while True: pass\n"
        "def solve(n): raise E",
        "threads after the main one": "import threading\ndef spin():\n    while True: pass\n"
        "for _ in range(8): threading.Thread(target=spin).start()\ndef solve(n): return None",
        "sleep": inside("time.sleep(1e6)"),
        "deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
        "waits for input": "import os\nwhile True:\n    os.read(3, 1)",
        "select": "import select\nselect.select([], [], [])",
        "join itself": "import threading\nt = threading.Thread(target=threading.Event().wait)\nt.start()\nt.join()",
        "a parser that never ends": "x = " + "(" * 150 + "0" + ")" * 150 + "\ny = " + "-" * 3000 + "1\ndef solve(n): pass",
    },
    "crash": {
        "null pointer": "import ctypes\nctypes.string_at(0)",
        "null pointer in the call": inside("ctypes.string_at(0)"),
        "abort": "import os\nos.abort()",
        "C stack": "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        "C stack in a thread": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(65536)\n"
        "class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\n"
        "t = threading.Thread(target=lambda: A().x)\nt.start()\nt.join()\ndef solve(n): pass",
        "overwritten memory": "import ctypes\nctypes.memset(id(None), 255, 64)\ndef solve(n): return None",
        "broken byte code": "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 9)\nf()\n"
        "def solve(n): return f()",
        "illegal instruction": "import ctypes, mmap\np = mmap.mmap(-1, 4096, prot=7)\np.write(b'\\x0f\\x0b' * 8)\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(p)))()",
        "nested source": "x = " + "[" * 5000 + "]" * 5000,
        "null bytes": "x = 1\0\ndef solve(n): return n * n + 3 * n + 7\0",
        "surrogates": "x = '\ud800'\ndef solve(n): return '\ud800'",
        "unknown coding": "# -*- coding: no-such-codec -*-\nx = 1",
    },
    "garbage on the wire": {
        "4 GB header": frames("os.write(3, b'\\xff\\xff\\xff\\xff')\ntime.sleep(100)"),
        "header then exit": frames("os.write(3, b'\\x00\\x10\\x00\\x00')\nos._exit(0)"),
        "random bytes": frames("os.write(3, os.urandom(65536))\ntime.sleep(100)"),
        "zeros": frames("os.write(3, bytes(4096))\ndef solve(n): return None"),
        "no json": frames("os.write(3, frame(b'passed'))\ntime.sleep(100)"),
        "a list": frames("os.write(3, frame(b'[]'))\ntime.sleep(100)"),
        "nothing known": frames("os.write(3, frame(b'{\"hello\":1}'))\ntime.sleep(100)"),
        "deep json": frames("os.write(3, frame(b'[' * 100000))\ntime.sleep(100)"),
        "flood": frames("while True: os.write(3, frame(b'{\"loaded\":true}') * 1000)"),
        "a drip": frames("while True:\n    os.write(3, b'\\x00')\n    time.sleep(0.01)"),
        "closed": "import os\nos.close(3)\ndef solve(n): return None",
        "closed in the call": inside("os.close(3)\nreturn None"),
        "replaced": "import os\nos.dup2(1, 3)\ndef solve(n): return None",
        **{
            f"malformed value {value[:12]}": frames(f"""
            import marshal
            os.write(3, frame(b'{{"loaded":true}}'))
            while True:
                number, *_ = marshal.loads(os.read(3, struct.unpack(">I", os.read(3, 4))[0]))
                os.write(3, frame(b'{{"id":"' + number.encode() + b'","value":' + {value!r}.encode() + b'}}'))""")
            for value in (
                '{"x":[]}', '{"s":[[]]}', '{"d":[[[],1]]}', '{"d":[1]}', '{"i":"zz"}', '{"i":5}', '{"c":[1]}', '{"b":"0"}',
                '{"t":"17"}', "{}", '{"t":[],"s":[]}', "1" + "0" * 5000, '{"c":["1","1"]}', "[" * 900 + "]" * 900, '{"d":{}}',
            )
        },
    },
    "leftovers": {
        **{
            f"file in {folder}": escape(f"open({folder!r} + '/{MARK}', 'w').write('x')")
            for folder in ("/tmp", "/dev/shm", "/var/tmp", ".", "/", "/run")
        },
        "folder": escape(f"os.mkdir('/tmp/{MARK}')"),
        "home": escape(f"open(os.path.expanduser('~/{MARK}'), 'w')"),
        "link": escape(f"os.symlink('/etc', '/tmp/{MARK}')"),
        "fifo": escape(f"os.mkfifo('/tmp/{MARK}')"),
        "raw open": escape(f"assert libc.open(b'/tmp/{MARK}', 0o101, 0o666) >= 0"),
        "openat2": escape(f"raw(437, 437, -100, b'/tmp/{MARK}', (ctypes.c_uint64 * 3)(0o101, 0o666, 0), 24)"),
        "nameless file": escape("os.open('/tmp', os.O_TMPFILE | os.O_RDWR)"),
        "change a file": escape("open(SECRET, 'a').write('x')"),
        "delete a file": escape("os.unlink(SECRET)"),
        "move a file": escape(f"os.rename(SECRET, '/tmp/{MARK}')"),
        "mode of a file": escape("os.chmod(SECRET, 0)"),
        "time of a file": escape("os.utime(SECRET, (0, 0))"),
        "attribute of a file": escape("os.setxattr(SECRET, 'user.x', b'x')"),
        "standard library": escape(f"open(os.path.dirname(os.__file__) + '/{MARK}.py', 'w')"),
        "a device": escape("open('/dev/null', 'w').write('x')"),
        "shared memory": escape(f"import _posixshmem\n_posixshmem.shm_open('/{MARK}', os.O_CREAT | os.O_RDWR, 0o600)"),
        "semaphore": escape("raw(64, 190, 0x5C4001, 1, 0o1666)"),
        "background": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\ndef solve(n): pass",
    },
    "carried state": {
        "plant": f"{_HEAD}\nimport builtins, math, random, os, sys\nbuiltins.{MARK} = math.{MARK} = sys.{MARK} = 1\n"
        f"os.environ['{MARK}'] = '1'\nmath.sqrt = lambda x: 0\nsys.modules['{MARK}'] = math\nrandom.seed(5)\nsys.path.append('/{MARK}')\n"
        "os.umask(0)\ndef solve(n): return None",
        "harvest": escape(f"""
            import builtins, math
            assert (hasattr(builtins, "{MARK}") or hasattr(math, "{MARK}") or hasattr(sys, "{MARK}") or math.sqrt(4) == 0
                    or "{MARK}" in sys.modules or "{MARK}" in os.environ or "/{MARK}" in sys.path)"""),
        "call counter": inside("return getattr(sys, 'earlier', None)"),
        "previous program": escape("import gc\nassert [o for o in gc.get_objects() if type(o) is dict and 'VICTIM' in o"
                                   " and o is not globals()]"),
    },
}  # fmt: skip


def fill(source, victim=0, port=0, secret=""):
    """A program with the process, the port and the file that it is to attack."""
    for name, value in {"@VICTIM@": victim, "@PORT@": port, "@SECRET@": secret}.items():
        source = source.replace(name, str(value))
    return source


def processes(pid):
    """A process and its descendants."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(found for child in children for found in processes(child))]


def run_all(victim, port, secret, workers=4):
    """Run every program, each followed by an ordinary one on the same worker, and return rows of outcomes."""
    from schoolhouse.sandbox import Job, Sandbox

    def run(share):
        rows = []
        with Sandbox(workers=1, cache_size=0) as sandbox:
            idle = len(processes(sandbox.process_ids[0]))
            for category, name, source in share:
                job = Job(fill(source, victim, port, secret), tests=TESTS, timeout_s=0.25, memory_mb=128)
                (verdict,) = sandbox.run([job])
                (after,) = sandbox.run([Job(ORDINARY, tests=TESTS, timeout_s=3)])
                left = len(processes(sandbox.process_ids[0])) - idle
                rows.append(
                    {
                        "category": category,
                        "name": name,
                        "status": verdict.status,
                        "passed": verdict.passed,
                        "detail": verdict.detail,
                        "next": after.status,
                        "left": left,
                    }
                )
            started = processes(sandbox.process_ids[0])
        return rows, started, sandbox.layers

    everything = [(category, name, source) for category, group in PROGRAMS.items() for name, source in group.items()]
    # Carried state stays together; the rest is dealt out so that sleepers wait side by side.
    carried = [row for row in everything if row[0] == "carried state"]
    rest = [row for row in everything if row[0] != "carried state"]
    shares = [rest[n::workers] for n in range(workers - 1)] + [rest[workers - 1 :: workers] + carried]
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(run, shares))
    return {
        "rows": [row for rows, _, _ in results for row in rows],
        "alive": [pid for _, started, _ in results for pid in started if Path(f"/proc/{pid}").exists()],
        "layers": results[0][2],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    print(json.dumps(run_all(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
