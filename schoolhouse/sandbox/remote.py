"""Objects of a program as the tests see them: every use is a request to the program, whose result is sent by value.

The tests judge values, never an object's own word. A comparison with an object of the program's is therefore decided
here: by identity, or by the content of one that extends a builtin type. An operator between an object and a value of
the tests may give another object but no value, or an object could answer whatever the tests would like to hear.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, NoReturn, Protocol

from schoolhouse.sandbox.prepared_tests import Tests
from schoolhouse.sandbox.types import Status
from schoolhouse.sandbox.wire_format import NotPlain, from_plain


_MUTABLE = frozenset({list, tuple, dict, set, bytearray, deque, OrderedDict, Counter, defaultdict})


class Program(Protocol):
    """What these objects need of [`~schoolhouse.sandbox.test_runner.Program`]."""

    tests: Tests

    def request(
        self,
        operation: str,
        target: Remote,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] = {},  # noqa: B006
        made: bool = False,
    ) -> Any:
        """Have the program carry out an operation."""

    def refuse(self, detail: str) -> NoReturn:
        """Record a use of an object that proves nothing."""


class Remote:
    """
    Anything that stays in the program's process.

    Args:
        program ([`~schoolhouse.sandbox.test_runner.Program`]): The program.
        number (`int`): Its number there.
        made (`bool`): Whether the tests name it, or made it by calling a class that they name. They may use all of its
            attributes and operators; of any other object only attributes that no value has, its items and its text.
    """

    __slots__ = ("_remote_made", "_remote_number", "_remote_program")
    _remote_methods: frozenset[str] = frozenset()

    def __init__(self, program: Program, number: int, made: bool = False) -> None:
        object.__setattr__(self, "_remote_program", program)
        object.__setattr__(self, "_remote_number", number)
        object.__setattr__(self, "_remote_made", made)

    def __getattr__(self, name: str) -> Any:
        # `__deepcopy__` and the like are asked for by the interpreter, not by the tests.
        hidden = name.startswith("__") and name not in ("__name__", "__doc__", "__dict__", "__annotations__")
        if hidden or not (
            self._remote_made or name in self._remote_program.tests.attributes or name in self._remote_methods
        ):
            raise AttributeError(f"an object of the program's own has no {name!r}")
        return self._remote_program.request("getattr", self, (name,))


class RemoteFunction(Remote):
    """A function, method or class."""

    __slots__ = ()

    def __call__(self, *positional: Any, **keywords: Any) -> Any:
        tests = self._remote_program.tests
        makes_object = self._remote_number < len(tests.names) and tests.names[self._remote_number] in tests.classes
        return self._remote_program.request("", self, positional, keywords, makes_object)

    def __setattr__(self, name: str, value: Any) -> None:
        self._remote_program.request("setattr", self, (name, value))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote) and bool(self._remote_program.request("isinstance", instance, (self,)))


class RemoteIterator(Remote):
    """An iterator or generator."""

    __slots__ = ()
    _remote_methods = frozenset({"send", "close", "throw"})

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._remote_program.request("next", self)


class RemoteCoroutine(Remote, Coroutine[Any, Any, Any]):
    """A coroutine, which runs to its end when it is first awaited."""

    __slots__ = ()

    def send(self, value: Any) -> Any:
        raise StopIteration(self._remote_program.request("await", self))

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        pass

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._remote_program.request("await", self)
        yield


class RemoteObject(RemoteFunction):
    """An object of a class of the program's own."""

    __slots__ = ()

    def __delattr__(self, name: str) -> None:
        self._remote_program.request("delattr", self, (name,))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, RemoteObject):
            self._remote_program.refuse("two objects of the program's own, and only its own == could compare them")
        held = self._remote_program.request("content", self)
        return type(held) is list and len(held) == 1 and held[0] == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self)

    def __contains__(self, item: Any) -> bool:
        if not self._remote_made:
            self._remote_program.refuse("an object of the program's own in the place of a container")
        return bool(self._remote_program.request("contains", self, (item,)))

    def __enter__(self) -> Any:
        return self._remote_program.request(
            "", self._remote_program.request("getattr", self, ("__enter__",)), made=self._remote_made
        )

    def __exit__(self, *error: object) -> None:  # whatever it returns, no failure of a test is suppressed
        self._remote_program.request("getattr", self, ("__exit__",))(None, None, None)


