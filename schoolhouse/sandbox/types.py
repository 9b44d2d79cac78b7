"""What goes into the sandbox and what comes out."""

import ast
import builtins
from dataclasses import dataclass


STATUSES = (
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
)


class SandboxError(RuntimeError):
    """The sandbox cannot run programs here, or not safely."""


@dataclass(frozen=True)
class Job:
    """
    One program to judge, either by tests that call a function of it or by what it prints.

    Args:
        program (`str`):
            The untrusted source text.
        tests (`str`, *optional*, defaults to `""`):
            Trusted source text: `assert` statements that call `entry_point`, or a function `check(candidate)` as in
            HumanEval. It runs in the judge's process and never reaches the program's.
        entry_point (`str`, *optional*, defaults to `""`):
            Name of the function that the tests call. Without one it is read off the tests.
        prelude (`str`, *optional*, defaults to `""`):
            Trusted source text that runs before the program and before the tests (imports, helpers of the prompt).
        stdin (`str`, *optional*):
            Standard input of a program judged by its output.
        expected_stdout (`str`, *optional*):
            What that program must print; white space at the ends of lines and blank lines at the end do not count.
        timeout_s (`float`, *optional*, defaults to `3.0`):
            CPU seconds of the program. Waiting is bounded too, by `5 * timeout_s + 1` seconds of wall time.
        memory_mb (`int`, *optional*, defaults to `512`):
            Address space in MiB that the program may add to the bare interpreter's.
    """

    program: str
    tests: str = ""
    entry_point: str = ""
    prelude: str = ""
    stdin: str | None = None
    expected_stdout: str | None = None
    timeout_s: float = 3.0
    memory_mb: int = 512

    def __post_init__(self):
        if bool(self.tests) == (self.expected_stdout is not None):
            raise ValueError("a Job needs either `tests` or `expected_stdout`, and not both")
        if self.stdin is not None and self.expected_stdout is None:
            raise ValueError("a Job with `stdin` is judged by its output: give `expected_stdout` too")
        if not (self.timeout_s > 0 and self.memory_mb > 0):
            raise ValueError(f"timeout_s={self.timeout_s} and memory_mb={self.memory_mb} must both be above 0")
        if self.tests and not self.entry_point:
            object.__setattr__(self, "entry_point", entry_point_of(self.tests))


@dataclass(frozen=True)
class Verdict:
    """
    What became of a job.

    Args:
        status (`str`):
            One of `STATUSES`.
        fraction (`float` or `None`):
            Share of the tests that passed, `None` where `passed` is.
        detail (`str`, *optional*, defaults to `""`):
            One line for people. It may quote the program: escape it wherever it is shown.
        cpu_s (`float`, *optional*, defaults to `0.0`):
            CPU seconds that the program's process used.
    """

    status: str
    fraction: float | None
    detail: str = ""
    cpu_s: float = 0.0

    @property
    def passed(self) -> bool | None:
        """`True`, `False`, or `None` where the job says nothing about the program."""
        return None if self.status in ("unsupported", "sandbox_error") else self.status == "passed"


def entry_point_of(tests: str) -> str:
    """
    The function that tests are about: the outermost called name that is neither a builtin nor defined by the tests
    themselves, in an `assert` if there is one; a builtin (`assert sum(1, 2) == 3`) only where there is no other.

    Args:
        tests (`str`):
            Source text of the tests.

    Returns:
        `str`: the name.

    Raises:
        `ValueError`: if the tests do not parse or call no function by name.
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


def bound_names(tree: ast.AST) -> set[str]:
    """Every name that a syntax tree binds anywhere, whatever the scope."""
    names = set()
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
