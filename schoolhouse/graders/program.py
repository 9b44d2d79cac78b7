"""The program in a completion: code in fences, among prose, or the continuation of a prompt."""

import ast
import builtins
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schoolhouse.core.escape import response_of
from schoolhouse.sandbox.types import bound_names, root_name


# A fence opens a block at the beginning of a line or, as models also write it, behind some words.
_OPENING = re.compile(r"(?P<before>[^`]*?)(?P<fence>`{3,}|(?<!\S)~{3,})(?P<info>[^`]*)")
_LANGUAGE = re.compile(r"\s*(?:python3?|py)\b[ \t]*", re.IGNORECASE)
_CODE_LINE = re.compile(r"(?:async\s+)?def\s|class\s|import\s|from\s|@|\w+\s*=")
ATTEMPTS = 20  # places where code among prose may begin, and cuts of its end: each costs a parse


@dataclass(frozen=True, slots=True)
class Block:
    """Fenced code without its indentation, and whether a fence closes it."""

    code: str
    closed: bool


def extract_program(completion: str, prompt: str | None, entry_point: str) -> str:
    """
    Find the program in a completion.

    These are tried in order, and the first that defines the entry point is taken:

    1. the whole text, if it is Python;
    2. the last closed fenced block, with the definitions and imports that it needs from the other blocks;
    3. a fenced block that was cut off, completed in the same way;
    4. code without fences, without the prose around it;
    5. code between backticks within a line;
    6. the body of the function that `prompt` begins, fenced or not, indented or not. `prompt` is code that ends in the
       head of the entry point (HumanEval's prompts), not a question in words.

    Thoughts (`<think>`) are no part of the answer. Where none of these is found, the result is the last block or
    the whole text, so that the sandbox says what is wrong with it. Of an entry point such as `Solution().solve` the
    program defines `Solution`.
    """
    name = root_name(entry_point)
    text = response_of(completion).removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # lines are counted as Python counts them
    if not defines(text, name):
        # A chat template that ends in "Assistant:" leaves a blank in front of the first line, or of them all.
        shifted = (textwrap.dedent(text), text.lstrip(" "))
        text = next((program for program in shifted if defines(program, name)), text)
    has_fence = "```" in text or "~~~" in text
    if has_fence and defines(text, name) and _parse(text):
        return text
    blocks = _fenced_blocks(text) if has_fence else []
    answers = [index for index, block in enumerate(blocks) if defines(block.code, name)]
    if answers:
        chosen = next((index for index in reversed(answers) if blocks[index].closed), answers[-1])
        before = [block.code for block in blocks[:chosen]]
        return _with_definitions(blocks[chosen].code, [*before[::-1], *[block.code for block in blocks[chosen + 1 :]]])
    last = blocks[-1].code if blocks else text
    candidates: Iterator[list[str]]
    if defines(text, name):
        candidates = _unfenced(text)
    else:
        spans = [span for line in text.split("\n") for span in _code_spans(line) if defines(span, name)]
        if spans:
            return spans[-1]
        candidates = _continued(prompt, text, last)
    programs = (_without_prose(lines, name) for lines in candidates)
    return next((program for program in programs if defines(program, name)), last)


def defines(program: str, entry_point: str) -> bool:
    """
    Check if a `def`, `class` or assignment of an entry point's name begins a line of a program's text. The text need
    not parse.
    """
    name = re.escape(root_name(entry_point))
    pattern = rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]+)?=(?!=)"
    return re.search(pattern, program, re.MULTILINE) is not None


