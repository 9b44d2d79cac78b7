"""
Program that tries patterns and chat templates of unknown origin, in a process of its own with little time and memory.

It reads a JSON object on stdin and writes on stdout what is wrong with it, or nothing.
"""

import contextlib
import json
import re
import resource
import sys
from collections.abc import Callable
from typing import Any


SECONDS = 2  # of processor time
_BYTES = 2**30
_GROWTH = 100  # characters that a template may write for a character of the chat

# As peft matches names of modules with what a configuration calls a pattern.
_FORMS = ("{}", r"(.*\.)?({})$", r"(^|.*\.){}($|\..*)", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.")


def try_patterns(patterns: list[str], names: list[str]) -> str:
    """Match each name with each pattern, and return what is wrong with them."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            return f"is no regular expression ({error})"
        for form in _FORMS:
            with contextlib.suppress(re.error):  # a group's name twice
                compiled = re.compile(form.format(pattern) if form != "{}" else pattern)
                for name in names:
                    compiled.match(name)
                    compiled.fullmatch(name)
    return ""


def try_template(template: str, tokens: dict[str, str]) -> str:
    """Check what a template is made of, render it on chats of several shapes, and return what is wrong with it."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": lambda form: form}
    try:
        tree = environment.parse(template)
        if told := _unusual(tree):
            return told
        compiled = environment.from_string(template)
    except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
        return f"cannot be compiled ({type(error).__name__}: {error})"
    for chat in _chats():
        size = len(json.dumps(chat))
        for prompt in (False, True):
            try:
                written = 0
                for part in compiled.generate(**chat, **tokens, add_generation_prompt=prompt):
                    written += len(part)
                    if written > _GROWTH * size + 10 * len(template):
                        return f"writes over {written:,} characters for a chat of {size:,}"
            except (MemoryError, OverflowError, RecursionError) as error:
                return f"cannot be rendered ({type(error).__name__}: {error})"
            except Exception:  # it may refuse a role or the order of turns
                continue
    return ""


def _unusual(tree: Any) -> str:
    """Name what no chat template needs: with it a few characters stand for hours, whatever chat is rendered."""
    from jinja2 import nodes

    if tree.find((nodes.Mul, nodes.Pow)):
        return "multiplies"
    if any(isinstance(node.left, nodes.Const | nodes.TemplateData) for node in tree.find_all(nodes.Mod)):
        return "formats with %"
    for node in tree.find_all(nodes.Const):
        if isinstance(node.value, int | float) and abs(node.value) > 1000:
            return f"holds the number {str(node.value)[:20]}"
    if tree.find(nodes.For) and _loops(tree) > 5:
        return "nests more than 5 loops"
    return ""


def _loops(node: Any) -> int:
    from jinja2 import nodes

    return isinstance(node, nodes.For) + max([_loops(child) for child in node.iter_child_nodes()], default=0)


def _chats() -> list[dict[str, Any]]:
    text = "Tom has 3 apples.\n\nHow many? " * 20
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, 3]}}}
    tool = {
        "name": "add",
        "description": text,
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    }
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": f"<think>{text}</think>{text}"}]
    calls = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "add", "content": "5"},
        {"role": "assistant", "content": text},
    ]
    parts = [{"role": "user", "content": [{"type": "text", "text": text}] * 4}]
    chats = [turns, [{"role": "system", "content": text}, *turns], turns * 30, calls * 15, parts]
    tools = [None, None, None, [{"type": "function", "function": tool}] * 5, None]
    return [{"messages": chat, "tools": some} for chat, some in zip(chats, tools, strict=True)]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    request = json.load(sys.stdin)
    tries: dict[str, Callable[..., str]] = {"patterns": try_patterns, "template": try_template}
    print(tries[request["kind"]](*request["arguments"]))