def _method(operation: str, kind: type | None = None) -> Callable[..., Any]:
    """Return a method that asks for an operation whose result must be of a type, if any is given."""

    def method(self: RemoteObject, *arguments: Any) -> Any:
        result = self._remote_program.request(operation, self, arguments)
        if kind and type(result) is not kind:
            self._remote_program.refuse(f"{operation}() of an object gave no {kind.__name__}")
        return result

    return method


def _operator(operation: str, reflected: bool = False) -> Callable[..., Any]:
    """Return the method of a binary operator."""

    def method(self: RemoteObject, other: Any) -> Any:
        result = self._remote_program.request(
            "reflected " * reflected + operation, self, (other,), made=self._remote_made
        )
        if not isinstance(result, Remote) and not (self._remote_made and isinstance(other, RemoteObject)):
            self._remote_program.refuse(f"a value that an object made of a value of the tests, with {operation}")
        return result

    return method


def _ordering(self: RemoteObject, other: Any) -> Any:
    self._remote_program.refuse("objects that only the program's own operators could order")


for _name, _kind in {"len": int, "bool": bool, "str": str, "repr": str, "int": int, "float": float}.items():
    setattr(RemoteObject, f"__{_name}__", _method(_name, _kind))
for _name in ("getitem", "setitem", "delitem", "iter", "next", "reversed"):
    setattr(RemoteObject, f"__{_name}__", _method(_name))
for _name in ("abs", "neg", "pos", "invert"):
    setattr(RemoteObject, f"__{_name}__", _method(_name))
for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    _operation = f"{_name}_" if _name in ("and", "or") else _name
    setattr(RemoteObject, f"__{_name}__", _operator(_operation))
    setattr(RemoteObject, f"__r{_name}__", _operator(_operation, reflected=True))
    setattr(RemoteObject, f"__i{_name}__", _operator(f"i{_name}"))
for _name in ("lt", "le", "gt", "ge"):
    setattr(RemoteObject, f"__{_name}__", _ordering)


def write_back(old: Any, new: Any) -> None:
    """Change mutable values of the tests to what the program has made of them, if it is of the same type."""
    kind = type(old)
    if kind is not type(new):
        return
    if kind in (list, tuple) and len(old) == len(new):
        for index, (item, changed) in enumerate(zip(old, new, strict=True)):
            if type(item) in _MUTABLE and type(item) is type(changed):
                write_back(item, changed)
            elif kind is list:
                old[index] = changed
    elif kind in (list, bytearray):
        old[:] = new
    elif isinstance(old, dict):
        kept = {key: old[key] for key in old if key in new}
        old.clear()
        for key, changed in new.items():
            if key in kept and type(kept[key]) in _MUTABLE and type(kept[key]) is type(changed):
                write_back(kept[key], changed)
                old[key] = kept[key]
            else:
                old[key] = changed
    elif kind in (set, deque):
        old.clear()
        old.update(new) if kind is set else old.extend(new)


def exception_of(answer: dict[str, Any]) -> Exception:
    """
    Return the exception that the tests see for one of the program: of the first of its classes that is one of the
    standard library, with its arguments, and with the status that it leads to.
    """
    names, detail = answer.get("error"), str(answer.get("detail"))
    kinds = map(_exception, names if isinstance(names, list) else [])
    found = next((kind for kind in kinds if kind), Exception)
    try:
        error = found.__new__(found, *from_plain(answer["arguments"]))
    except (NotPlain, TypeError, KeyError):
        error = found.__new__(found)
    error.status, error.detail = status_of_error(error), detail  # type: ignore[attr-defined]  # for Tally.fail
    return error


def _exception(name: Any) -> type[Exception] | None:
    """
    Return the exception class of the standard library that has a name. StopIteration is none: it would end a test's
    `all(map(...))`.
    """
    module, _, own = str(name).rpartition(".")
    is_ours = module.partition(".")[0] in sys.stdlib_module_names
    kind = getattr(sys.modules.get(module), own, None) if is_ours else None
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return None
    return None if issubclass(kind, StopIteration | StopAsyncIteration) else kind


def status_of_error(error: Exception) -> Status:
    """Return the status of a program that raised an exception."""
    return (
        "denied" if isinstance(error, PermissionError) else "memory" if isinstance(error, MemoryError) else "exception"
    )
