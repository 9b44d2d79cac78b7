"""Grades of programs: find the code in a completion and run tests on it in the sandbox.

The same verdict scores an eval and becomes a reward. The program is run as it was found; nothing is repaired.
"""

import ast
import functools
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schoolhouse.sandbox import Job, Sandbox, entry_point_of


logger = logging.getLogger(__name__)

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(```|\Z)", re.DOTALL)
_CODE_LINE = re.compile(r"(?:async\s+)?def\s|class\s|import\s|from\s|@|\w+\s*=")
TIMEOUT_S = 5.0  # the slowest reference solution, MBPP's 123, took 2.4 s: room for a machine half as fast
ATTEMPTS = 20  # places where code among prose may begin, and cuts of its end: each costs a parse


@dataclass(frozen=True, slots=True)
class CodeGrade:
    """
    Verdict on one completion.

    Args:
        passed (`bool` or `None`): Whether every test passed; `None` where there are no tests, where the tests cannot
            be run against any program (`unsupported`), or where the sandbox failed (`sandbox_error`).
        fraction (`float` or `None`): Share of the tests that passed; `None` where `passed` is.
        status (`str`): One of `schoolhouse.sandbox.types.STATUSES`.
        program (`str`): The text that was run.
    """

    passed: bool | None
    fraction: float | None
    status: str
    program: str


def grade_programs(
    completions: Sequence[str], items: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S
) -> list[CodeGrade]:
    """
    Grade completions by the tests of their items. Safe from any thread and in forked children.

    Args:
        completions (`Sequence[str]`):
            Texts that a model generated.
        items (`Sequence[Mapping[str, Any]]`):
            For each completion `tests` (`str` or `list[str]`: `assert` statements, or a function `check(candidate)`)
            and optionally `entry_point` (read from the tests by default), `prelude` (trusted code to run before) and
            `stub` (the beginning of a function that a completion may continue).
        timeout_s (`float`, *optional*, defaults to `5.0`):
            CPU seconds for one program.

    Returns:
        `list[CodeGrade]`: in order.

    Raises:
        ValueError: For lists of different lengths, or tests that name no function.
        SandboxError: Where programs cannot be run safely.
    """
    if len(completions) != len(items):
        raise ValueError(f"{len(completions)} completions came with {len(items)} items: pass one item each")
    grades: list[CodeGrade] = []
    jobs: dict[int, Job] = {}
    for completion, item in zip(completions, items, strict=True):
        tests = item.get("tests") or ""
        tests = tests if isinstance(tests, str) else "\n".join(tests)
        entry_point = item.get("entry_point") or (entry_point_of(tests) if tests else "")
        program = extract_program(completion, item.get("stub"), entry_point)
        if tests:
            prelude = item.get("prelude") or ""
            jobs[len(grades)] = Job(program, tests, entry_point, prelude, timeout_s=timeout_s)
        grades.append(CodeGrade(None, None, "unsupported", program))
    if jobs:
        for index, verdict in zip(jobs, shared_sandbox().run(list(jobs.values())), strict=True):
            grades[index] = CodeGrade(verdict.passed, verdict.fraction, verdict.status, grades[index].program)
    return grades


@functools.cache
def shared_sandbox() -> Sandbox:
    """
    Return the sandbox of this process, which starts at the first call and ends with the process. `SandboxError` where
    programs cannot be run safely.
    """
    # No lock, since a fork could copy it while it is held: if two threads start at once, one of the two sandboxes
    # lives only for its first batch.
    sandbox = Sandbox()
    logger.info(sandbox.describe())
    return sandbox


def extract_program(completion: str, prompt: str | None, entry_point: str) -> str:
    """
    Find the program in a completion.

    These are tried in order, and the first that defines the entry point is taken:

    1. the last closed fenced block;
    2. a fenced block that was cut off;
    3. code without fences, without the prose around it;
    4. the body of the function that `prompt` begins, fenced or not, indented or not. `prompt` is code that ends in the
       head of the entry point (HumanEval's prompts), not a question in words.

    Reasoning up to `</think>` is no part of the answer. Where none of these is found, the result is the last block or
    the whole text, so that the sandbox says what is wrong with it.
    """
    text = completion.rpartition("</think>")[2].partition("<think>")[0]
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # lines are counted as Python counts them
    if not defines(text, entry_point):
        # A chat template that ends in "Assistant:" leaves a blank in front of the first line, or of them all.
        shifted = (textwrap.dedent(text), text.lstrip(" "))
        text = next((program for program in shifted if defines(program, entry_point)), text)
    fenced = [(block, bool(end)) for block, end in _FENCE.findall(text)]
    answers = [(code, closed) for block, closed in fenced if defines(code := textwrap.dedent(block), entry_point)]
    if answers:
        return next((code for code, closed in reversed(answers) if closed), answers[-1][0])
    last = fenced[-1][0] if fenced else text
    candidates = _unfenced(text) if defines(text, entry_point) else _continued(prompt, text, last)
    programs = (_without_prose(lines, entry_point) for lines in candidates)
    return next((program for program in programs if defines(program, entry_point)), last)


def defines(program: str, entry_point: str) -> bool:
    """Check if a `def`, `class` or assignment of a name begins a line of a program's text. The text need not parse."""
    name = re.escape(entry_point)
    pattern = rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]+)?=(?!=)"
    return re.search(pattern, program, re.MULTILINE) is not None


def _unfenced(text: str) -> Iterator[list[str]]:
    """Candidates for code among prose: the text from each line on that looks like the beginning of code."""
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if _CODE_LINE.match(line)]
    for start in starts[:ATTEMPTS]:
        yield lines[start:]


def _continued(prompt: str | None, *bodies: str) -> Iterator[list[str]]:
    """Candidates for the prompt's function: each body, also if all lines or the first one lost their indentation."""
    for body in dict.fromkeys(bodies) if prompt else ():
        for indented in (body, textwrap.indent(body, "    "), "    " + body.strip()):
            yield [*prompt.rstrip("\n").split("\n"), *indented.lstrip("\n").split("\n")]


def _without_prose(lines: list[str], entry_point: str) -> str:
    """
    Return the lines up to the first unindented one that is not Python; empty if the entry point then has no body.

    An error inside a function is not cut out: the whole function goes. Single words and the like (`Done`, `Note: yes`)
    in the rest are prose that happens to parse, and are left out.
    """
    for _ in range(ATTEMPTS):
        try:
            with warnings.catch_warnings(action="ignore"):  # such as of "\d" in a string of the model
                tree = ast.parse("\n".join(lines))
        except SyntaxError as error:
            place = min(error.lineno or 1, len(lines)) - 1
            while place > 0 and (not lines[place].strip() or lines[place][0].isspace()):
                place -= 1
            lines = lines[:place]
            continue
        except (ValueError, RecursionError, MemoryError):  # null bytes; nested too deeply
            return ""
        definitions = [node for node in tree.body if getattr(node, "name", None) == entry_point]
        # The prompt of HumanEval/115 begins the body with an import.
        imports = ast.Import | ast.ImportFrom
        if definitions and all(_is_docstring(node) or isinstance(node, imports) for node in definitions[-1].body):
            return ""
        prose = {number for node in tree.body if _is_prose(node) for number in range(node.lineno - 1, node.end_lineno)}
        return "\n".join(line for number, line in enumerate(lines) if number not in prose)
    return ""


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_prose(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    calls = any(isinstance(part, ast.Call) for part in ast.walk(node))
    return isinstance(node, ast.Expr) and not calls and not _is_docstring(node)
