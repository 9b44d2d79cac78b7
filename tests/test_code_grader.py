"""The program in a completion, and its grade by tests."""

import ast
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schoolhouse.graders.code import CodeGrade, defines, extract_program, grade_programs


CODE = "def double(x):\n    return 2 * x"
LATER = "def double(x):\n    return x + x"
BODY = "    y = 2 * x\n    return y"
STUB = """import math


def helper(x):
    return x


def double(x):
    '''Twice x.

    >>> double(2)
    4
    '''
"""
ITEM = {"tests": ["assert double(1) == 2", "assert double(-3) == -6"], "entry_point": "double"}


def fence(code, language="python"):
    return f"```{language}\n{code}\n```"


def value(completion, prompt=None):
    """Value that the extracted program gives for 21, by plain execution of these trusted texts."""
    namespace = {}
    exec(extract_program(completion, prompt, "double"), namespace)
    return namespace["double"](21)


@pytest.mark.parametrize(
    "completion",
    [
        CODE,
        CODE + "\n",
        CODE.replace("\n", "\r\n"),
        fence(CODE),
        fence(CODE, ""),
        fence(CODE, "py"),
        fence(CODE, " Python"),
        f"```python\n{CODE}```",
        f"```python\n{CODE}",
        f"Sure! Here's the function:\n\n{fence(CODE)}\n\nIt doesn't use a loop.\n{fence('double(2)')}",
        f"{fence('pip install nothing', 'bash')}\n{fence(CODE)}\n{fence('4', 'text')}",
        f"1. First:\n{textwrap.indent(fence(CODE), '   ')}\n2. Then call it.",
        f"Here is the function:\n{CODE}\n\nThis function (which I like) doesn't loop.",
        f"Here's the function:\n\n{CODE}\nDone",
        f"{CODE}\n\nNote: twice\n\nExample:\n    double(2)",
        f"{CODE}\n```\nThat's it.",
        f"{CODE}\n\nThat's it.".replace("\n", "\r"),
        f"from the task I read that x is a number\nso here it is\n{CODE}",
        f"import math\n\n# twice\n{CODE}\n\nassert double(2) == 4",
        f"{CODE}\n\nQ: Write a function half(x).\nA: def half(x):\n    return x / 2",
        f"{CODE}\n\n{CODE[:-1]}",
        f"{fence(CODE)}\n{fence(CODE)[:30]}",
        f"Usage:\n{fence('double(2)')}\n\n{CODE}",
        f"<think>\n{fence('def double(x): return 0')}\n</think>\n{CODE}",
        "double = lambda x: 2 * x",
        "class double(int):\n    def __new__(cls, x):\n        return 2 * x",
    ],
)
def test_it_finds_the_program_with_and_without_fences_and_prose(completion):
    assert value(completion) == 42


def test_the_last_complete_definition_is_the_answer():
    assert extract_program(f"{fence(CODE)}\nSimpler:\n{fence(LATER)}", None, "double") == LATER + "\n"
    assert extract_program(f"{fence(CODE)}\nSimpler:\n{fence(LATER)[:25]}", None, "double") == CODE + "\n"
    assert value(f"def double(x):\n    return 0\n\n{LATER}") == 42


@pytest.mark.parametrize(
    "completion",
    [
        BODY,
        BODY + "\n\nThis function doesn't loop.",
        BODY + "\n\n\ndef other():\n    pass\n\nprint(double(1))",
        BODY + "\n```\nDone.",
        BODY.strip(),
        textwrap.dedent(BODY),
        fence(BODY),
        f"The body is:\n{fence(textwrap.dedent(BODY))}\nThat's all.",
        CODE,
        fence(CODE),
        STUB + BODY,
        fence(STUB + BODY),
    ],
)
def test_a_body_continues_the_prompt(completion):
    assert value(completion, STUB) == 42


@pytest.mark.parametrize("completion", [BODY.strip(), textwrap.dedent(BODY), fence(BODY)])
def test_a_prompt_may_begin_the_body_with_an_import(completion):
    assert value(completion, "def double(x):\n    import math\n    'Twice x.'\n") == 42


def test_a_continued_prompt_keeps_its_helpers_and_its_first_lines():
    program = extract_program(BODY, STUB, "double")
    assert program.startswith(STUB[: STUB.index("def double")])
    assert {node.name for node in ast.parse(program).body[1:]} == {"helper", "double"}


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I cannot do that.",
        "Sure",
        STUB,
        fence(STUB),
        "```",
        "```python\n",
        "<think>\n" + CODE,
        "def doubled(x):\n  1",
    ],
)
@pytest.mark.parametrize("prompt", [None, STUB])
def test_a_text_without_a_program_fails(completion, prompt):
    (grade,) = grade_programs([completion], [ITEM | {"stub": prompt, "prelude": "import math\n"}])
    assert grade.passed is False
    assert grade.fraction == 0


@pytest.mark.parametrize(
    "completion",
    [
        "def double(x):\n    return 2 * x\n    so that is it",
        "def double(x):\n    return 2 * x\n\n    This isn't code.",
        fence("def double(x):\n    return 2 * x\nDone and done."),
    ],
)
def test_a_broken_program_is_not_repaired(completion):
    (grade,) = grade_programs([completion], [ITEM])
    assert (grade.passed, grade.status) == (False, "syntax")


