"""Layers of isolation, and a test of each layer before anything relies on it.

- `rlimits`, `threads`: limits on memory, CPU time, output, open files and threads.
- `seccomp`: an allow list of system calls, which leaves out new processes, sockets and writable files. Without
  `landlock` it leaves out all files.
- `landlock`: no file is readable but the standard library and the time zones, none is writable.
- `uid`, `capabilities`: no privileges of root, and a user id that no other worker has.
- `netns`, `ipcns`, `pidns`: namespaces that hide the network, shared memory and other processes.

Each layer works without the others, so a hole in one is covered by another. The calls go through `ctypes`: a binding
for each layer would be more code to trust than these few calls.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


LAYERS = ("rlimits", "threads", "seccomp", "landlock", "uid", "capabilities", "netns", "ipcns", "pidns")
NAMESPACES = {"netns", "ipcns", "pidns"}
# User ids of workers: 0x70000000 and up, as many as there can be process ids. systemd's table of user ids calls them
# unused. A user namespace that maps fewer ids gives its last ones.
FIRST_UID, MAX_UIDS = 0x70000000, 1 << 22
MAX_OUTPUT = 1 << 20  # bytes that a program may print
MAX_THREADS = 64
MAX_FILES = 32

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.shmat.restype = ctypes.c_void_p
_FAILED = ctypes.c_void_p(-1).value

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_CLONE_THREAD, _CLONE_NEWUSER = 0x00010000, 0x10000000
_CLONE_NEWIPC, _CLONE_NEWPID, _CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
_ALL_CLONE_NEW = 0x7E020080  # every namespace bit of clone(2), NEWTIME included

_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_LANDLOCK_READ_FILE, _LANDLOCK_READ_FOLDER = 1 << 2, 1 << 3
TIME_ZONES = ("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo")

# System calls of an interpreter that has imported its modules and only computes, as (x86_64, aarch64) numbers of the
# kernel's uapi headers. A number that is not listed returns EPERM.
_COMMON = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68),
    "readv": (19, 65), "writev": (20, 66), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233),
    "dup": (32, 23), "nanosleep": (35, 101), "getitimer": (36, 102), "setitimer": (38, 103), "getpid": (39, 172),
    "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17), "gettimeofday": (96, 169), "getrusage": (98, 165),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "sigaltstack": (131, 132), "gettid": (186, 178), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "getdents64": (217, 61), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72),
    "ppoll": (271, 73), "set_robust_list": (273, 99), "dup3": (292, 24), "getrandom": (318, 278),
    "statx": (332, 291), "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
_X86_64_ONLY = (4, 6, 7, 21, 23, 33, 37, 89, 201)  # stat lstat poll access select dup2 alarm readlink time
_FILTERED = {
    "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29), "openat": (257, 56), "open": (2, -1),
    "socketpair": (53, 199), "sendto": (44, 206), "recvfrom": (45, 207),
}  # fmt: skip
_ABSENT = {"clone3": (435, 435), "openat2": (437, 437)}  # ENOSYS makes the C library fall back to what can be filtered
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column of the tables above

# fcntl: DUPFD GETFD SETFD GETFL DUPFD_CLOEXEC. F_SETOWN would let the kernel send a signal on the caller's behalf.
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONBIO FIONCLEX FIOCLEX
# Classic BPF: load a word, and, jump if equal, jump if at least, return; then the actions that a return value means.
_LOAD, _AND, _EQUAL, _AT_LEAST, _RET = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000  # the last is __O_TMPFILE


def _call(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _syscall(number: int, *arguments: Any) -> int:
    return _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))


def _number(table: dict[str, tuple[int, int]], name: str) -> int:
    return table[name][_ARCHITECTURES[platform.machine()][1]]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def seccomp_program(allow_open: bool) -> bytes:
    """
    Assemble the system call filter as classic BPF, eight bytes for each instruction.

    It is an allow list: an unknown number returns EPERM, and a call by another architecture's table (32-bit code on a
    64-bit kernel) kills the process. `OSError` on an architecture without a table. With `allow_open` files can be
    opened for reading, which is for Landlock to restrict.
    """
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call table for {platform.machine()}")
    audit_arch, column = _ARCHITECTURES[platform.machine()]
    allow, deny = (_RET, 0, 0, _ALLOW), (_RET, 0, 0, _ERRNO | errno.EPERM)

    def low(index: int) -> int:
        return 16 + 8 * index  # offset of the low half; the kernel ignores the high half of all but pointers

    def one_of(index: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        checks = [instruction for value in values for instruction in ((_EQUAL, 0, 1, value), allow)]
        return [(_LOAD, 0, 0, low(index)), *checks, deny]

    def masked(*conditions: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
        """Allow the call where each word, given by its offset, equals a value under a mask."""
        checks = [((_LOAD, 0, 0, offset), (_AND, 0, 0, mask), (_EQUAL, 1, 0, value), deny)
                  for offset, mask, value in conditions]  # fmt: skip
        return [*(instruction for check in checks for instruction in check), allow]

    cases = {numbers[column]: [allow] for numbers in _COMMON.values()}
    cases |= {number: [allow] for number in _X86_64_ONLY if column == 0}
    cases |= {numbers[column]: [(_RET, 0, 0, _ERRNO | errno.ENOSYS)] for numbers in _ABSENT.values()}
    cases[_FILTERED["clone"][column]] = masked((low(0), _CLONE_THREAD | _ALL_CLONE_NEW, _CLONE_THREAD))
    cases[_FILTERED["fcntl"][column]] = one_of(1, _FCNTL_COMMANDS)
    cases[_FILTERED["ioctl"][column]] = one_of(1, _IOCTL_COMMANDS)
    if allow_open:
        cases[_FILTERED["openat"][column]] = masked((low(2), _WRITING, 0))
    if allow_open and column == 0:
        cases[_FILTERED["open"][column]] = masked((low(1), _WRITING, 0))
    # An event loop of asyncio wakes itself through a pair of stream sockets. Without an address (a pointer: both of
    # its halves are 0) nothing can be sent to others; without flags less of the kernel's code can be reached.
    anything = 0xFFFFFFFF
    cases[_FILTERED["socketpair"][column]] = masked((low(0), anything, socket.AF_UNIX), (low(1), 0xF, 1))
    no_address = ((low(4), anything, 0), (low(4) + 4, anything, 0))
    cases[_FILTERED["sendto"][column]] = masked((low(3), anything, 0), *no_address)
    cases[_FILTERED["recvfrom"][column]] = masked((low(3), anything, 0), *no_address)

    # A binary tree of comparisons: the kernel runs a new filter once for every number to build its own cache, and a
    # linear list of comparisons would make that slower than a fork.
    def tree(numbers: list[int]) -> list[tuple[int, int, int, int]]:
        if len(numbers) == 1:
            body = cases[numbers[0]]
            return [(_EQUAL, 0, len(body), numbers[0]), *body, deny]
        middle = len(numbers) // 2
        below, above = tree(numbers[:middle]), tree(numbers[middle:])
        return [(_AT_LEAST, len(below), 0, numbers[middle]), *below, *above]

    # Check the architecture first (offset 4 of `struct seccomp_data`), then load the number (offset 0).
    head = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit_arch), (_RET, 0, 0, _KILL_PROCESS), (_LOAD, 0, 0, 0)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in head + tree(sorted(cases)))


def landlock_abi() -> int:
    """Return the kernel's Landlock version, 0 without Landlock."""
    return max(0, _syscall(_LANDLOCK_CREATE, None, 0, 1))


