"""Input and output of the sandbox: jobs and verdicts."""

import ast
import builtins
import re
from dataclasses import dataclass
from typing import Literal, get_args


Status = Literal[
    "passed",
    "wrong_answer",
    "exception",
    "syntax",
    "timeout",
    "memory",
    "exit",
    "denied",
    "crashed",
    "bad_return",
    "protocol",
    "output_limit",
    "unsupported",
    "sandbox_error",
]
STATUSES: tuple[Status, ...] = get_args(Status)


class SandboxError(RuntimeError):
    """The sandbox cannot run programs here, or not safely."""


@dataclass(frozen=True)
class Job:
    """
    One program and the tests that call a function of it.

    Args:
        program (`str`):
            Untrusted source text.
        tests (`str`):
            Trusted source text: `assert` statements that call `entry_point`, or a function `check(candidate)` as in
            HumanEval. It runs in the test runner's process and never reaches the program's. It may call classes of the
            program too, and use what they make, but not leave a comparison to them.
        entry_point (`str`, *optional*, defaults to `""`):
            Name of the function or class that the tests call, or an expression such as `Solution().solve`, with which
            `check` is called. Without one it is read from the tests.
        prelude (`str`, *optional*, defaults to `""`):
            Trusted source text that runs before the program and before the tests (imports, helpers of the prompt).
        timeout_s (`float`, *optional*, defaults to `3.0`):
            Seconds that the program may compute and sleep. Waiting for a busy machine does not count.
        memory_mb (`int`, *optional*, defaults to `512`):
            Address space in MiB that the program may add to that of the bare interpreter.

    Raises:
        ValueError: If there are no tests, a limit is not above 0, or the tests name no entry point.
    """

    program: str
    tests: str
    entry_point: str = ""
    prelude: str = ""
    timeout_s: float = 3.0
    memory_mb: int = 512

    def __post_init__(self) -> None:
        if not self.tests:
            raise ValueError("a Job needs `tests`: assert statements or a function check(candidate)")
        if not (self.timeout_s > 0 and self.memory_mb > 0):
            raise ValueError(f"timeout_s={self.timeout_s} and memory_mb={self.memory_mb} must both be above 0")
        if not self.entry_point:
            object.__setattr__(self, "entry_point", entry_point_of(self.tests))


@dataclass(frozen=True)
class Verdict:
    """
    Outcome of a job.

    Args:
        status (`Status`):
            One of `STATUSES`.
        fraction (`float` or `None`):
            Share of the test statements that passed, from 0 to 1; 1 if and only if the program passed, `None` where
            `passed` is.
        detail (`str`, *optional*, defaults to `""`):
            One line for people. It may quote the program: escape it where it is shown.
        cpu_s (`float`, *optional*, defaults to `0.0`):
            CPU seconds that the program's process used.
    """

    status: Status
    fraction: float | None
    detail: str = ""
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        if self.passed is None:
            assert self.fraction is None, self
        else:
            assert self.fraction is not None and 0 <= self.fraction <= 1, self
            assert (self.fraction == 1) == self.passed, self

    @property
    def passed(self) -> bool | None:
        """`True`, `False`, or `None` where the job says nothing about the program."""
        return None if self.status in ("unsupported", "sandbox_error") else self.status == "passed"


def entry_point_of(tests: str) -> str:
    """
    Name of the function that the tests are about.

    This is the outermost called name that is neither a builtin nor defined by the tests, preferably inside an
    `assert`. A builtin (`assert sum(1, 2) == 3`) counts only where no other name is called.

    Raises:
        ValueError: If the tests do not parse or call no function by name.
    """
    try:
        tree = ast.parse(tests)
    except SyntaxError as error:
        raise ValueError(f"the tests do not parse: {error}; give `entry_point`") from None
    own = bound_names(tree)
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    names = [
        node.func.id
        for part in (*asserts, tree)
        for node in ast.walk(part)  # breadth first, so the outermost call comes first
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in own
    ]
    if not names:
        raise ValueError("the tests call no function by name; give `entry_point`")
    return next((name for name in names if not hasattr(builtins, name)), names[0])


def root_name(entry_point: str) -> str:
    """Return the name that a program defines for an entry point: `Solution` of `Solution().solve`."""
    found = re.match(r"\w+", entry_point)
    return found.group() if found else entry_point


def bound_names(tree: ast.AST) -> set[str]:
    """Return the names that a syntax tree binds in any scope."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
