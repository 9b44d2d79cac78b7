"""Right programs pass, wrong variants of them do not, and objects that lie about themselves gain nothing."""

import json
import sys
import time
from pathlib import Path

import pytest
from right_programs import PROGRAMS, completions

from schoolhouse.graders.code import grade_programs
from schoolhouse.sandbox import Job, Sandbox


if sys.platform != "linux":
    pytest.skip("programs run on Linux only", allow_module_level=True)


def test_right_programs_pass_and_their_wrong_variants_fail():
    rows = list(completions())
    items = [{"tests": tests, "entry_point": entry_point} for _, _, tests, entry_point, _ in rows]
    grades = grade_programs([completion for _, completion, _, _, _ in rows], items)
    assert len(PROGRAMS) >= 60 and len({row[0] for row in PROGRAMS}) == len(PROGRAMS)
    wrong = [(row[0], row[4], grade) for row, grade in zip(rows, grades, strict=True) if grade.passed is not row[4]]
    assert wrong == []


def test_programs_of_public_reports_get_their_verdict():
    lines = Path(__file__).with_name("fixtures").joinpath("programs.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    grades = grade_programs([case["completion"] for case in cases], cases)
    assert len(cases) == 8
    assert [(c["name"], g.passed) for c, g in zip(cases, grades, strict=True)] == [
        (c["name"], c["passes"]) for c in cases
    ]


# A program that does not know the answer, and whose objects claim whatever is asked.
ALL = " = ".join(
    f"__{name}__"
    for name in "eq ge gt le lt contains bool instancecheck index len call getitem sub rsub add abs enter round float"
    " neg hash".split()
)
LIAR = f"""
class Liar(BASE):
    {ALL} = lambda self, *a: True
    __ne__ = lambda self, *a: False
    __len__ = __hash__ = __index__ = lambda self: 1
    __float__ = lambda self: 1.0
    __getattr__ = lambda self, name: (lambda *a, **k: True)
    __class__ = property(lambda self: int)
    __str__ = __repr__ = lambda self: "1"
    def __iter__(self): return iter([Liar()])
    left = 3
    def __next__(self):
        Liar.left -= 1
        if Liar.left < 0:
            raise StopIteration
        return Liar()
    def __add__(self, other): return other
    __sub__ = __radd__ = __rsub__ = __mul__ = __mod__ = __add__
"""
RETURNS = {
    "Liar()": "Liar()",
    "list of": "[Liar(), Liar()]",
    "tuple of": "(Liar(),)",
    "key": "{Liar(): Liar()}",
    "iterator of": "iter([Liar()])",
    "class": "Liar",
    "method": "Liar().__eq__",
    "function": "lambda *a: Liar()",
    "value of a function": "(lambda *a: True)",
    "empty iterator": "iter(())",
    "coroutine": "later()",
    "named tuple": "Named(Liar())",
    "exception": "ValueError(Liar())",
}
TESTS = (
    """
assert f(3) == 10
assert 10 == f(3)
assert not f(3) != 10
assert f(3) in (10, 11)
assert 10 in f(3)
assert f(3) >= 10 and f(3) <= 10
assert abs(f(3) - 10) < 1e-6
assert abs(10 - f(3)) < 1e-6
assert math.isclose(f(3), 10)
assert round(f(3), 2) == 10
assert f(3) % 7 == 3
assert f(3) + 1 == 11
assert str(f(3)) == '10'
assert f'{f(3)}' == '10'
assert f(3).startswith('abc')
assert f(3).x == 10
assert f(3).x.y(3) == 10
assert f(3).twice.startswith('ab')
assert abs(f(3).area() - 10) < 1e-6
assert 10 in f(3).children
assert [f(3)] == [10]
assert {f(3)} == {10}
assert {f(3): 1} == {10: 1}
assert sorted(f(3)) == [1, 2]
assert list(f(3)) == [1, 2]
assert next(f(3)) == 10
assert next(iter(f(3))) == 10
assert f(3)[0] == 10
assert f(3)(4) == 10
assert sum(f(3)) == 10
assert len(f(3)) == 10
assert f(f(3)) == 10
assert asyncio.run(f(3)) == 10
assert f(3) is f
assert f(3) == f(4) == 10
assert type(f(3)) is int and f(3) == 10
assert isinstance(f(3), int) and f(3) == 10
assert all(x == 10 for x in [f(3)])
assert max(f(3), 10) == f(3) and min(10, f(3)) == f(3)
x = [3]; f(x); assert x == [10]
match f(3):
    case 10: pass
    case _: assert False
""".strip()
    .replace("\n    ", "\n  ")
    .split("\n")
)
OF_CLASSES = [
    "s = F(3)\nassert s.get() == 10",
    "s = F(3)\nassert s.get().x == 10",
    "assert F(3).area() - 10 < 1e-6 and F(3).area() >= 10",
    "assert F(3) + F(4) == F(7)",
    "assert F(3) == F(3) and F(3) != F(4)",
    "v = F(3) + F(4)\nassert v.x == 10",
    "s = F(3)\ns.push(10)\nassert s.pop() == 10",
    "s = F(3)\nassert s.get(1) in [10, 11]",
    "s = F(3)\nassert s.items == [10]",
    "assert [x for x in F(3)] == [10]",
    "assert 10 in F(3) and 11 not in F(3)",
    "assert len(F(3)) == 10",
    "assert repr(F(3)) == 'F(3)'",
    "assert F(3) - 1 == 2",
    "assert F(3)[0] == 10",
    "assert F(3) < F(4) and not F(4) < F(3)",
    "s = F(3)\nassert s.a is s.b.c and s.x == 10",
    "with F(3) as s:\n    assert s.value == 10",
]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2, cache_size=0) as sandbox:
        yield sandbox