def landlock_ruleset() -> int:
    """
    Create the Landlock rules and return their file descriptor; `OSError` without Landlock.

    Nothing is writable, only the standard library and the time zones are readable, and no TCP, signals or abstract
    sockets reach the outside, as far as the kernel's version knows them.
    """
    abi = landlock_abi()
    filesystem = (1 << 13) - 1  # version 1
    for version, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        filesystem |= (1 << bit) if abi >= version else 0
    attributes = struct.pack("=QQQ", filesystem, 3, 3)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _call(_syscall(_LANDLOCK_CREATE, ctypes.c_char_p(attributes), len(attributes), 0))
    for path in readable():
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = _LANDLOCK_READ_FILE | (_LANDLOCK_READ_FOLDER if path.is_dir() else 0)
        rule = struct.pack("=Qi", rights, descriptor)
        _call(_syscall(_LANDLOCK_ADD_RULE, ruleset, 1, ctypes.c_char_p(rule), 0))
        os.close(descriptor)
    return ruleset


def readable() -> list[Path]:
    """
    Return what programs may read: the time zones, and each file and folder of the standard library by itself. Its
    folder as a whole holds the installed packages too, in many installations (`site-packages`).
    """
    names = {*sys.stdlib_module_names, "__pycache__", "lib-dynload"}
    library = [path for path in Path(os.__file__).parent.iterdir() if path.name.removesuffix(".py") in names]
    configuration = Path(os.__file__).parent.glob("_sysconfigdata*.py")
    return [*library, *configuration, *(path for path in map(Path, TIME_ZONES) if path.is_dir())]


