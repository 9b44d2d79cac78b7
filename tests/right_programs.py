# ruff: noqa: E501  (programs read better unbroken)
"""Right programs as models write them, the tests of each, and a wrong variant of it that must not pass.

An entry is (name, program or completion, tests, entry point, what to replace, by what). The replacement makes the
wrong variant. A program without fences is put into prose by `completions`.
"""

import itertools


PROGRAMS = [
    # Values of types beyond JSON's
    ("deque", "from collections import deque\ndef rotate(xs, k):\n    d = deque(xs)\n    d.rotate(k)\n    return d",
     "from collections import deque\nassert rotate([1, 2, 3], 1) == deque([3, 1, 2])\nassert list(rotate([1, 2], 1)) == [2, 1]",
     "rotate", "rotate(k)", "rotate(-k)"),
    ("bounded deque", "from collections import deque\ndef last(xs, n):\n    return deque(xs, maxlen=n)",
     "assert list(last(range(9), 3)) == [6, 7, 8]\nassert last([], 2).maxlen == 2", "last", "maxlen=n", "maxlen=n + 1"),
    ("Fraction", "from fractions import Fraction\ndef half(n):\n    return Fraction(n, 2)",
     "from fractions import Fraction\nassert half(3) == Fraction(3, 2)\nassert half(4) == 2\nassert half(1).denominator == 2",
     "half", "n, 2", "n, 4"),
    ("Decimal", "from decimal import Decimal, ROUND_HALF_UP\ndef cents(text):\n"
     "    return Decimal(text).quantize(Decimal('0.01'), rounding=ROUND_HALF_UP)",
     "from decimal import Decimal\nassert cents('1.005') == Decimal('1.01')\nassert str(cents('2')) == '2.00'",
     "cents", "'0.01'", "'0.1'"),
    ("date", "from datetime import date, timedelta\ndef tomorrow(y, m, d):\n    return date(y, m, d) + timedelta(days=1)",
     "import datetime\nassert tomorrow(2024, 2, 28) == datetime.date(2024, 2, 29)\nassert tomorrow(2023, 12, 31).year == 2024",
     "tomorrow", "days=1", "days=2"),
    ("datetime with a zone", "from datetime import datetime, timezone, timedelta\ndef at(h):\n"
     "    return datetime(2024, 5, 6, h, tzinfo=timezone(timedelta(hours=2)))",
     "from datetime import datetime, timezone\nassert at(12) == datetime(2024, 5, 6, 10, tzinfo=timezone.utc)\n"
     "assert at(1).isoformat() == '2024-05-06T01:00:00+02:00'", "at", "hours=2", "hours=3"),
    ("timedelta", "import datetime\ndef between(a, b):\n    return b - a",
     "from datetime import datetime, timedelta\nassert between(datetime(2020, 1, 1), datetime(2020, 1, 3)) == timedelta(days=2)",
     "between", "b - a", "a - b"),
    ("time", "from datetime import time\ndef noon():\n    return time(12, 0)", "import datetime\nassert noon() == datetime.time(12)",
     "noon", "12", "0"),
    ("range", "def evens(n):\n    return range(0, n, 2)", "assert evens(6) == range(0, 6, 2)\nassert list(evens(5)) == [0, 2, 4]",
     "evens", "0, n", "1, n"),
    ("generator", "def fib():\n    a, b = 0, 1\n    while True:\n        yield a\n        a, b = b, a + b",
     "from itertools import islice\nassert list(islice(fib(), 6)) == [0, 1, 1, 2, 3, 5]\ng = fib()\nnext(g)\nassert next(g) == 1",
     "fib", "a + b", "a - b"),
    ("map", "def doubled(xs):\n    return map(lambda x: 2 * x, xs)", "assert list(doubled([1, 2])) == [2, 4]\nassert sum(doubled((3,))) == 6",
     "doubled", "2 *", "3 *"),
    ("zip", "def pairs(a, b):\n    return zip(a, b)", "assert dict(pairs('ab', [1, 2])) == {'a': 1, 'b': 2}", "pairs", "(a, b)\n", "(b, a)\n"),
    ("reversed", "def backwards(xs):\n    return reversed(xs)", "assert [x for x in backwards([1, 2, 3])] == [3, 2, 1]", "backwards",
     "reversed(xs)", "iter(xs)"),
    ("generator with send", "def average():\n    total = n = 0\n    mean = None\n    while True:\n        x = yield mean\n"
     "        total += x\n        n += 1\n        mean = total / n",
     "g = average()\nnext(g)\nassert g.send(2) == 2\nassert g.send(4) == 3\ng.close()", "average", "n += 1", "n += 2"),
    ("iterator of tuples", "def runs(s):\n    import itertools\n    return ((k, len(list(g))) for k, g in itertools.groupby(s))",
     "assert list(runs('aab')) == [('a', 2), ('b', 1)]\nassert dict(runs('')) == {}", "runs", "len(list(g))", "1"),
    ("dict keys", "def names(d):\n    return d.keys()", "assert names({'a': 1}) == {'a'}\nassert sorted(names({'b': 1, 'a': 2})) == ['a', 'b']",
     "names", "d.keys()", "d.values()"),
    ("dict values", "def numbers(d):\n    return d.values()", "assert list(numbers({'a': 1, 'b': 2})) == [1, 2]\nassert 2 in numbers({'c': 2})",
     "numbers", "d.values()", "d.keys()"),
    ("dict items", "def entries(d):\n    return d.items()", "assert sorted(entries({'a': 1})) == [('a', 1)]\nassert ('b', 2) in entries({'b': 2})",
     "entries", "d.items()", "d.keys()"),
    ("OrderedDict", "from collections import OrderedDict\ndef by_key(d):\n    return OrderedDict(sorted(d.items()))",
     "from collections import OrderedDict\nr = by_key({'b': 1, 'a': 2})\nassert r == OrderedDict([('a', 2), ('b', 1)])\n"
     "assert isinstance(r, OrderedDict)\nr.move_to_end('a')\nassert list(r) == ['b', 'a']", "by_key", "sorted(d.items())", "d.items()"),
    ("Counter", "from collections import Counter\ndef letters(s):\n    return Counter(s)",
     "from collections import Counter\nassert letters('aab') == Counter('aab')\nassert letters('aab').most_common(1) == [('a', 2)]\n"
     "assert letters('a')['z'] == 0", "letters", "Counter(s)", "Counter(set(s))"),
    ("defaultdict", "from collections import defaultdict\ndef groups(words):\n    d = defaultdict(list)\n    for w in words:\n"
     "        d[len(w)].append(w)\n    return d",
     "assert groups(['a', 'bc']) == {1: ['a'], 2: ['bc']}\nassert groups([])[7] == []", "groups", "len(w)", "w[0]"),
    ("complex", "def root(x):\n    return x ** 0.5", "assert abs(root(-4) - 2j) < 1e-9\nassert root(4) == 2", "root", "0.5", "0.25"),
    ("bytes", "def encoded(s):\n    return s.encode('utf-16-le')", "assert encoded('a') == b'a\\x00'", "encoded", "utf-16-le", "utf-8"),
    ("bytearray", "def flipped(b):\n    return bytearray(255 - x for x in b)", "assert flipped(b'\\x00') == b'\\xff'\nassert flipped(b'')  == bytearray()",
     "flipped", "255", "254"),
    ("frozenset", "def common(a, b):\n    return frozenset(a) & frozenset(b)", "assert common([1, 2], [2]) == {2}\nassert hash(common([], [])) is not None",
     "common", "&", "|"),
    ("named tuple", "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\ndef mid(a, b):\n"
     "    return Point((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)",
     "p = mid((0, 0), (2, 4))\nassert p == (1, 2)\nassert p.x == 1 and p.y == 2\nassert p[1] == 2", "mid", "/ 2, (", "/ 3, ("),
    ("typed named tuple", "from typing import NamedTuple\nclass Stats(NamedTuple):\n    low: int\n    high: int\ndef stats(xs):\n"
     "    return Stats(min(xs), max(xs))",
     "low, high = stats([3, 1, 2])\nassert (low, high) == (1, 3)\nassert stats([5]).high == 5", "stats", "min(xs)", "xs[0]"),
    ("dataclass by its fields", "from dataclasses import dataclass\n@dataclass\nclass Box:\n    width: int\n    height: int\n"
     "def box(w, h):\n    return Box(w, h)", "assert box(2, 3).width == 2\nassert box(2, 3).height * 2 == 6", "box", "Box(w, h)", "Box(h, w)"),
    ("enum by its value", "from enum import Enum\nclass Light(Enum):\n    RED = 1\n    GREEN = 2\ndef after(name):\n"
     "    return Light.GREEN if name == 'RED' else Light.RED", "assert after('RED').name == 'GREEN'\nassert after('GREEN').value == 1",
     "after", "== 'RED'", "!= 'RED'"),
    ("IntEnum as a number", "from enum import IntEnum\nclass Level(IntEnum):\n    LOW = 1\n    HIGH = 2\ndef level(x):\n"
     "    return Level.HIGH if x > 9 else Level.LOW", "assert level(10) == 2\nassert level(1) + 1 == 2", "level", "> 9", "> 10"),
    ("list subclass", "class Rows(list):\n    def total(self): return sum(self)\ndef rows(n):\n    return Rows(range(n))",
     "assert rows(3) == [0, 1, 2]\nassert len(rows(4)) == 4", "rows", "range(n)", "range(1, n)"),
    ("large numbers and floats", "import math\ndef fact(n):\n    return math.factorial(n)", "import math\nassert fact(50) == math.factorial(50)\nassert fact(0) == 1",
     "fact", "(n)\n", "(n + 1)\n"),
    ("nested", "from fractions import Fraction\nfrom collections import deque\ndef mix(n):\n    return {'d': deque([Fraction(1, n)]), 'r': [range(n)]}",
     "from fractions import Fraction\nassert mix(2)['d'][0] == Fraction(1, 2)\nassert mix(3)['r'] == [range(3)]", "mix", "Fraction(1, n)", "Fraction(1)"),
    ("types and Ellipsis", "def kind(x):\n    return type(x)", "assert kind(1) == int\nassert kind([]) is list\nassert kind('') is str", "kind", "type(x)", "type(type(x))"),
    # Arguments changed in place
    ("in place sort", "def sort(xs):\n    xs.sort()", "a = [3, 1, 2]\nassert sort(a) is None\nassert a == [1, 2, 3]", "sort", "xs.sort()", "xs = sorted(xs)"),
    ("in place, length returned", "def dedupe(nums):\n    k = 0\n    for n in nums:\n        if not k or nums[k - 1] != n:\n            nums[k] = n\n"
     "            k += 1\n    return k", "nums = [1, 1, 2]\nk = dedupe(nums)\nassert k == 2\nassert nums[:k] == [1, 2]", "dedupe", "nums[k] = n", "pass"),
    ("in place matrix", "def rotate(m):\n    m[:] = [list(r) for r in zip(*m[::-1])]", "grid = [[1, 2], [3, 4]]\nrotate(grid)\nassert grid == [[3, 1], [4, 2]]",
     "rotate", "m[::-1]", "m"),
    ("in place row", "def clear(m):\n    for row in m:\n        if 0 in row:\n            row[:] = [0] * len(row)",
     "m = [[1, 0], [1, 1]]\nclear(m)\nassert m == [[0, 0], [1, 1]]", "clear", "[0] * len(row)", "[1] * len(row)"),
    ("in place dict", "def count(d, k):\n    d[k] = d.get(k, 0) + 1", "d = {}\ncount(d, 'a')\ncount(d, 'a')\nassert d == {'a': 2}", "count", "+ 1", "+ 2"),
    ("in place in a loop", "def negate(xs):\n    for i, x in enumerate(xs):\n        xs[i] = -x",
     "for xs, want in [([1], [-1]), ([2, 3], [-2, -3])]:\n    negate(xs)\n    assert xs == want", "negate", "-x", "x"),
    ("in place in check", "def fill(xs, v):\n    for i in range(len(xs)):\n        xs[i] = v",
     "def check(candidate):\n    xs = [1, 2]\n    candidate(xs, 5)\n    assert xs == [5, 5]", "fill", "= v", "= i"),
    ("in place by a helper of the tests", "def fill(xs):\n    xs.append(1)", "def run(xs):\n    fill(xs)\n    return xs\nassert run([0]) == [0, 1]", "fill", "append(1)", "append(0)"),
    ("in place set and deque", "def add(s, d):\n    s.add(1)\n    d.appendleft(1)",
     "from collections import deque\ns, d = set(), deque([2])\nadd(s, d)\nassert s == {1}\nassert d == deque([1, 2])", "add", "appendleft", "append"),
    ("argument left alone", "def smallest(xs):\n    return sorted(xs)[0]", "xs = [2, 1]\nassert smallest(xs) == 1\nassert xs == [2, 1]", "smallest",
     "return sorted(xs)[0]", "xs.sort()\n    return xs[0]"),
    # Classes
    ("stack", "class Stack:\n    def __init__(self):\n        self._items = []\n    def push(self, x):\n        self._items.append(x)\n"
     "    def pop(self):\n        if not self._items:\n            raise IndexError('pop from empty stack')\n        return self._items.pop()\n"
     "    def is_empty(self):\n        return not self._items\n    def __len__(self):\n        return len(self._items)",
     "s = Stack()\nassert s.is_empty()\ns.push(1)\ns.push(2)\nassert len(s) == 2\nassert s.pop() == 2\nassert s.pop() == 1\ntry:\n    s.pop()\n"
     "    assert False\nexcept IndexError as error:\n    assert str(error) == 'pop from empty stack'", "Stack", "_items.pop()", "_items.pop(0)"),
    ("LRU cache", "from collections import OrderedDict\nclass LRUCache:\n    def __init__(self, capacity):\n        self.capacity = capacity\n"
     "        self.d = OrderedDict()\n    def get(self, key):\n        if key not in self.d:\n            return -1\n        self.d.move_to_end(key)\n"
     "        return self.d[key]\n    def put(self, key, value):\n        self.d[key] = value\n        self.d.move_to_end(key)\n"
     "        if len(self.d) > self.capacity:\n            self.d.popitem(last=False)",
     "cache = LRUCache(2)\ncache.put(1, 1)\ncache.put(2, 2)\nassert cache.get(1) == 1\ncache.put(3, 3)\nassert cache.get(2) == -1\nassert cache.get(3) == 3",
     "LRUCache", "last=False", "last=True"),
    ("methods with names of builtins", "class TwoSum:\n    def __init__(self): self.xs = []\n    def add(self, x): self.xs.append(x)\n"
     "    def find(self, total):\n        return any(total - x in self.xs[:i] for i, x in enumerate(self.xs))",
     "t = TwoSum()\nt.add(1)\nt.add(3)\nassert t.find(4) is True\nassert t.find(7) is False", "TwoSum", "total - x", "total + x"),
    ("fluent class", "class Text:\n    def __init__(self): self.parts = []\n    def put(self, s):\n        self.parts.append(s)\n        return self\n"
     "    def build(self): return ''.join(self.parts)", "assert Text().put('a').put('b').build() == 'ab'\nt = Text()\nt.put('x')\nassert t.build() == 'x'",
     "Text", "''.join", "'-'.join"),
    ("vector", "class Vector:\n    def __init__(self, x, y): self.x, self.y = x, y\n    def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)\n"
     "    def __mul__(self, k): return Vector(self.x * k, self.y * k)\n    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5\n"
     "    def __repr__(self): return f'Vector({self.x}, {self.y})'",
     "v = Vector(1, 2) + Vector(2, 2)\nassert (v.x, v.y) == (3, 4)\nassert abs(v) == 5\nassert repr(v * 2) == 'Vector(6, 8)'", "Vector",
     "self.y + o.y", "self.y - o.y"),
    ("linked list", "class Node:\n    def __init__(self, val, next=None): self.val, self.next = val, next\ndef build(xs):\n    head = None\n"
     "    for x in reversed(xs): head = Node(x, head)\n    return head",
     "node, found = build([1, 2, 3]), []\nwhile node:\n    found.append(node.val)\n    node = node.next\nassert found == [1, 2, 3]\nassert build([]) is None",
     "build", "reversed(xs)", "xs"),
    ("tree", "class Tree:\n    def __init__(self): self.root = None\n    def insert(self, v):\n        if self.root is None:\n            self.root = TreeNode(v)\n"
     "            return\n        n = self.root\n        while True:\n            side = 'left' if v < n.value else 'right'\n            child = getattr(n, side)\n"
     "            if child is None:\n                setattr(n, side, TreeNode(v))\n                return\n            n = child\n    def __contains__(self, v):\n"
     "        n = self.root\n        while n and n.value != v:\n            n = n.left if v < n.value else n.right\n        return n is not None\n"
     "    def __iter__(self):\n        def walk(n):\n            if n:\n                yield from walk(n.left)\n                yield n.value\n"
     "                yield from walk(n.right)\n        return walk(self.root)\nclass TreeNode:\n    def __init__(self, value):\n        self.value, self.left, self.right = value, None, None",
     "t = Tree()\nfor x in (5, 2, 8):\n    t.insert(x)\nassert list(t) == [2, 5, 8]\nassert 8 in t and 7 not in t\nassert t.root.left.value == 2", "Tree",
     "v < n.value else 'right'", "v > n.value else 'right'"),
    ("classes that the tests call", "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\ndef longest(pairs):\n"
     "    return max(pairs, key=lambda p: p.b - p.a).a", "assert longest([Pair(1, 2), Pair(3, 9)]) == 3", "longest", "max(", "min("),
    ("nodes that the tests link", "class Node:\n    def __init__(self, data):\n        self.data = data\n        self.left = self.right = None\n"
     "def height(n):\n    return 0 if n is None else 1 + max(height(n.left), height(n.right))",
     "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(3)\nassert height(root) == 3", "height", "max(", "min("),
    ("class with properties", "class Account:\n    def __init__(self, balance=0): self._balance = balance\n    @property\n    def balance(self): return self._balance\n"
     "    def withdraw(self, n):\n        if n > self._balance: raise ValueError('Insufficient funds')\n        self._balance -= n",
     "a = Account(10)\na.withdraw(3)\nassert a.balance == 7\ntry:\n    a.withdraw(100)\n    raised = None\nexcept ValueError as e:\n    raised = str(e)\n"
     "assert raised == 'Insufficient funds'", "Account", "-= n", "-= 2 * n"),
    ("context manager and class method", "class Log:\n    lines = []\n    @classmethod\n    def named(cls, name):\n        log = cls()\n        log.name = name\n        return log\n"
     "    def __enter__(self):\n        self.lines.append('in')\n        return self\n    def __exit__(self, *e):\n        self.lines.append('out')",
     "with Log() as log:\n    assert log.lines == ['in']\nassert log.lines == ['in', 'out']\nassert Log.named('x').name == 'x'", "Log", "'out'", "'end'"),
    ("indexable class", "class Grid:\n    def __init__(self, n): self.d = {}\n    def __setitem__(self, k, v): self.d[k] = v\n    def __getitem__(self, k): return self.d.get(k, 0)",
     "g = Grid(3)\ng[1, 2] = 5\nassert g[1, 2] == 5\nassert g[0, 0] == 0", "Grid", "get(k, 0)", "get(k, 1)"),
    ("method of Solution, check", "from typing import List\nclass Solution:\n    def pairSum(self, nums: List[int], goal: int) -> List[int]:\n        seen = {}\n"
     "        for i, n in enumerate(nums):\n            if goal - n in seen:\n                return [seen[goal - n], i]\n            seen[n] = i\n        return []",
     "def check(candidate):\n    assert candidate(nums=[2, 8, 5], goal=7) == [0, 2]\n    assert candidate(nums=[1], goal=9) == []\n", "Solution().pairSum",
     "[seen[goal - n], i]", "[i, seen[goal - n]]"),
    ("method of Solution, called by the tests", "class Solution:\n    def double(self, x):\n        return 2 * x",
     "def check(candidate):\n    assert candidate(2) == 4\ncheck(Solution().double)", "Solution", "2 * x", "x * x + 1"),
    ("method of Solution, in place", "class Solution:\n    def sortColors(self, nums):\n        nums.sort()", "nums = [2, 0, 1]\nSolution().sortColors(nums)\nassert nums == [0, 1, 2]",
     "Solution", "nums.sort()", "nums.reverse()"),
    # Functions, exceptions, output, coroutines
    ("closure", "def adder(n):\n    def add(x):\n        return x + n\n    return add", "assert adder(2)(3) == 5\nadd = adder(1)\nassert add(1) == 2", "adder", "x + n", "x - n"),
    ("counter in a closure", "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n    return up",
     "c = counter()\nc()\nassert c() == 2", "counter", "n += 1", "n += 2"),
    ("exception of a class of its own", "class Empty(ValueError):\n    pass\ndef first(xs):\n    if not xs:\n        raise Empty('nothing here')\n    return xs[0]",
     "assert first([1]) == 1\ntry:\n    first([])\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'nothing here'", "first", "'nothing here'", "'empty'"),
    ("exception of a module", "import json\ndef load(text):\n    return json.loads(text)",
     "import json\nassert load('[1]') == [1]\ntry:\n    load('{')\n    ok = False\nexcept json.JSONDecodeError:\n    ok = True\nassert ok", "load",
     "return json.loads(text)", "try:\n        return json.loads(text)\n    except Exception as e:\n        raise KeyError(text)"),
    ("KeyError with its key", "def get(d, k):\n    return d[k]", "try:\n    get({}, 'a')\nexcept KeyError as error:\n    assert error.args == ('a',)\nassert get({1: 2}, 1) == 2",
     "get", "d[k]", "d[str(k)]"),
    ("prints a lot to stderr", "import sys\ndef f(x):\n    for _ in range(30):\n        print('x' * 100_000, file=sys.stderr)\n    return x + 1", "assert f(1) == 2", "f", "x + 1", "x"),
    ("prints to stdout", "def f(x):\n    print('debug', x)\n    return x + 1\nprint(f(3))", "assert f(1) == 2", "f", "x + 1", "x"),
    ("coroutine", "import asyncio\nasync def double(x):\n    await asyncio.sleep(0)\n    return 2 * x\n",
     "import asyncio\nassert asyncio.run(double(2)) == 4\nasync def both():\n    return await asyncio.gather(double(1), double(3))\nassert asyncio.run(both()) == [2, 6]",
     "double", "2 * x", "3 * x"),
    ("asyncio within", "import asyncio\ndef run(xs):\n    async def one(x):\n        await asyncio.sleep(0.001)\n        return x * x\n    async def all():\n"
     "        return await asyncio.gather(*map(one, xs))\n    return asyncio.run(all())", "assert run([1, 2]) == [1, 4]", "run", "x * x", "x + x"),
    ("zoneinfo", "from datetime import datetime\nfrom zoneinfo import ZoneInfo\ndef berlin(h):\n    return datetime(2024, 1, 1, h, tzinfo=ZoneInfo('Europe/Berlin'))",
     "import datetime\nassert berlin(12) == datetime.datetime(2024, 1, 1, 11, tzinfo=datetime.timezone.utc)\nassert str(berlin(1).tzinfo) == 'Europe/Berlin'", "berlin",
     "Europe/Berlin", "Europe/London"),
    # As models write it
    ("doctest", 'def add(a, b):\n    """Add.\n\n    >>> add(1, 2)\n    3\n    """\n    return a + b\n\nif __name__ == "__main__":\n    import doctest\n    doctest.testmod()',
     "assert add(1, 2) == 3", "add", "a + b", "a - b"),
    ("fences in the docstring", 'def quote(s):\n    """Quote.\n\n    ```\n    quote("a")\n    ```\n    """\n    return "```" + s + "```"', "assert quote('a') == '```a```'", "quote",
     "+ s +", "+ s + s +"),
    ("helper in a block before", "The helper:\n```python\ndef is_prime(n):\n    return n > 1 and all(n % d for d in range(2, n))\n```\nNow the function:\n```python\ndef primes(n):\n"
     "    return [x for x in range(n) if is_prime(x)]\n```\nIt is quadratic.", "assert primes(8) == [2, 3, 5, 7]", "primes", "n % d", "n % d == 0"),
    ("import in a block before", "First `math`:\n```python\nimport math\n```\n```python\ndef area(r):\n    return math.pi * r ** 2\n```",
     "import math\nassert math.isclose(area(1), math.pi)", "area", "r ** 2", "r ** 2 / 2"),
    ("stepwise, then all of it", "```python\ndef f(x):\n    ...\n```\nFill it in:\n```python\ndef f(x):\n    return x + 1\n```\n```python\nprint(f(1))  # 2\n```\n```\n2\n```",
     "assert f(1) == 2", "f", "x + 1", "x + 2"),
    ("one line", "Use ```def f(x): return x + 1```.", "assert f(1) == 2", "f", "x + 1", "x + 2"),
    # Written after the code that grades them, and graded once
    ("queue two stacks","Here's a queue:\n\n```python\nclass MyQueue:\n    def __init__(self):\n        self.a, self.b = [], []\n    def push(self, x):\n        self.a.append(x)\n    def pop(self):\n        self.peek()\n        return self.b.pop()\n    def peek(self):\n        if not self.b:\n            while self.a: self.b.append(self.a.pop())\n        return self.b[-1]\n    def empty(self):\n        return not self.a and not self.b\n```\nAll operations are amortised O(1).","q = MyQueue()\nq.push(1)\nq.push(2)\nassert q.peek() == 1\nassert q.pop() == 1\nassert not q.empty()","MyQueue","return self.b[-1]","return self.b[0] + 1"),
    ("bank with exception","```python\nclass InsufficientFunds(Exception):\n    pass\n\nclass BankAccount:\n    def __init__(self, owner, balance=0):\n        self.owner = owner\n        self.balance = balance\n    def deposit(self, amount):\n        if amount <= 0:\n            raise ValueError('Deposit must be positive')\n        self.balance += amount\n        return self.balance\n```","acc = BankAccount('Ann')\nassert acc.deposit(5) == 5\nassert acc.owner == 'Ann'\ntry:\n    acc.deposit(-1)\n    assert False, 'no error'\nexcept ValueError as e:\n    assert 'positive' in str(e)","BankAccount","balance += amount","balance = amount + 1"),
    ("generator of primes","def primes():\n    n = 2\n    while True:\n        if all(n % k for k in range(2, int(n ** .5) + 1)):\n            yield n\n        n += 1","import itertools\nassert list(itertools.islice(primes(), 5)) == [2, 3, 5, 7, 11]\nassert next(p for p in primes() if p > 20) == 23","primes","n += 1","n += 2"),
    ("permutations iterator","import itertools\ndef perms(s):\n    return itertools.permutations(s)","assert sorted(''.join(p) for p in perms('ab')) == ['ab', 'ba']\nassert len(list(perms('abc'))) == 6","perms","permutations(s)","combinations(s, 1)"),
    ("flatten gen","def flatten(xs):\n    for x in xs:\n        if isinstance(x, list):\n            yield from flatten(x)\n        else:\n            yield x","assert list(flatten([1, [2, [3]]])) == [1, 2, 3]\nassert tuple(flatten([])) == ()","flatten","yield from flatten(x)","yield x"),
    ("move zeroes","def move_zeroes(nums):\n    i = 0\n    for j in range(len(nums)):\n        if nums[j]:\n            nums[i], nums[j] = nums[j], nums[i]\n            i += 1","def check(candidate):\n    a = [0, 1, 0, 3]\n    candidate(a)\n    assert a == [1, 3, 0, 0]\n    b = []\n    candidate(b)\n    assert b == []","move_zeroes","i += 1","pass"),
    ("reverse string in place","def reverse_string(s):\n    s.reverse()","s = list('abc')\nreverse_string(s)\nassert ''.join(s) == 'cba'","reverse_string","s.reverse()","s.sort()"),
    ("update dict nested","def set_path(d, path, v):\n    *head, last = path.split('.')\n    for k in head:\n        d = d.setdefault(k, {})\n    d[last] = v","d = {'a': {'x': 1}}\nset_path(d, 'a.b', 2)\nassert d == {'a': {'x': 1, 'b': 2}}\nassert d['a']['b'] == 2","set_path","= v","= None"),
    ("memo decorator","import functools\ndef memoize(n):\n    @functools.lru_cache(None)\n    def fib(k):\n        return k if k < 2 else fib(k - 1) + fib(k - 2)\n    return fib","fib = memoize(1)\nassert fib(30) == 832040","memoize","fib(k - 2)","fib(k - 1)"),
    ("compose","def power(n):\n    return lambda x: x ** n","sq = power(2)\nassert sq(3) == 9\nassert [power(k)(2) for k in range(3)] == [1, 2, 4]","power","x ** n","x * n"),
    ("matrix class","class Matrix:\n    def __init__(self, rows):\n        self.rows = rows\n    def __matmul__(self, o):\n        return Matrix([[sum(a * b for a, b in zip(r, c)) for c in zip(*o.rows)] for r in self.rows])\n    def transpose(self):\n        return Matrix([list(c) for c in zip(*self.rows)])","m = Matrix([[1, 2], [3, 4]])\nassert (m @ m).rows == [[7, 10], [15, 22]]\nassert m.transpose().rows == [[1, 3], [2, 4]]","Matrix","a * b","a + b"),
    ("iterable class","class Countdown:\n    def __init__(self, n): self.n = n\n    def __iter__(self):\n        return iter(range(self.n, 0, -1))","assert list(Countdown(3)) == [3, 2, 1]\nassert sum(Countdown(4)) == 10","Countdown","0, -1","1, -1"),
    ("iterator class","class Pairs:\n    def __init__(self, xs): self.xs, self.i = xs, 0\n    def __iter__(self): return self\n    def __next__(self):\n        if self.i + 1 >= len(self.xs): raise StopIteration\n        self.i += 1\n        return self.xs[self.i - 1], self.xs[self.i]","assert [p for p in Pairs([1, 2, 3])] == [(1, 2), (2, 3)]","Pairs","self.xs[self.i - 1]","self.xs[0]"),
    ("trie","class Trie:\n    def __init__(self): self.root = {}\n    def insert(self, w):\n        n = self.root\n        for c in w: n = n.setdefault(c, {})\n        n['$'] = True\n    def search(self, w):\n        n = self._find(w)\n        return n is not None and '$' in n\n    def startsWith(self, p): return self._find(p) is not None\n    def _find(self, w):\n        n = self.root\n        for c in w:\n            if c not in n: return None\n            n = n[c]\n        return n","t = Trie()\nt.insert('apple')\nassert t.search('apple') == True\nassert t.search('app') == False\nassert t.startsWith('app') is True","Trie","'$' in n","True"),
    ("shape inheritance","from abc import ABC, abstractmethod\nimport math\nclass Shape(ABC):\n    @abstractmethod\n    def area(self): ...\nclass Circle(Shape):\n    def __init__(self, r): self.r = r\n    def area(self): return math.pi * self.r ** 2\nclass Square(Shape):\n    def __init__(self, a): self.a = a\n    def area(self): return self.a ** 2\ndef total_area(shapes):\n    return sum(s.area() for s in shapes)","assert abs(total_area([Circle(1), Square(2)]) - 7.14159265) < 1e-6\nassert total_area([]) == 0","total_area","self.a ** 2","self.a * 3"),
    ("datetime diff","from datetime import datetime\ndef days(a, b):\n    f = '%Y-%m-%d'\n    return datetime.strptime(b, f) - datetime.strptime(a, f)","assert days('2024-02-28', '2024-03-01').days == 2","days",".strptime(b, f) -",".strptime(b, f) - datetime.strptime(b, f) + datetime.strptime(b, f) +  (datetime(1,1,1) - datetime(1,1,2)) -"),
    ("decimal sum","from decimal import Decimal\ndef total(xs):\n    return sum(map(Decimal, xs), Decimal(0))","from decimal import Decimal\nassert total(['0.1', '0.2']) == Decimal('0.3')\nassert total([]) == 0","total","map(Decimal, xs)","map(lambda x: Decimal(float(x)), xs)"),
    ("fractions list","from fractions import Fraction\ndef egyptian(n, d):\n    out = []\n    f = Fraction(n, d)\n    while f:\n        k = -(-f.denominator // f.numerator)\n        out.append(Fraction(1, k))\n        f -= out[-1]\n    return out","from fractions import Fraction\nassert egyptian(2, 3) == [Fraction(1, 2), Fraction(1, 6)]\nassert sum(egyptian(4, 13)) == Fraction(4, 13)","egyptian","Fraction(1, k))","Fraction(1, k + 1))"),
    ("groupby dict of sets","def graph(edges):\n    g = {}\n    for a, b in edges:\n        g.setdefault(a, set()).add(b)\n        g.setdefault(b, set()).add(a)\n    return g","assert graph([(1, 2), (2, 3)]) == {1: {2}, 2: {1, 3}, 3: {2}}","graph","add(a)","add(b)"),
    ("dataclass method","from dataclasses import dataclass, field\n@dataclass(order=True)\nclass Item:\n    price: float\n    name: str = field(compare=False)\ndef cheapest(rows):\n    return min(Item(p, n) for n, p in rows)","assert cheapest([('a', 3), ('b', 1)]).name == 'b'\nassert cheapest([('a', 3)]).price == 3","cheapest","min(","max("),
    ("custom error attribute text","class ParseError(ValueError):\n    def __init__(self, line):\n        super().__init__(f'bad line: {line}')\n        self.line = line\ndef parse(s):\n    if '=' not in s: raise ParseError(s)\n    k, v = s.split('=')\n    return {k: v}","try:\n    parse('x')\nexcept ValueError as e:\n    msg = str(e)\nassert msg == 'bad line: x'\nassert parse('a=b') == {'a': 'b'}","parse","bad line","wrong line"),
    ("stop iteration inside","def first(xs):\n    return next(iter(xs))","assert first([4, 5]) == 4\nassert first({'k': 1}) == 'k'","first","next(iter(xs))","list(xs)[-1]"),
    ("async gen sum","import asyncio\nasync def ticks(n):\n    for i in range(n):\n        yield i\nasync def total(n):\n    return sum([x async for x in ticks(n)])","import asyncio\nassert asyncio.run(total(4)) == 6","total","sum([","len(["),
    ("solution with helper class","from typing import Optional\n\nclass Solution:\n    def isValid(self, s: str) -> bool:\n        stack = []\n        pairs = {')': '(', ']': '[', '}': '{'}\n        for c in s:\n            if c in pairs:\n                if not stack or stack.pop() != pairs[c]:\n                    return False\n            else:\n                stack.append(c)\n        return not stack","def check(candidate):\n    assert candidate(s='()[]') == True\n    assert candidate('(]') == False\n    assert candidate('(') == False\n","Solution().isValid","return not stack","return True"),
    ("two blocks class then func","First the node:\n```python\nclass ListNode:\n    def __init__(self, val=0, next=None):\n        self.val = val\n        self.next = next\n```\n\nThen:\n\n```python\ndef to_list(head):\n    out = []\n    while head:\n        out.append(head.val)\n        head = head.next\n    return out\n\ndef reverse(xs):\n    head = None\n    for x in xs:\n        head = ListNode(x, head)\n    return to_list(head)\n```","assert reverse([1, 2, 3]) == [3, 2, 1]","reverse","ListNode(x, head)","ListNode(x + 1, head)"),
    ("nested ticks in f-string","```python\ndef md(code, lang=''):\n    fence = '```'\n    return f'{fence}{lang}\\n{code}\\n{fence}'\n```\n\nUsage:\n```python\nprint(md('x'))\n```\nOutput:\n````\n```\nx\n```\n````","assert md('x', 'py') == '```py\\nx\\n```'","md","{code}","{lang}"),
    ("set ops returns frozenset in dict","def powerset(s):\n    from itertools import chain, combinations\n    xs = sorted(s)\n    return {frozenset(c) for c in chain.from_iterable(combinations(xs, r) for r in range(len(xs) + 1))}","assert powerset({1, 2}) == {frozenset(), frozenset({1}), frozenset({2}), frozenset({1, 2})}","powerset","len(xs) + 1","len(xs)"),
    ("bytes hash","import hashlib\ndef digest(s):\n    return hashlib.sha256(s.encode()).digest()","assert digest('')[:2] == b'\\xe3\\xb0'\nassert isinstance(digest('a'), bytes)","digest","sha256","sha512"),
    ("enumerate obj","def index(xs):\n    return enumerate(xs, 1)","assert list(index('ab')) == [(1, 'a'), (2, 'b')]\nassert dict(index('a')) == {1: 'a'}","index","xs, 1","xs"),
    ("filter obj","def odd(xs):\n    return filter(lambda x: x % 2, xs)","assert list(odd(range(5))) == [1, 3]","odd","x % 2","not x % 2"),
    ("event emitter","class Emitter:\n    def __init__(self): self.log = []\n    def on(self, name): self.log.append(name); return len(self.log)\n    def names(self): return tuple(self.log)","e = Emitter()\nassert e.on('a') == 1\ne.on('b')\nassert e.names() == ('a', 'b')","Emitter","append(name)","append(name * 2)"),
]  # fmt: skip


def completions():
    """Yield name, completion, tests, entry point and whether it is right: every program and its wrong variant."""
    prose = itertools.cycle(
        ["{}", "Here is the function:\n\n```python\n{}\n```\n", "```\n{}\n```\n\nThis works because it does.", "~~~py\n{}\n~~~",
         "<think>\nLet me see.\n</think>\nSure!\n\n````python\n{}\n````\nExample:\n```python\nprint(1)\n```"]
    )  # fmt: skip
    for name, program, tests, entry_point, old, new in PROGRAMS:
        program += "\n"
        assert old in program, name
        around = next(prose) if "```" not in program or program.startswith("def") else "{}"
        for text, right in ((program, True), (program.replace(old, new), False)):
            yield name, around.replace("{}", text.strip("\n") if around != "{}" else text), tests, entry_point, right
