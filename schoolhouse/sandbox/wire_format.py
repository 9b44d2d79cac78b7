"""Messages between the process of an untrusted program and the test runner.

Only values of exact types of the standard library are sent. A value is a JSON document in which every type that JSON
lacks is an object with one tag: `{"t": [...]}` is a tuple, `{"i": "0x..."}` a large integer, `{"x": ["range", 1, 3]}`
a value made by a type of `_TYPES`. Nothing is unpickled and no other class is named, so a returned object cannot bring
its own `__eq__`, `__class__` or `__reduce__`. What cannot be sent stays where it is, and `{"h": [...]}` names it. Only
the trusted direction, from the test runner to the program, uses `marshal`: it is built in, so a fresh process need not
import it.
"""

import functools
import json
import marshal
import struct
import types
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath
from typing import Any
from uuid import UUID


MAX_FRAME = 2 << 20  # bytes of one message from a program
MAX_DEPTH = 100  # containers within containers
MAX_DIGITS = 100_000  # bits of a fraction's parts, exponent of a decimal: more makes plain arithmetic on them slow

_to_json = json.JSONEncoder(separators=(",", ":")).encode
_HEADER = struct.Struct(">I")
_SCALARS = frozenset({type(None), bool, str, float})
_SEQUENCES: dict[type, str] = {tuple: "t", set: "s", frozenset: "f"}
_BUILTIN_TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        list,
        tuple,
        dict,
        set,
        frozenset,
        range,
        type(None),
    )
}


class NotPlain(ValueError):
    """A value that the wire format cannot or must not carry."""


class TooBig(NotPlain):
    """A value of the right types, but too large or too deep."""


def _fraction(numerator: int, denominator: int) -> Fraction:
    if max(numerator.bit_length(), denominator.bit_length()) > MAX_DIGITS:
        raise TooBig(f"a fraction of more than {MAX_DIGITS} bits")
    return Fraction(numerator, denominator)


def _decimal(text: str) -> Decimal:
    if type(text) is not str or len(text) > MAX_DIGITS:
        raise TooBig(f"a decimal of more than {MAX_DIGITS} digits")
    value = Decimal(text)
    if value.is_finite() and abs(value.adjusted()) > MAX_DIGITS:
        raise TooBig(f"a decimal with an exponent beyond {MAX_DIGITS}")
    return value


def _time_zone(key: str) -> Any:
    from zoneinfo import ZoneInfo  # few programs need it, and every fork would pay for its import

    return ZoneInfo(key)  # refuses keys that lead out of the folders of time zones


def _filled(mapping: dict[Any, Any], pairs: list[Any]) -> Any:
    for key, value in pairs:  # in a Python loop, as in `from_plain`
        mapping[key] = value
    return mapping


@functools.lru_cache(maxsize=256)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)  # refuses names that are no identifiers


def _pairs(mapping: dict[Any, Any]) -> list[list[Any]]:
    return [[key, value] for key, value in mapping.items()]


# Type -> its name on the wire, the parts that make a value of it, and what makes it of these.
_TYPES: dict[type, tuple[str, Callable[[Any], list[Any]], Callable[..., Any]]] = {
    deque: ("deque", lambda v: [list(v), v.maxlen], deque),
    OrderedDict: ("OrderedDict", lambda v: [_pairs(v)], lambda pairs: _filled(OrderedDict(), pairs)),
    Counter: ("Counter", lambda v: [_pairs(v)], lambda pairs: _filled(Counter(), pairs)),
    defaultdict: (
        "defaultdict",
        lambda v: [getattr(v.default_factory, "__name__", ""), _pairs(v)],
        lambda name, pairs: _filled(defaultdict(_BUILTIN_TYPES.get(name)), pairs),
    ),
    Fraction: ("Fraction", lambda v: [v.numerator, v.denominator], _fraction),
    Decimal: ("Decimal", lambda v: [str(v)], _decimal),
    date: ("date", lambda v: [v.year, v.month, v.day], date),
    time: (
        "time",
        lambda v: [v.hour, v.minute, v.second, v.microsecond, v.tzinfo, v.fold],
        lambda *parts: time(*parts[:5], fold=parts[5]),
    ),
    datetime: (
        "datetime",
        lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.tzinfo, v.fold],
        lambda *parts: datetime(*parts[:8], fold=parts[8]),
    ),
    timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds], timedelta),
    timezone: ("timezone", lambda v: [v.utcoffset(None)], timezone),
    range: ("range", lambda v: [v.start, v.stop, v.step], range),
    slice: ("slice", lambda v: [v.start, v.stop, v.step], slice),
    array: ("array", lambda v: [v.typecode, v.tolist()], array),
    UUID: ("UUID", lambda v: [v.hex], UUID),
    PosixPath: ("PosixPath", lambda v: [str(v)], PosixPath),
    PurePosixPath: ("PurePosixPath", lambda v: [str(v)], PurePosixPath),
    types.SimpleNamespace: (
        "SimpleNamespace",
        lambda v: [vars(v)],
        lambda fields: types.SimpleNamespace(**fields),
    ),
    type(...): ("Ellipsis", lambda v: [], lambda: ...),
    type({}.keys()): (
        "dict_keys",
        lambda v: [list(v)],
        lambda keys: _filled({}, [(key, None) for key in keys]).keys(),
    ),
    type({}.values()): ("dict_values", lambda v: [list(v)], lambda values: dict(enumerate(values)).values()),
    type({}.items()): ("dict_items", lambda v: [list(v)], lambda items: _filled({}, items).items()),
}
_MAKERS = {name: make for name, _, make in _TYPES.values()} | {
    "namedtuple": lambda name, fields, items: _named_tuple(name, tuple(fields))._make(items),
    "type": lambda name: _BUILTIN_TYPES[name],
    "ZoneInfo": _time_zone,
}
# Builtin bases, and what copies the content of a value of a subclass whatever methods that has.
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda v: bytes.__getitem__(v, slice(None)),
    bytearray: lambda v: bytearray.__getitem__(v, slice(None)),
    list: lambda v: list.__getitem__(v, slice(None)),
    tuple: lambda v: tuple.__getitem__(v, slice(None)),
    dict: lambda v: dict(dict.items(v)),
    set: lambda v: set(set.__iter__(v)),
    frozenset: lambda v: frozenset(frozenset.__iter__(v)),
    deque: lambda v: deque(deque.__iter__(v)),
}


