"""The program's side of the calls: it runs the program and answers what the tests ask of it.

Nothing that this process sends is trusted. What a program returns is sent by value where it can be; other objects stay
here, the test runner gets their number, and asks for operations on them.
"""

import builtins
import functools
import operator
import os
import sys
import types
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from schoolhouse.sandbox.wire_format import NotPlain, content, from_plain, read_trusted, to_plain, write_answer


CONTROL = 3  # descriptor of the socket for calls
LOADED = write_answer({"loaded": True})
MAX_MESSAGE = 2000  # characters of an exception
_FUNCTIONS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType, functools.partial,
    type(functools.lru_cache(len)), type,
)  # fmt: skip


def converse(read: Callable[[int], bytes]) -> int:
    """
    Read the program, run it, and answer requests until the test runner closes the socket.

    From the test runner come first program, prelude and the names that the tests take from the program, then one
    request after the other. Returns the exit code.
    """
    program, prelude, names = read_trusted(read)
    module = types.ModuleType("solution")
    sys.modules[module.__name__] = module
    sys.argv = ["program.py"]
    try:
        exec(compile(prelude, "<prelude>", "exec"), module.__dict__)
        for name in names:
            module.__dict__.pop(name, None)  # the stub of the prompt is not the program's answer
        try:
            code = compile(program, "<program>", "exec")
        except (SyntaxError, ValueError) as error:
            send({"syntax": describe(error)})
            return 1
        exec(code, module.__dict__)
        for name in names:
            if not callable(module.__dict__.get(name)):
                raise NameError(f"the program defines no function {name!r}")
    except SystemExit as error:
        send({"exit": str(error.code)[:100]})
        return 1
    except MemoryError:
        raise
    except BaseException as error:
        send({"loaded": False, **raised(error)})
        return 1
    os.write(CONTROL, LOADED)
    objects = Objects([module.__dict__[name] for name in names])
    while request := read_trusted(read):
        send(objects.answer(*request))
    return 0


def warm_up() -> None:
    """
    Answer requests of our own, so that the interpreter has specialised this code before the fork. A child that did
    would copy the pages that hold it.
    """
    values = [1, "a", None, 0.5, True, [1, (2,)], {"a": 1}, {1}]
    objects = Objects([lambda *positional, **keywords: values])
    for _ in range(20):
        write_answer(objects.answer("", "", 0, ([values], {}), None, False, False))


class Objects:
    """Objects of the program that the test runner knows by their numbers; the first are those that the tests name."""

    def __init__(self, named: list[Any]) -> None:
        self._objects = named
        self._numbers = {id(value): number for number, value in enumerate(named)}
        self._own = False

    def answer(
        self, number: str, operation: str, target: int, arguments: Any, document: Any, changed: bool, own: bool
    ) -> dict[str, Any]:
        """
        Carry out a request.

        Args:
            number (`str`):
                What makes this the answer to this request.
            operation (`str`):
                Name of a function of `operator` (behind `"reflected "` with its operands swapped) or `builtins`,
                `"content"` or `"await"`; empty for a call.
            target (`int`):
                Number of the object that it is about.
            arguments (`tuple[list[Any], dict[str, Any]]` or `None`), document (`Any`):
                The other arguments, positional and by keyword: as they are, or on the wire.
            changed (`bool`):
                Whether to send the arguments back, since the program may have changed them.
            own (`bool`):
                Whether the result may be an object of the program's own class.
        """
        answer: dict[str, Any] = {"id": number}
        self._own = own
        try:
            positional, keywords = arguments or from_plain(document, self._get)
            subject = self._objects[target]
            if operation:
                value = _operation(operation)(subject, *positional, **keywords)
            else:
                value = subject(*positional, **keywords)
            answer["value"] = to_plain(value, self._name)
            if changed:
                self._own = True
                answer["arguments"] = to_plain([list(positional), keywords], self._name)
        except NotPlain as error:
            answer["bad"] = str(error)
        except SystemExit as error:
            answer["exit"] = str(error.code)[:100]
        except MemoryError:
            raise
        except BaseException as error:
            answer |= raised(error)
        return answer

    def _get(self, node: list[int]) -> Any:
        return self._objects[node[0]]

    def _name(self, value: Any) -> Any:
        """Return the node of an object that stays here, `None` for one to be sent by value."""
        if isinstance(value, Coroutine):
            kind = "coroutine"
        elif isinstance(value, _FUNCTIONS):
            kind = "function"
        elif self._own and id(value) in self._numbers:
            kind = "object"
        elif isinstance(value, Iterator) and type(value).__module__ != "solution":
            kind = "iterator"
        elif self._own:
            kind = "object"
        elif isinstance(value, Iterator):
            kind = "iterator"
        elif callable(value):
            kind = "function"
        else:
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # it stays alive, so its id is not used again
        return {"h": [self._numbers[id(value)], kind]}


def _operation(name: str) -> Callable[..., Any]:
    if name == "content":
        return _content
    if name == "await":
        import asyncio

        return asyncio.run
    function = getattr(operator, name.removeprefix("reflected "), None) or getattr(builtins, name)
    return (lambda own, other: function(other, own)) if name.startswith("reflected ") else function


def _content(value: Any) -> list[Any]:
    """Return what an object that extends a builtin type holds as such, in a list; an empty list for others."""
    try:
        return [content(value)]
    except NotPlain:
        return []


def send(message: dict[str, Any]) -> None:
    """Write a message to the test runner."""
    try:
        frame = write_answer(message)
    except NotPlain as error:
        frame = write_answer({"id": message.get("id"), "bad": str(error)})
    while frame:
        frame = frame[os.write(CONTROL, frame) :]


def raised(error: BaseException) -> dict[str, Any]:
    """Return the part of an answer that describes an exception: names of its classes, arguments, and text."""
    names = [f"{kind.__module__}.{kind.__qualname__}"[:100] for kind in type(error).__mro__[:10]]
    try:
        arguments = to_plain([*error.args])
        if len(str(error)) > MAX_MESSAGE:
            raise ValueError
    except BaseException:
        arguments = [describe(error)]
    return {"error": names, "arguments": arguments, "detail": describe(error)}


def describe(error: BaseException) -> str:
    """Describe an exception in one line, whatever its own methods do."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return "an exception that cannot be printed"