def _fenced_blocks(text: str, nested: bool = True) -> list[Block]:
    """
    Blocks between fences as in CommonMark: backticks or tildes, closed by a line of at least as many and nothing else,
    indented by at most three columns more than the opening one.

    Two things that models write differ from it: a fence right behind the last line of code, and a closing fence within
    a string of the program. Where the block is no Python up to the first closing fence, the other ends are tried.
    """
    lines = text.split("\n")
    blocks: list[Block] = []
    attempts, number = ATTEMPTS, 0
    while number < len(lines):
        opening = _OPENING.fullmatch(lines[number])
        number += 1
        # Behind words there may be a language, but no sentence: "a line of ``` ends it" opens nothing.
        if not opening or (re.search(r"\w", opening["before"]) and len(opening["info"].split()) > 1):
            continue
        fence = opening["fence"]
        indent = len(opening["before"]) if opening["before"].isspace() else 0
        closing = re.compile(rf" {{0,{indent + 3}}}{fence[0]}{{{len(fence)},}}[ \t]*")
        # Code may begin beside the opening fence: "```python def f(x):".
        beside = _LANGUAGE.sub("", opening["info"], count=1)
        first = [beside] if _CODE_LINE.match(beside) else []
        start = number
        end = next((n for n in range(start, len(lines)) if closing.fullmatch(lines[n])), None)
        body, number = first + lines[start:end], len(lines) if end is None else end + 1
        closed, usual = end is not None, _block_text(body)
        if attempts and not _parse(usual):
            for stop, last_line in _other_ends(lines, start, end, fence, closing):
                if attempts <= 0:
                    break
                attempts -= 1
                code = _block_text([*first, *lines[start:stop], *last_line])
                if _parse(code):
                    closed, usual, number = True, code, stop + 1
                    break
            else:
                # Markdown in a longer fence, with blocks in it.
                inner = _fenced_blocks(usual, nested=False) if nested and len(fence) > 3 else []
                blocks += inner
                if inner:
                    continue
        blocks.append(Block(usual, closed))
    return blocks


def _other_ends(
    lines: list[str], start: int, end: int | None, fence: str, closing: re.Pattern[str]
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers where a block may end instead, with what that line adds to its code."""
    for number in range(start, len(lines) if end is None else end):
        line = lines[number].rstrip()
        if line.endswith(fence) and line.strip(fence[0]):
            yield number, [line.removesuffix(fence)]
    for number in range(end + 1, len(lines)) if end is not None else ():
        if closing.fullmatch(lines[number]):
            yield number, []


def _block_text(lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines) + "\n")


def _code_spans(line: str) -> Iterator[str]:
    """Code between two equally long runs of backticks within a line."""
    parts = re.split(r"(`+)", line)
    number = 1
    while number < len(parts):
        # An opening run is closed by the next one of its length; shorter and longer ones are part of the code.
        end = next((n for n in range(number + 2, min(number + 100, len(parts)), 2) if parts[n] == parts[number]), None)
        if end:
            yield _LANGUAGE.sub("", "".join(parts[number + 1 : end]), count=1).strip()
            number = end
        number += 2


def _with_definitions(program: str, others: Sequence[str]) -> str:
    """
    Return a program behind the top-level statements of other blocks that define or import what it misses. Where
    several blocks define a name, the first of `others` does.
    """
    tree = _parse(program)
    if tree is None or not others:
        return program
    known = bound_names(tree) | vars(builtins).keys()
    wanted = _loaded_names(tree) - known
    found: dict[str, None] = {}  # sources of statements; those that others need come before them
    trees = [(other, parsed) for other in others if wanted and (parsed := _parse(other))]
    while wanted:
        name = min(wanted)
        wanted.discard(name)
        known |= {name}
        for other, parsed in trees:
            statements = [node for node in parsed.body if name in _names_bound_at_top(node)]
            if statements:
                lines = other.split("\n")
                sources = [_source(lines, node) for node in statements]
                found = dict.fromkeys([*sources, *found])
                known |= {bound for node in statements for bound in bound_names(node)}
                wanted |= {needed for node in statements for needed in _loaded_names(node)} - known
                break
    if not found:
        return program
    # `from __future__` must stay first.
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    lines = program.split("\n")
    after = (future[-1].end_lineno or 0) if future else 0
    return "\n".join([*lines[:after], *found, *lines[after:]])


def _loaded_names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _names_bound_at_top(node: ast.stmt) -> set[str]:
    """Names that a statement binds in the module, not those within its functions and classes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return bound_names(node)


def _source(lines: list[str], node: ast.stmt) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *[decorator.lineno for decorator in decorators]])
    return "\n".join(lines[first - 1 : node.end_lineno])


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


def _parse(program: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_prose(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    calls = any(isinstance(part, ast.Call) for part in ast.walk(node))
    return isinstance(node, ast.Expr) and not calls and not _is_docstring(node)
