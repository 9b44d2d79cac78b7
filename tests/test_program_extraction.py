"""Programs in fences as CommonMark reads them and as models write them, with fences within, in several blocks."""

import time

import pytest

from schoolhouse.graders.code import extract_program


WRAP = 'def wrap(text):\n    return "```\\n" + text + "\\n```"\n'
TICK = 'def wrap(text):\n    tick = "`" * 3\n    return tick + "\\n" + text + "\\n" + tick\n'
DOCSTRING = TICK.replace("text):\n", 'text):\n    """Put it in a fence.\n\n    ```\n    x\n    ```\n    """\n', 1)
COMMENT = TICK.replace("text):\n", "text):\n    # ```\n    # x\n    # ```\n", 1)
TEMPLATE = 'TEMPLATE = """\n```\n%s\n```\n"""\n\ndef wrap(text):\n    return (TEMPLATE % text).strip()\n'
HELPER = "import re\n\ndef tick(n):\n    return '`' * n\n"
USER = "def wrap(text):\n    return tick(3) + '\\n' + text + '\\n' + tick(3)\n"


def wrapped(completion, prompt=None):
    namespace = {}
    exec(extract_program(completion, prompt, "wrap"), namespace)
    return namespace["wrap"]("x")


def fence(code, mark="```", language="python"):
    return f"{mark}{language}\n{code}{mark}\n"


@pytest.mark.parametrize("code", [WRAP, TICK, DOCSTRING, COMMENT, TEMPLATE])
@pytest.mark.parametrize(
    "around",
    [
        "{code}",
        "\ufeff{code}",
        "Here:\n```python\n{code}```\nDone.\n",
        "````python\n{code}````\n",
        "~~~\n{code}~~~\nDone.",
        "~~~~ python\n{code}~~~~~\nand\n~~~~\nwrap('y')\n~~~~",
        "```python\n{code}```\n\nUsage:\n\n```python\nprint(wrap('y'))\n```\n\nOutput:\n```\n```",
        "The answer is ```python\n{code}```",
        "<think>```python\ndef wrap(text): return 0\n```</think>```py\n{code}```",
        "````markdown\nHere:\n```python\n{code}```\n````",
        "First ```bash\npip install x\n```\nthen\n```python\n{code}```  \nIt puts ``` around the text.",
    ],
)
def test_a_fence_of_the_program_does_not_end_its_block(code, around):
    assert wrapped(around.replace("{code}", code)) == "```\nx\n```"


@pytest.mark.parametrize(
    "completion",
    [
        "Use ```def wrap(t): return '`'*3+chr(10)+t+chr(10)+'`'*3```",
        "```wrap = lambda t: '`'*3+chr(10)+t+chr(10)+'`'*3```",
        "Use ```python def wrap(t): return '`'*3+chr(10)+t+chr(10)+'`'*3``` here.",
        "`wrap = lambda t: chr(96)*3+chr(10)+t+chr(10)+chr(96)*3` will do.",
        "``wrap = lambda t: '`'*3+chr(10)+t+chr(10)+'`'*3``",
        "```python def wrap(t):\n    return '`'*3+chr(10)+t+chr(10)+'`'*3\n```",
        f"Text: ```python\n{TICK.strip()}```",
        f"- first:\n\n      ```python\n{chr(10).join('      ' + line for line in TICK.splitlines())}\n      ```\n",
    ],
)
def test_code_within_a_line_or_beside_a_fence_is_found(completion):
    assert wrapped(completion) == "```\nx\n```"


@pytest.mark.parametrize(
    "completion",
    [
        f"A helper:\n{fence(HELPER)}\nand the function:\n{fence(USER)}",
        f"{fence(USER)}\nwith the helper\n{fence(HELPER)}",
        f"{fence(HELPER)}{fence('def wrap(text):' + chr(10) + '    return 0' + chr(10))}Better:\n{fence(USER)}",
        fence("from string import ascii_lowercase as letters\n")
        + fence("MARK = chr(len(letters) + 70)\n")
        + fence("def tick(n):\n    return MARK * n\n")
        + fence(USER),
        fence("import functools\n") + fence("@functools.cache\ndef tick(n):\n    return '`' * n\n") + fence(USER),
        fence("class Tick:\n    mark = '`'\n\ndef tick(n): return Tick.mark * n\n")
        + fence("from __future__ import annotations\n\n" + USER),
        fence(HELPER) + "```python\n" + USER,
        fence("def tick(n):\n    return 0\n") + fence(HELPER) + fence(USER),
        fence("print(undefined)\ntick(3)\n") + fence(HELPER) + fence(USER),
    ],
)
def test_definitions_of_other_blocks_complete_the_program(completion):
    assert wrapped(completion) == "```\nx\n```"


def test_nothing_that_is_not_missing_is_taken_from_other_blocks():
    other = fence("import os\nos._exit(1)\ndef tick(n): return 0\n")
    assert extract_program(other + fence(TICK), None, "wrap") == TICK
    assert extract_program(other + fence("def wrap(text:\n"), None, "wrap") == "def wrap(text:\n"  # not repaired


@pytest.mark.parametrize("entry_point", ["Solution", "Solution().pair", "Solution.pair"])
def test_the_class_of_a_method_is_the_program(entry_point):
    code = "from typing import List\n\nclass Solution:\n    def pair(self, x: List[int]):\n        return x\n"
    usage = fence("print(Solution().pair([1]))\n")
    assert extract_program(f"So:\n{fence(code)}Try it:\n{usage}", None, entry_point) == code


def test_fences_against_the_reader_cost_little_time():
    size = 20_000
    texts = [
        "".join("`" * n + "\n" for n in range(300, 2, -1)),
        "```python\nx = (\n```\n" * size,
        "`` ` " * size,
        "`" * size + "\n" + "~" * size,
        "".join(f"```python\ndef g{n}(): return g{n + 1}()\n```\n" for n in range(2000))
        + fence("def wrap(t): g0()\n"),
        "```\n" + "x = '```\n" * size,
        "~~~ ```" * size,
    ]
    start = time.process_time()
    for text in texts:
        extract_program(text, None, "wrap")
    assert time.process_time() - start < 15
