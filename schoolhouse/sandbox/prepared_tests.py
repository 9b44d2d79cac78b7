"""Test texts: compiled so that each of their statements counts once, and what they need of a program."""

import ast
import builtins
import functools
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import CodeType, CoroutineType, FunctionType, GeneratorType

from schoolhouse.sandbox.types import Job, bound_names, root_name


_VALUE_TYPES = (
    bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, deque, OrderedDict,
    Counter, defaultdict, Fraction, Decimal, datetime, time, timedelta, FunctionType, GeneratorType, CoroutineType,
)  # fmt: skip
# Attributes of what a program returns by value. Tests that name another one expect an object of the program's own.
_VALUE_ATTRIBUTES = frozenset(name for kind in _VALUE_TYPES for name in dir(kind)) | {"__name__"}
_ORDERS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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
        names (`tuple[str, ...]`):
            What the tests take from the program: the entry point first, then classes that they call.
        classes (`frozenset[str]`), attributes (`frozenset[str]`):
            Names that the tests use as classes, and attributes of the program's objects that they use.
        in_place (`bool`):
            Whether the tests look at arguments after the call.
    """

    prelude: CodeType
    code: CodeType
    check: CodeType | None
    total: int
    in_check: int
    modules: tuple[str, ...]
    names: tuple[str, ...]
    classes: frozenset[str]
    attributes: frozenset[str]
    in_place: bool


@functools.lru_cache(maxsize=4096)
def prepare(tests: str, prelude: str, entry_point: str) -> Tests:
    """
    Compile the tests so that each of them counts once: every asserting statement of the text and of its
    `check(candidate)`, by its place in the source. A loop, a `with` or a call of a function of the tests that asserts
    is one statement.

    Raises:
        Unsupported: If they do not parse, need a name that only the program could define (other than a class that
            they call), or leave a comparison to the program's own operators.
    """
    try:
        tree, before = ast.parse(tests), ast.parse(prelude)
    except SyntaxError as error:
        raise Unsupported(f"the tests do not parse: {error}") from None
    root = root_name(entry_point)
    bound = bound_names(tree) | bound_names(before) | {root}
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    free = {name for name in loaded - bound if not hasattr(builtins, name)}
    called = {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    classes = {name for name in free & called - sys.stdlib_module_names if _is_class_name(name)}
    if unknown := sorted(free - sys.stdlib_module_names - classes):
        raise Unsupported(
            f"the tests need {unknown[0]!r} from the program; they can only call {entry_point!r} and classes"
        )
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    check = functions.pop("check", None)
    try:
        call_check = compile(f"check({entry_point})", "<tests>", "exec") if check else None
    except SyntaxError:
        raise Unsupported(f"the entry point {entry_point!r} is no name or expression") from None
    uses = _Uses(tree, entry_point, classes, check)
    asserting: set[str] = set()  # functions of the tests that assert, themselves or through others
    while more := {name for name, node in functions.items() if name not in asserting and _asserts(node, asserting)}:
        asserting |= more
    total = in_check = 0
    for block in (check.body if check else [], tree.body):
        in_check = total
        for index, statement in enumerate(block):
            if not isinstance(statement, _DEFINITIONS) and _asserts(statement, asserting):
                call = ast.Call(ast.Name("__test__", ast.Load()), [ast.Constant(total)], [])
                block[index] = ast.copy_location(ast.With([ast.withitem(call)], [statement]), statement)
                total += 1
    return Tests(
        prelude=compile(before, "<prelude>", "exec"),
        code=compile(ast.fix_missing_locations(tree), "<tests>", "exec"),
        check=call_check,
        total=total,
        in_check=in_check,
        modules=tuple(sorted(free - classes)),
        names=(root, *sorted(classes)),
        classes=frozenset(uses.classes),
        attributes=frozenset(uses.attributes),
        in_place=uses.in_place,
    )


def empty_program(job: Job) -> str:
    """Return a program that defines what the tests of a job take from it, and does nothing."""
    try:
        tests = prepare(job.tests, job.prelude, job.entry_point)
    except Unsupported:
        return ""
    return "".join(
        f"class {name}:\n    def __init__(self, *a, **k): pass\n" if name in tests.classes
        else f"def {name}(*a, **k): pass\n"
        for name in tests.names
    )  # fmt: skip


def _asserts(tree: ast.AST, asserting: Set[str]) -> bool:
    """Check if a syntax tree asserts something, or calls one of these functions that do."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in asserting)
        for node in ast.walk(tree)
    )


def _is_class_name(name: str) -> bool:
    return name[:1].isupper() and "_" not in name