def own_user() -> int:
    """
    Return a user id for the programs of this process that no other worker has: the kernel counts threads by user.

    It is `FIRST_UID` or above by the process id, or among the last ids of a user namespace that maps fewer.
    """
    mapped = [[int(number) for number in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    end = min(max(first + count for first, _, count in mapped), FIRST_UID + MAX_UIDS)
    return end - 1 - os.getpid() % min(MAX_UIDS, end // 16 + 1)


class Isolation:
    """
    The layers, put on in two steps: rights that the fork server can do without go before any fork and the children
    inherit that; the others go in the child, after `fork` and before it reads its program.

    The process has entered the namespaces among the `layers` already.

    Args:
        layers (`set[str]`):
            Names from `LAYERS`.
        user (`int`):
            User and group id of programs, where `uid` is among the layers.
    """

    def __init__(self, layers: set[str], user: int):
        self.layers = layers
        self.user = user
        if "seccomp" in layers:
            code = seccomp_program(allow_open="landlock" in layers)
            self._code = ctypes.create_string_buffer(code, len(code))
            self._filter = _Program(len(code) // 8, ctypes.addressof(self._code))
        with open("/proc/self/statm") as file:
            self._own_memory = int(file.read().split()[0]) * resource.getpagesize()

    def before_fork(self) -> None:
        """Set the limits that no job changes, forbid new privileges, drop capabilities and enter Landlock."""
        if "rlimits" in self.layers:
            for kind, value in _FIXED_LIMITS:
                _set_limit(kind, value)
        if self.layers & {"seccomp", "landlock", "capabilities"}:
            _call(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        if "capabilities" in self.layers and "uid" not in self.layers:  # a change of user clears them anyway
            _drop_capabilities()
        if "landlock" in self.layers:
            ruleset = landlock_ruleset()
            _call(_syscall(_LANDLOCK_RESTRICT, ruleset, 0))
            os.close(ruleset)

    def after_fork(self, cpu_s: float, memory_mb: int) -> None:
        """
        Change the user, set the limits of this program, and filter. The filter is last: it denies the calls that the
        others need.

        Args:
            cpu_s (`float`):
                CPU seconds. The kernel counts whole ones, so this only backs up the clock of the fork server.
            memory_mb (`int`):
                MiB of address space on top of the fork server's.
        """
        if "uid" in self.layers:
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        if "pidns" not in self.layers:
            die_with_parent()  # here, since the change of user clears it
        if "rlimits" in self.layers:
            _set_limit(resource.RLIMIT_CPU, int(cpu_s) + 2)
            _set_limit(resource.RLIMIT_AS, self._own_memory + (memory_mb << 20))
        if "threads" in self.layers:
            _set_limit(resource.RLIMIT_NPROC, MAX_THREADS)  # not earlier: an ordinary user may run more already
        if "seccomp" in self.layers:
            _call(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(self._filter), 0, 0))


_FIXED_LIMITS = (
    (resource.RLIMIT_FSIZE, MAX_OUTPUT),
    (resource.RLIMIT_NOFILE, MAX_FILES),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_STACK, 8 << 20),
)


def _set_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", 0x20080522, 0)
    _call(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24))))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    _call(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def enter_namespaces() -> bool:
    """
    Move this process to a network and an IPC namespace of its own, and its next children to a PID namespace. An
    ordinary user gets a user namespace first; return whether there is one.

    Where the kernel or a container's profile refuses, nothing changes; the probes of the layers find that out. Some
    refuse only when half of it is done, so a child tries first.
    """
    wanted = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWPID
    if _libc.unshare(wanted) == 0:
        return False
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _enter_user_namespace(wanted)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        return False
    _enter_user_namespace(wanted)
    return True


def _enter_user_namespace(wanted: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    _call(_libc.unshare(wanted | _CLONE_NEWUSER))
    # In a new user namespace this user keeps its own id; without these maps it would be nobody.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory and environment."""
    _call(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


class Outside:
    """
    Two things made before the namespaces are entered, which must be out of reach afterwards: a listening TCP socket
    and a System V shared memory segment. The segment is marked for removal at once, so it goes when its users do.
    """

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self.port = 0
        with contextlib.suppress(OSError):  # a machine without loopback has nothing to reach
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
        self.segment = _libc.shmget(0, 4096, 0o1600)
        self._address = _libc.shmat(self.segment, None, 0)
        _libc.shmctl(self.segment, 0, None)

    def close(self) -> None:
        """Close both in this process."""
        _libc.shmdt(ctypes.c_void_p(self._address))
        if self._listener:
            self._listener.close()


def escapes(layer: str, outside: Outside) -> list[str]:
    """Attempt the actions that a layer must prevent, in a process with this one layer on; return those that worked."""
    attempts: dict[str, list[tuple[str, Callable[[], Any]]]] = {
        "rlimits": [
            ("map 8 GiB", lambda: mmap.mmap(-1, 8 << 30)),
            ("raise a limit", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES + 1, MAX_FILES + 1))),
            ("open many files", lambda: [os.open("/", os.O_PATH) for _ in range(MAX_FILES + 1)]),
        ],
        "threads": [("start many threads", lambda: _start_threads(MAX_THREADS + 1))],
        "seccomp": [
            ("open a socket", socket.socket),
            ("pair datagram sockets", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)),
            ("fork", _fork),
            ("signal itself", lambda: os.kill(os.getpid(), 0)),
            ("make a file in memory", lambda: os.memfd_create("x")),
            ("enter a namespace", lambda: _call(_libc.unshare(0x00020000))),
            ("set up io_uring", lambda: _call(_syscall(425, 1, ctypes.create_string_buffer(256)))),
            ("write a device", lambda: os.open("/dev/null", os.O_WRONLY)),
            ("truncate a device", lambda: os.open("/dev/null", os.O_TRUNC)),
        ],
        "landlock": [
            ("write a device", lambda: os.open("/dev/null", os.O_WRONLY)),
            ("list the root", lambda: os.listdir("/")),
            ("read its own maps", lambda: os.open("/proc/self/maps", os.O_RDONLY)),
        ],
        "uid": [("become root", lambda: os.setuid(0)), ("read secrets", lambda: os.open("/etc/shadow", os.O_RDONLY))],
        "capabilities": [("change the root", lambda: os.chroot("/")), ("raise its priority", lambda: os.nice(-1))],
        "netns": [("reach loopback", lambda: socket.create_connection(("127.0.0.1", outside.port), timeout=1))],
        "ipcns": [("attach shared memory", lambda: _attach(outside.segment))],
        "pidns": [("signal everything", lambda: os.kill(-1, 0))],
    }
    worked = []
    for name, attempt in attempts[layer]:
        try:
            attempt()
        except (OSError, MemoryError, ValueError, RuntimeError):
            continue
        worked.append(name)
    return worked


