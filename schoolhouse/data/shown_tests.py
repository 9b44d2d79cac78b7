"""Tests that a prompt shows, kept apart from those that are graded: what is shown can be copied into a program."""

import ast
from typing import Any


Row = dict[str, Any]


def show_tests(row: Row, count: int) -> Row:
    """
    Append some of a row's tests to its prompt, and leave the others to be graded.

    Args:
        row (`dict[str, Any]`):
            Row with `prompt` (text or messages), `tests` (a list, or a text of `assert` statements) and `entry_point`.
        count (`int`):
            Tests to show, from the first on. One is always left to be graded: where there is no other, the prompt
            shows how that one calls the function, and not what it expects.

    Returns:
        `dict[str, Any]`: the row with the tests shown in `shown_tests`, and the others in `tests`. A test that says
        the same as an earlier one is left out, and so is a hidden test that says the same as a shown one. Code that
        asserts nothing is set-up, and stays in `tests`.

    Raises:
        `ValueError`: says what the row lacks.
    """
    given, hidden = row.get("tests"), row.get("hidden_tests")
    if not given:
        raise ValueError("column 'tests' is missing")
    tests: dict[str, str] = {}  # by what they say, whatever the spelling
    for test in _statements(given) if isinstance(given, str) else given:
        tests.setdefault(ast.dump(_parse(test)), test)
    asserting = [meaning for meaning in tests if "Assert(" in meaning]
    if not asserting:
        raise ValueError("column 'tests' has no assert statement")
    shown = asserting[: min(count, len(asserting) - 1)]
    if shown:
        words, code = "It has to pass tests such as:", "\n".join(tests[meaning].strip() for meaning in shown)
    else:
        words, code = "It is called like this:", _call(tests[asserting[0]], row.get("entry_point"))
    row = {
        **row,
        "prompt": _appended(row.get("prompt"), f"\n\n{words}\n```python\n{code}\n```"),
        "tests": [test for meaning, test in tests.items() if meaning not in shown],
        "shown_tests": [tests[meaning] for meaning in shown],
    }
    if hidden:
        row["hidden_tests"] = [test for test in hidden if ast.dump(_parse(test)) not in shown]
    return row


def _parse(test: str) -> ast.Module:
    try:
        return ast.parse(test)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"a test does not parse: {error}") from None


def _statements(tests: str) -> list[str]:
    tree = _parse(tests)
    if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
        raise ValueError("the tests are one function 'check', of which no part can be shown: use a list of asserts")
    return [ast.get_source_segment(tests, node) or "" for node in tree.body]


def _call(test: str, entry_point: str | None) -> str:
    """Call of the function in a test."""
    for node in ast.walk(_parse(test)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point:
            return ast.unparse(node)
    raise ValueError(f"a test does not call the function that column 'entry_point' names: {entry_point!r}")


def _appended(prompt: Any, text: str) -> Any:
    if isinstance(prompt, str):
        return prompt + text
    if not (isinstance(prompt, list) and prompt and isinstance(prompt[-1].get("content"), str)):
        raise ValueError("column 'prompt' is no text and ends in no message of text")
    return [*prompt[:-1], prompt[-1] | {"content": prompt[-1]["content"] + text}]