class _Uses:
    """
    What the tests do with what the program returns, read from their text.

    A variable is *made* by a name of the program if it is assigned a call of that name, and *derived* if anything of
    the program went into it.
    """

    def __init__(self, tree: ast.Module, entry_point: str, classes: Set[str], check: ast.FunctionDef | None) -> None:
        root = root_name(entry_point)
        self.classes, self.attributes = set(classes), set[str]()
        self._aliases = {name: name for name in (root, *classes)}
        self._made: dict[str, str] = {}
        self._derived: set[str] = set()
        nodes = list(ast.walk(tree))
        if check and not any(name.id == "check" for name in _names(tree)):
            nodes += ast.walk(ast.parse(f"check({entry_point})"))  # the call that is left to us
        assignments = list(_assignments(nodes))
        size = -1
        while size != (size := len(self._aliases) + len(self._made) + len(self._derived)):
            for target, value in assignments:
                self._assign(target, value)
        self._find_classes(nodes)
        calls = [node for node in nodes if isinstance(node, ast.Call) and self._is_derived(node.func)]
        self._passed = {
            name.id
            for call in calls
            for argument in (*call.args, *(keyword.value for keyword in call.keywords))
            for name in _names(argument, into_calls=False)
        } - self._aliases.keys()
        asserted = [atom for node in nodes if isinstance(node, ast.Assert) for atom in _atoms(node.test)]
        returned = [node.value for node in nodes if isinstance(node, ast.Return) and node.value]
        self.in_place = any(map(self._looks_at_argument, asserted)) or any(
            isinstance(value, ast.Name) and value.id in self._passed for value in returned
        )

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name) and isinstance(value, ast.Name) and value.id in self._aliases:
            self._aliases[target.id] = self._aliases[value.id]
        elif self._is_derived(value):
            self._derived |= {name.id for name in _names(target)}
            if isinstance(target, ast.Name) and (maker := self._maker(value)):
                self._made[target.id] = maker

    def _is_derived(self, tree: ast.AST) -> bool:
        return any(name.id in self._aliases or name.id in self._derived for name in _names(tree))

    def _maker(self, value: ast.expr) -> str | None:
        """Name of the program that an expression calls, or that made its variable."""
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return self._aliases.get(value.func.id)
        return self._made.get(value.id) if isinstance(value, ast.Name) else None

    def _find_classes(self, nodes: list[ast.AST]) -> None:
        """Find the classes and attributes that the tests use, and refuse comparisons of objects."""
        attributes: dict[str, set[str]] = defaultdict(set)  # of what a name of the program makes
        used_as_object: set[str | None] = set()
        compared: set[str | None] = set()
        computed: set[str | None] = set()
        for node in nodes:
            if isinstance(node, ast.Attribute):
                alias = self._aliases.get(node.value.id) if isinstance(node.value, ast.Name) else None
                if name := self._maker(node.value) or alias:
                    attributes[name].add(node.attr)
                elif node.attr not in _VALUE_ATTRIBUTES and self._is_derived(node.value):
                    self.attributes.add(node.attr)
            elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                used_as_object.add(self._maker(node.value))
            elif isinstance(node, ast.withitem):
                used_as_object.add(self._maker(node.context_expr))
            elif isinstance(node, ast.Compare) and any(isinstance(operator, _ORDERS) for operator in node.ops):
                makers = [self._maker(side) for side in (node.left, *node.comparators)]
                compared |= set(makers)
                used_as_object |= {name for name in makers if makers.count(name) > 1}
            elif isinstance(node, ast.BinOp):
                left, right = self._maker(node.left), self._maker(node.right)
                computed |= {left, right}
                used_as_object |= {left} & {right}
        for name in filter(_is_class_name, set(self._aliases.values())):
            if name in attributes or name in used_as_object or name not in compared | computed:
                self.classes.add(name)
        for name in attributes.keys() - self.classes:
            if not attributes[name] <= _VALUE_ATTRIBUTES:
                self.attributes |= attributes[name]
        if refused := sorted(self.classes & compared):
            raise Unsupported(
                f"the tests compare objects of {refused[0]!r}, and only the program could tell the outcome"
            )

    def _looks_at_argument(self, atom: ast.expr) -> bool:
        """
        Check if a part of an assertion compares an argument of an earlier call with values of the tests alone. Tests
        that compare it with what the program returned must not see what the program did to it: `f(x) == sorted(x)`
        would hold for a program that empties both.
        """
        sides = [atom.left, *atom.comparators] if isinstance(atom, ast.Compare) else [atom, ast.Constant(True)]
        outside = [{name.id for name in self._outside_calls(side)} for side in sides]
        shows = [bool(names & self._passed) and not names & self._derived - self._passed for names in outside]
        pure = [not self._is_derived(side) and not any(n.id in self._passed for n in _names(side)) for side in sides]
        return any(shows) and any(pure)

    def _outside_calls(self, tree: ast.AST) -> Iterator[ast.Name]:
        """Names in an expression, but for those within calls of the program and in indices: `xs[:k]` shows `xs`."""
        if isinstance(tree, ast.Name):
            yield tree
        if isinstance(tree, ast.Subscript):
            yield from self._outside_calls(tree.value)
        elif not (isinstance(tree, ast.Call) and self._is_derived(tree.func)):
            for child in ast.iter_child_nodes(tree):
                yield from self._outside_calls(child)


def _names(tree: ast.AST, into_calls: bool = True) -> Iterator[ast.Name]:
    if isinstance(tree, ast.Name):
        yield tree
    elif into_calls or not isinstance(tree, ast.Call):
        for child in ast.iter_child_nodes(tree):
            yield from _names(child, into_calls)


def _atoms(test: ast.expr) -> Iterator[ast.expr]:
    """Parts of a condition that `and`, `or` and `not` combine."""
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _atoms(value)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _atoms(test.operand)
    else:
        yield test


def _assignments(nodes: list[ast.AST]) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Pairs of a target and what is assigned to it: in any statement, by an argument or by a result of a function."""
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    for function in functions.values():
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node.value:
                yield ast.Name(function.name), node.value
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            for parameter, value in zip(functions[node.func.id].args.args, node.args, strict=False):
                yield ast.Name(parameter.arg), value
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value:
            yield node.target, node.value
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield node.target, node.iter
        elif isinstance(node, ast.withitem) and node.optional_vars:
            yield node.optional_vars, node.context_expr