def is_marshalable(value: Any, depth: int = 0) -> bool:
    """Check if `marshal` carries a value exactly: it would make `bytes` of a `bytearray`, and knows no other types."""
    kind = type(value)
    if kind in _SCALARS or kind is int:
        return True
    if kind in (list, tuple, set, frozenset) and depth < MAX_DEPTH:
        return all(is_marshalable(item, depth + 1) for item in value)
    if kind is dict and depth < MAX_DEPTH:
        return is_marshalable([*value], depth) and is_marshalable([*value.values()], depth)
    return kind is complex or kind is bytes


def content(value: Any) -> Any:
    """Return what a value of a subclass of a builtin type holds, as that type; `NotPlain` for any other object."""
    kind = type(value)
    for base, copy in _BASES.items():
        if issubclass(kind, base):
            return copy(value)
    raise NotPlain(f"a value of type {kind.__name__!r}; only types of the standard library can be passed or returned")


def to_plain(value: Any, handle: Callable[[Any], Any] | None = None) -> Any:
    """
    Return a value as a document that `json.dumps` accepts.

    A value is made of `None`, `bool`, `int`, `float`, `complex`, `str`, `bytes`, `bytearray`, `list`, `tuple`, `set`,
    `frozenset`, `dict` and the types of `_TYPES`. A named tuple keeps its names. A value of another subclass of a
    builtin type is sent as that type.

    Args:
        value (`Any`):
            The value.
        handle (`Callable[[Any], Any]`, *optional*):
            Function that names other objects: it returns a node `{"h": [...]}`, or `None`.

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
        if kind is dict:
            return {"d": [[walk(key, depth), walk(item, depth)] for key, item in value.items()]}
        if kind is complex:
            return {"c": [value.real, value.imag]}
        if kind is bytes or kind is bytearray:
            return {"b" if kind is bytes else "y": value.hex()}
        if kind in _TYPES:
            name, parts, _ = _TYPES[kind]
            return {"x": [name, *[walk(part, depth) for part in parts(value)]]}
        if kind is type and _BUILTIN_TYPES.get(value.__name__) is value:
            return {"x": ["type", value.__name__]}
        if (kind.__module__, kind.__name__) == ("zoneinfo", "ZoneInfo"):
            return {"x": ["ZoneInfo", value.key]}
        if handle and (node := handle(value)) is not None:
            return node
        if issubclass(kind, tuple) and type(fields := getattr(kind, "_fields", None)) is tuple:
            items = [walk(item, depth) for item in tuple.__iter__(value)]
            return {"x": ["namedtuple", kind.__name__, list(fields), items]}
        return walk(content(value), depth)

    return walk(value, 0)


def from_plain(document: Any, named: Callable[[Any], Any] | None = None) -> Any:
    """
    Return the value that `to_plain` wrote, every part of it of an exact type of the standard library. Every node is
    checked, since the writer is not trusted.

    Sets and dicts are filled in a Python loop on purpose: keys that are chosen to collide make this slow, and a signal
    handler can interrupt only between byte codes.

    Args:
        document (`Any`):
            The document.
        named (`Callable[[Any], Any]`, *optional*):
            Function that returns the object of a node `{"h": [...]}`, given its content.

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
        if tag == "x":
            name, *parts = content
            return _MAKERS[name](*[walk(part, depth) for part in parts])
        if tag == "h" and named:
            return named(content)
        raise NotPlain(f"an unknown tag {tag[:20]!r}")

    try:
        return walk(document, 0)
    except NotPlain:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, OSError) as error:
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
