"""The sandbox's wire format: what is sent exactly, what is refused, and its limits."""

import random
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from uuid import UUID

import pytest

from schoolhouse.sandbox.wire_format import (
    MAX_FRAME,
    NotPlain,
    TooBig,
    from_plain,
    read_answer,
    to_plain,
    write_answer,
)


def through(value):
    pieces = [write_answer({"value": to_plain(value)})]
    return from_plain(read_answer(lambda size: _take(pieces, size))["value"])


def _take(pieces, size):
    piece, pieces[0] = pieces[0][:size], pieces[0][size:]
    return piece


def random_value(rng, depth=0):
    kind = rng.choice("nbifcsyB" if depth > 3 else "nbifcsyBltSFd")
    hashable = [rng.choice([1, "a", (1, ("b",)), None, 2.5, frozenset({1})]) for _ in range(rng.randrange(4))]
    return {
        "n": lambda: None,
        "b": lambda: rng.random() < 0.5,
        "i": lambda: rng.choice([1, -1]) * rng.getrandbits(rng.randrange(1, 3000)),
        "f": lambda: rng.choice([0.1, -0.0, 1e308, float("inf"), rng.gauss(0, 1e9)]),
        "c": lambda: complex(rng.random(), -0.0),
        "s": lambda: "".join(chr(rng.choice([0, 10, 34, 92, 233, 0x1F600, 0xD800])) for _ in range(rng.randrange(5))),
        "y": lambda: rng.randbytes(rng.randrange(5)),
        "B": lambda: bytearray(rng.randbytes(rng.randrange(5))),
        "l": lambda: [random_value(rng, depth + 1) for _ in range(rng.randrange(4))],
        "t": lambda: tuple(random_value(rng, depth + 1) for _ in range(rng.randrange(4))),
        "S": lambda: set(hashable),
        "F": lambda: frozenset(hashable),
        "d": lambda: {key: random_value(rng, depth + 1) for key in hashable},
    }[kind]()


def exactly(value):
    """A text that tells apart -0.0 and 0, True and 1, and orders of keys, but not orders of sets."""
    if isinstance(value, list | tuple | set | frozenset):
        parts = [exactly(item) for item in value]
        return f"{type(value)}{parts if isinstance(value, list | tuple) else sorted(parts)}"
    if isinstance(value, dict):
        return f"{type(value)}{[(exactly(key), exactly(item)) for key, item in value.items()]}"
    return f"{type(value)}{value!r}"


def test_values_of_builtin_types_are_sent_exactly():
    rng = random.Random(0)
    for _ in range(500):
        value = random_value(rng)
        assert exactly(through(value)) == exactly(value)


NOW = datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)), fold=1)
STANDARD = [
    deque([1, [2]], maxlen=3), OrderedDict(a=1), Counter("aab"), defaultdict(list, {1: [2]}), Fraction(-1, 3),
    Decimal("1.10"), Decimal("-Infinity"), NOW, NOW.date(), NOW.time(), NOW - NOW, NOW.tzinfo, range(5, 0, -2),
    slice(1, None), array("d", [0.5]), UUID(int=5), PurePosixPath("a/b"), SimpleNamespace(a=[1]), ..., int, type(None),
]  # fmt: skip


def test_values_of_the_standard_library_are_sent_exactly():
    for value in [*STANDARD, {(1, Fraction(1, 2)): [STANDARD[:9]]}]:
        assert (type(through(value)), repr(through(value))) == (type(value), repr(value))
    views = {"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()
    assert [repr(through(view)) for view in views] == [repr(view) for view in views]
    assert through(defaultdict(list))["missing"] == [] and through(deque(maxlen=2)).maxlen == 2


def test_a_named_tuple_keeps_its_names_and_no_class():
    class Point(namedtuple("Point", "x y")):
        __eq__ = __hash__ = None

    sent = through([Point(1, 2)])[0]
    assert (sent.x, sent.y, sent) == (1, 2, (1, 2)) and type(sent).__eq__ is tuple.__eq__


@pytest.mark.parametrize("base", [int, float, str, bytes, list, tuple, dict, set, frozenset])
def test_of_a_subclass_only_the_content_is_sent(base):
    def lie(self, *arguments):
        return True

    methods = ("__eq__", "__iter__", "__len__", "__getitem__", "__contains__", "__index__", "__str__", "__bool__")
    Liar = type("Liar", (base,), {"__hash__": lambda self: 7} | dict.fromkeys(methods, lie))
    honest = base() if base in (int, float, str, bytes) else base([(1, 2)])
    sent = through([Liar(honest)])[0]
    assert type(sent) is base and sent == honest


class _Int(int):
    pass


@pytest.mark.parametrize(
    "value", [object(), len, iter([]), {1: object()}, type, Fraction, [map(int, "")], ValueError()]
)
def test_no_other_type_is_sent(value):
    with pytest.raises(NotPlain):
        to_plain(value)


def test_size_and_depth_are_limited():
    deep = []
    for _ in range(200):
        deep = [deep]
    for value in (deep, "x" * (MAX_FRAME + 1), [0] * (MAX_FRAME + 1), 1 << (8 * MAX_FRAME)):
        with pytest.raises(TooBig):
            to_plain(value)


@pytest.mark.parametrize(
    "document",
    [
        ["Fraction", 1, 0], ["Fraction", 1, {"i": "0x1" + "0" * 50_000}], ["Decimal", "1e9999999"], ["Decimal", "x"],
        ["Decimal", 5], ["date", 0, 1, 1], ["range", "a"], ["eval", "1"], ["type", "type"], ["type", "eval"],
        ["ZoneInfo", "../../etc/passwd"], ["ZoneInfo", "/etc/passwd"], ["namedtuple", "P", ["__class__"], [1]],
        ["namedtuple", "P", ["x=print()"], [1]], ["deque", 5], ["Counter", 5], ["datetime", 1, 1, 1, 0, 0, 0, 0, 5, 0],
        [], ["SimpleNamespace", 5], [["Fraction"]], ["array", "d", ["x"]], ["timedelta", 1e300],
    ],
)  # fmt: skip
def test_a_malformed_value_is_refused(document):
    with pytest.raises(NotPlain):
        from_plain({"x": document})