def test_adversarial_text_is_searched_in_little_time():
    size = 20_000
    texts = [
        "def double(x):\n    return " + "-" * size + "1",
        "def double(x):\n    return " + "(" * size,
        "def double(x):\n    return x" + "+1" * size,
        "import x y\n" * size + CODE + "\n?",
        CODE + "\nx = '\n" * size,
        "```\n" * size,
        "```python\ndef double(x): pass\n" * size,
        CODE + "\n\x00\n\x0c\n\u2028\n",
        "if 1:\n" + "".join(" " * depth + "if 1:\n" for depth in range(1, 1000)) + CODE,
        "def double(x):\n    pass\n" + "elif x: pass\n" * size,
    ]
    start = time.process_time()
    for text in texts:
        extract_program(text, STUB, "double")
        extract_program(text, None, "other")
    assert time.process_time() - start < 15


def test_defines_reads_top_level_definitions_only():
    for code in (CODE, "async def double(x): pass", "class double: pass", "double = 1", "x = 1\ndouble: object = 2"):
        assert defines(code, "double"), code
    for code in ("double(1)", "  " + CODE, "def double_it(x): pass", "double == 1", "doubled = 1", "# def double(x)"):
        assert not defines(code, "double"), code


def test_grades_tell_status_and_fraction_in_order():
    programs = [CODE, "def double(x):\n    return 2", "def double(x:", "def double(x):\n    1 / 0", fence(LATER)]
    grades = grade_programs(programs, [ITEM] * 5)
    assert [(grade.status, grade.fraction) for grade in grades] == [
        ("passed", 1.0),
        ("wrong_answer", 0.5),
        ("syntax", 0.0),
        ("exception", 0.0),
        ("passed", 1.0),
    ]
    assert [grade.passed for grade in grades] == [True, False, False, False, True]
    assert grades[4].program == LATER + "\n"


def test_tests_are_a_list_a_text_or_check_and_name_the_entry_point():
    check = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 4"
    items = [
        {"tests": ITEM["tests"]},
        {"tests": "\n".join(ITEM["tests"]), "entry_point": None, "prelude": None},
        {"tests": check, "entry_point": "double"},
    ]
    assert [grade.passed for grade in grade_programs([CODE] * 3, items)] == [True] * 3


def test_a_function_alone_may_rest_on_the_helpers_of_the_prompt():
    item = ITEM | {"prelude": "def helper(x):\n    return 2 * x\n"}
    alone = "def double(x):\n    return helper(x)"
    assert [grade.status for grade in grade_programs([alone, fence(alone)], [item, item])] == ["passed"] * 2
    assert grade_programs([alone], [ITEM])[0].status == "exception"


@pytest.mark.parametrize("tests", [None, "", []])
def test_without_tests_there_is_no_verdict(tests):
    assert grade_programs([CODE], [{"tests": tests}]) == [CodeGrade(None, None, "unsupported", CODE)]


def test_tests_that_need_a_function_beside_the_entry_point_give_no_verdict():
    (grade,) = grade_programs(["def pair(): pass\n" + CODE], [{"tests": "assert double(pair()) == 2"}])
    assert (grade.passed, grade.fraction, grade.status) == (None, None, "unsupported")
    assert "'pair'" in grade.detail


def test_a_program_cannot_pass_by_force():
    malicious = [
        "class Always:\n    def __eq__(self, other):\n        return True\n\ndef double(x):\n    return Always()",
        "import os\n\ndef double(x):\n    os._exit(0)",
        "def double(x):\n    raise SystemExit(0)",
    ]
    assert not any(grade.passed for grade in grade_programs(malicious, [ITEM] * 3))


def test_lists_must_match():
    with pytest.raises(ValueError, match="2 completions came with 1 items"):
        grade_programs([CODE, CODE], [ITEM])
    with pytest.raises(ValueError, match="entry_point"):
        grade_programs([CODE], [{"tests": "assert True"}])


def test_threads_share_one_sandbox():
    programs = [f"{CODE}  # {number}" for number in range(12)]
    with ThreadPoolExecutor(4) as threads:
        grades = list(threads.map(lambda program: grade_programs([program], [ITEM])[0], programs))
    assert all(grade.passed for grade in grades)


def test_the_sandbox_ends_with_its_process():
    script = (
        "from schoolhouse.graders.code import grade_programs, shared_sandbox\n"
        f"print(grade_programs([{CODE!r}], [{ITEM!r}])[0].passed)\n"
        "print(*shared_sandbox().process_ids)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    passed, pids = done.stdout.splitlines()
    assert passed == "True"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.split())


@pytest.mark.parametrize(
    "completion",
    [
        " def f(n):\n    n = n + 1\n    return n",  # after a template that ends in "Assistant:"
        "  def f(n):\n      n = n + 1\n      return n",
        " def f(n):\n    n = n + 1\n    return n\n",
    ],
)
def test_a_blank_before_the_first_line_is_no_syntax_error(completion):
    grade = grade_programs([completion], [{"tests": ["assert f(1) == 2"], "entry_point": "f"}])[0]
    assert grade.passed is True, grade


def test_a_wrong_program_after_a_blank_stays_wrong():
    item = {"tests": ["assert f(1) == 2"], "entry_point": "f"}
    assert grade_programs([" def f(n):\n    return n"], [item])[0].status == "wrong_answer"