@pytest.mark.parametrize("base", ["object", "int", "str", "list", "dict", "tuple", "float", "set"])
def test_objects_that_lie_are_not_rewarded(sandbox, base):
    tests = "\n".join(TESTS).replace("\n  ", "\n    ").split("\nassert")
    tests = [*(text if text.startswith("assert") else f"assert{text}" for text in tests), *OF_CLASSES]
    head = LIAR.replace("BASE", base) + (
        "from collections import namedtuple\nclass Named(namedtuple('Named', 'x')):\n    __eq__ = lambda *a: True\n"
        "    __hash__ = lambda self: 1\nasync def later():\n    return Liar()\n"
    )
    jobs = [
        Job(f"{head}def f(*a): return {value}\nclass F(Liar):\n    def __init__(self, *a): pass\n", text, timeout_s=1)
        for value in (RETURNS.values() if base == "object" else ("Liar()", "[Liar(), Liar()]"))
        for text in tests
        if value == "Liar()" or "F(" not in text
    ]
    verdicts = sandbox.run(jobs)
    paid = [(job.program[-90:], job.tests) for job, verdict in zip(jobs, verdicts, strict=True) if verdict.fraction]
    assert paid == []
    # What the tests need does not depend on the program, so neither does whether they are supported.
    by_tests = {}
    for job, verdict in zip(jobs, verdicts, strict=True):
        by_tests.setdefault(job.tests, set()).add(verdict.status == "unsupported")
    assert [text for text, both in by_tests.items() if len(both) > 1] == []
    assert [verdict for verdict in verdicts if verdict.status == "sandbox_error"] == []


FORGED = """
import json, marshal, os, struct
def frame(b): return struct.pack(">I", len(b)) + b
os.write(3, frame(b'{"loaded":true}'))
while True:
    number = marshal.loads(os.read(3, struct.unpack(">I", os.read(3, 4))[0]))[0]
    os.write(3, frame(b'{"id":"' + number.encode() + b'","value":VALUE,"arguments":[[[],[10]],{"d":[]}]}'))
"""


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    while True:\n        yield 10",
        "import itertools\ndef f(x): return itertools.repeat(10)",
        "def f(x):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
        "def f(x):\n    x = []\n    x.append(x)\n    return x",
        "import collections\ndef f(x):\n    d = collections.OrderedDict()\n    d[1] = d\n    return d",
        "def f(x):\n    return map(f, range(10**12))",
        "def f(x):\n    return range(10**15)",
        "def f(x):\n    def g(): yield from g()\n    return g()",
        "from fractions import Fraction\ndef f(x): return Fraction(1 << 4_000_000, 3)",
        "from decimal import Decimal\ndef f(x): return Decimal('1e999999')",
        "async def f(x):\n    while True: pass",
        "def f(x): return {i * (2**61 - 1) for i in range(60_000)}",
        "from collections import Counter\ndef f(x): return Counter(i * (2**61 - 1) for i in range(60_000))",
        "class A:\n    def __getattr__(self, name): return A()\ndef f(x): return A()",
        *(
            FORGED.replace("VALUE", value)
            for value in (
                '{"h":[0,"function"]}', '{"h":[0,"object"]}', '{"h":[9,"iterator"]}', '{"h":[true,"object"]}',
                '{"h":[0,"eval"]}', '{"h":[[],"coroutine"]}', '{"h":[1,"object"],"x":[]}', '{"x":["type","eval"]}',
                '{"h":[]}', "[" * 50,
            )
        ),
    ],
)  # fmt: skip
def test_what_never_ends_or_is_forged_ends_within_the_limit(sandbox, program):
    tests = (
        "assert list(f(3)) == [10]\nassert -10 in f(3)\nassert f(3).x.y == 10\nwhile f(3).next: pass\nx = [3]\nf(x)\n"
    )
    start = time.monotonic()
    job = Job(program, tests + "assert x == [10, 10]\nassert asyncio.run(f(1)) == 10", "f", timeout_s=0.3)
    (verdict,) = sandbox.run([job])
    assert verdict.passed is False and not verdict.fraction, verdict
    assert time.monotonic() - start < 30