def _start_threads(number: int) -> None:
    finish = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(number):
            thread = threading.Thread(target=finish.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        finish.set()
        for thread in started:  # a thread that still held a lock when a later attempt forks would hang the child
            thread.join()


def _attach(segment: int) -> None:
    if _libc.shmat(segment, None, 0) == _FAILED:
        raise OSError(ctypes.get_errno(), "no such segment")


def _fork() -> None:
    # A call that keeps the interpreter's lock: with the lock given up, a child could wait for it for ever.
    clone = ctypes.PyDLL(None, use_errno=True).syscall
    child = clone(*map(ctypes.c_long, (_number(_FILTERED, "clone"), int(signal.SIGCHLD), 0, 0, 0, 0)))
    if child == 0:
        os._exit(0)
    _call(child)


def probe(layer: str, outside: Outside, user: int) -> bool:
    """
    Find out if a layer holds here, by trying to escape from it in a child that has no other layer on. It does not hold
    either where it cannot be put on, or where it leaves no threads because this user runs many elsewhere.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # Root may raise its limits again and start any number of threads, so limits need more to be limits.
            needs = {"rlimits": {"capabilities"}, "threads": {"uid"} if os.getuid() == 0 else set()}
            isolation = Isolation({layer} | needs.get(layer, set()), user)
            isolation.before_fork()
            isolation.after_fork(cpu_s=60, memory_mb=512)
            if layer == "threads":
                _start_threads(MAX_THREADS // 2)
            worked = escapes(layer, outside)
            if worked:
                print(f"sandbox: {layer} does not hold: {', '.join(worked)}", file=sys.stderr, flush=True)
            code = 1 if worked else 0
        except (OSError, RuntimeError):
            pass
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0
