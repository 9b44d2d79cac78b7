"""Messages between the process of an untrusted program and the test runner.

Only values of exact builtin types are sent. A value is a JSON document in which every type that JSON lacks is an
object with one tag: `{"t": [...]}` is a tuple, `{"i": "0x..."}` a large integer. Nothing is unpickled and no class is
named, so a returned object cannot bring its own `__eq__`, `__class__` or `__reduce__`. Only the trusted direction,
from the test runner to the program, uses `marshal`: it is built in, so a fresh process need not import it.
"""

import json
import marshal
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any


MAX_FRAME = 2 << 20  # bytes of one message from a program
MAX_DEPTH = 100  # containers within containers

_to_json = json.JSONEncoder(separators=(",", ":")).encode
_HEADER = struct.Struct(">I")
_SCALARS = frozenset({type(None), bool, str, float})
_SEQUENCES: dict[type, str] = {tuple: "t", set: "s", frozenset: "f"}
_DICTS = frozenset({dict, Counter, defaultdict, OrderedDict})


class NotPlain(ValueError):
    """A value that the wire format cannot or must not carry."""


class TooBig(NotPlain):
    """A value of the right types, but too large or too deep."""


def to_plain(value: Any) -> Any:
    """
    Return a value as a document that `json.dumps` accepts.

    A value is made of `None`, `bool`, `int`, `float`, `complex`, `str`, `bytes`, `bytearray`, `list`, `tuple`, `set`,
    `frozenset` and `dict`. `Counter`, `defaultdict` and `OrderedDict` become `dict`, a named tuple becomes `tuple`.

    Raises:
        NotPlain: For any other type.
        TooBig: For more than `MAX_DEPTH` levels or about `MAX_FRAME` bytes.
    """
    budget = MAX_FRAME  # an upper bound of the JSON is counted down, so that a huge value is never serialised

    def walk(value: Any, depth: int) -> Any:
        nonlocal budget
        kind = type(value)
        if kind is int:
            budget -= 1 + (value.bit_length() >> 2)
        elif kind in (str, bytes, bytearray):
            budget -= 1 + len(value)
        else:
            budget -= 1
        if budget < 0:
            raise TooBig(f"a value of more than {MAX_FRAME} bytes")
        if kind in _SCALARS:
            return value
        if kind is int:
            return value if value.bit_length() < 64 else {"i": hex(value)}
        if depth >= MAX_DEPTH:
            raise TooBig(f"a value nested more than {MAX_DEPTH} levels deep")
        depth += 1
        if kind is list:
            return [walk(item, depth) for item in value]
        if kind in _SEQUENCES:
            return {_SEQUENCES[kind]: [walk(item, depth) for item in value]}
        if kind in _DICTS:
            return {"d": [[walk(key, depth), walk(item, depth)] for key, item in value.items()]}
        if kind is complex:
            return {"c": [value.real, value.imag]}
        if kind is bytes or kind is bytearray:
            return {"b" if kind is bytes else "y": value.hex()}
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return {"t": [walk(item, depth) for item in tuple.__iter__(value)]}
        raise NotPlain(f"a value of type {kind.__name__!r}; only builtin types can be passed or returned")

    return walk(value, 0)


def from_plain(document: Any) -> Any:
    """
    Return the value that `to_plain` wrote, every part of it of an exact builtin type. Every node is checked, since the
    writer is not trusted.

    Sets and dicts are filled in a Python loop on purpose: keys that are chosen to collide make this slow, and a signal
    handler can interrupt only between byte codes.

    Raises:
        NotPlain: For an unknown tag, a malformed node, an unhashable key or too many levels.
    """

    def walk(node: Any, depth: int) -> Any:
        kind = type(node)
        if kind in _SCALARS or kind is int:
            return node
        if depth >= MAX_DEPTH:
            raise TooBig(f"a value nested more than {MAX_DEPTH} levels deep")
        depth += 1
        if kind is list:
            return [walk(item, depth) for item in node]
        if len(node) != 1:
            raise NotPlain("a node without exactly one tag")
        ((tag, value),) = node.items()
        content: Any = value
        if type(value) is not (str if tag in ("i", "b", "y") else list):
            raise NotPlain(f"a node {tag[:20]!r} with the wrong content")
        if tag == "t":
            return tuple([walk(item, depth) for item in content])
        if tag == "d":
            return {walk(key, depth): walk(item, depth) for key, item in content}
        if tag == "s":
            return {walk(item, depth) for item in content}
        if tag == "f":
            return frozenset({walk(item, depth) for item in content})
        if tag == "i":
            return int(content, 16)
        if tag == "b":
            return bytes.fromhex(content)
        if tag == "y":
            return bytearray.fromhex(content)
        if tag == "c":
            real, imaginary = content
            return complex(real, imaginary)
        raise NotPlain(f"an unknown tag {tag[:20]!r}")

    try:
        return walk(document, 0)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise NotPlain(f"a malformed value: {error}") from None


def write_answer(message: dict[str, Any]) -> bytes:
    """
    Frame a message of a program's process: four bytes of length, big-endian, then JSON in ASCII. `TooBig` if the JSON
    is longer than `MAX_FRAME` bytes.
    """
    body = _to_json(message).encode("ascii")
    if len(body) > MAX_FRAME:
        raise TooBig(f"a message of {len(body)} bytes; at most {MAX_FRAME}")
    return _HEADER.pack(len(body)) + body


def read_answer(read: Callable[[int], bytes]) -> Any:
    """
    Read the next message of a program's process, which may have written anything.

    `read` returns up to that many bytes, none at the end of the stream. There, even within a frame, the result is
    `None`.

    Raises:
        NotPlain: For a length over `MAX_FRAME`, refused before anything is allocated, or a body that is not JSON.
    """
    header = _read_exactly(read, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME:
        raise NotPlain(f"a header announcing {length} bytes; at most {MAX_FRAME}")
    body = _read_exactly(read, length)
    if body is None:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"a message that is not JSON: {str(error)[:80]}") from None


def write_trusted(message: Any) -> bytes:
    """Frame a message of one of our own processes: four bytes of length, then `marshal`."""
    body = marshal.dumps(message)
    return _HEADER.pack(len(body)) + body


def read_trusted(read: Callable[[int], bytes]) -> Any:
    """Read a message of `write_trusted`, `None` at the end of the stream. Never use it on untrusted bytes."""
    header = _read_exactly(read, _HEADER.size)
    body = header and _read_exactly(read, _HEADER.unpack(header)[0])
    return marshal.loads(body) if body else None


def _read_exactly(read: Callable[[int], bytes], length: int) -> bytes | None:
    chunks = []
    while length:
        chunk = read(min(length, 1 << 16))
        if not chunk:
            return None
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)
