"""Test texts, compiled so that each of their statements counts once."""

import ast
import builtins
import functools
import sys
from collections.abc import Set
from dataclasses import dataclass
from types import CodeType

from schoolhouse.sandbox.types import bound_names


class Unsupported(Exception):
    """Tests that cannot be run against any program."""


@dataclass(frozen=True)
class Tests:
    """
    Compiled tests.

    Args:
        prelude (`CodeType`), code (`CodeType`):
            What runs before the tests, and the tests.
        check (`CodeType` or `None`):
            The call of `check`, where the tests define it.
        total (`int`):
            Number of statements that count; the first `in_check` of them are those of `check`.
        modules (`tuple[str, ...]`):
            Modules of the standard library that the tests use without an import.
    """

    prelude: CodeType
    code: CodeType
    check: CodeType | None
    total: int
    in_check: int
    modules: tuple[str, ...]


@functools.lru_cache(maxsize=4096)
def prepare(tests: str, prelude: str, entry_point: str) -> Tests:
    """
    Compile the tests so that each of them counts once: every asserting statement of the text and of its
    `check(candidate)`, by its place in the source. A loop, a `with` or a call of a function of the tests that asserts
    is one statement.

    Raises:
        Unsupported: If they do not parse or need a name that only the program could define (a class of its own).
    """
    try:
        tree, before = ast.parse(tests), ast.parse(prelude)
    except SyntaxError as error:
        raise Unsupported(f"the tests do not parse: {error}") from None
    bound = bound_names(tree) | bound_names(before) | {entry_point}
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    free = {name for name in loaded - bound if not hasattr(builtins, name)}
    if unknown := sorted(free - sys.stdlib_module_names):
        raise Unsupported(f"the tests need {unknown[0]!r} from the program; they can only call {entry_point!r}")
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    check = functions.pop("check", None)
    asserting: set[str] = set()  # functions of the tests that assert, themselves or through others
    while more := {name for name, node in functions.items() if name not in asserting and _asserts(node, asserting)}:
        asserting |= more
    total = in_check = 0
    for block in (check.body if check else [], tree.body):
        in_check = total
        for index, statement in enumerate(block):
            definition = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if not definition and _asserts(statement, asserting):
                call = ast.Call(ast.Name("__test__", ast.Load()), [ast.Constant(total)], [])
                block[index] = ast.copy_location(ast.With([ast.withitem(call)], [statement]), statement)
                total += 1
    code = compile(ast.fix_missing_locations(tree), "<tests>", "exec")
    call_check = compile(f"check({entry_point})", "<tests>", "exec") if check else None
    return Tests(compile(before, "<prelude>", "exec"), code, call_check, total, in_check, tuple(sorted(free)))


def _asserts(tree: ast.AST, asserting: Set[str]) -> bool:
    """Check if a syntax tree asserts something, or calls one of these functions that do."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in asserting)
        for node in ast.walk(tree)
    )
