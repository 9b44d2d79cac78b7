"""
Conversion of public data sets to TRL's columns, named in `data/*.yaml`.

A `validate_…` function returns an error text for a malformed upstream row, `None` for a valid one. The
columns that must hold text are checked before it (`required_columns` of the YAML file). The other functions convert
the valid rows.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any


Row = dict[str, Any]
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def user(text: str) -> list[dict[str, str]]:
    """Messages with one turn of the user."""
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    """Messages with one turn of the assistant."""
    return [{"role": "assistant", "content": text}]


def validate_gsm8k(row: Row) -> str | None:
    """Error of a row without `#### N`."""
    return None if "####" in row["answer"] else "column 'answer' has no final answer after '####'"


def gsm8k(rows: Iterable[Row]) -> Iterator[Row]:
    """Solutions without calculator calls (`<<48/2=24>>`); `answer` is without thousands separators."""
    for row in rows:
        yield {
            "prompt": user(row["question"]),
            "completion": assistant(re.sub(r"<<.*?>>", "", row["answer"])),
            "answer": row["answer"].rpartition("####")[2].strip().replace(",", ""),
        }


def validate_svamp(row: Row) -> str | None:
    """Error of a row whose equation or answer cannot be read."""
    try:
        _solve(ast.parse(row["Equation"].strip(), mode="eval").body)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError):
        return f"column 'Equation' is no arithmetic: {row['Equation']!r}"
    try:
        Fraction(str(row.get("Answer")))
    except ValueError:
        return f"column 'Answer' is no number: {row.get('Answer')!r}"
    return None


def svamp(rows: Iterable[Row]) -> Iterator[Row]:
    """Problems with their equation as the worked step."""
    for row in rows:
        answer = Fraction(str(row["Answer"]))
        yield {
            "prompt": user(f"{row['Body'].strip()} {row['Question'].strip()}"),
            "completion": assistant(_svamp_solution(row["Equation"], answer)),
            "answer": _decimal(answer),
            "type": row.get("Type"),
            "id": row["ID"],
        }


def _svamp_solution(equation: str, answer: Fraction) -> str:
    # "76.0" becomes "76"; `ast.unparse` then leaves out the brackets that the order of operations makes unnecessary.
    text = re.sub(r"\d+(\.\d+)?", lambda number: _decimal(Fraction(number[0])), equation.strip())
    tree = ast.parse(text, mode="eval").body
    final = f"#### {_decimal(answer)}"
    # The equation of one problem (chal-680) contradicts its answer: it keeps the answer alone.
    if isinstance(tree, ast.BinOp) and _solve(tree) == answer:
        return f"{ast.unparse(tree)} = {_decimal(answer)}\n{final}"
    return final


def _solve(node: ast.AST) -> Fraction:
    """Value of an equation; `KeyError` for anything but numbers and the four operations."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if not isinstance(node, ast.BinOp):
        raise KeyError(type(node))
    value: Fraction = _OPERATORS[type(node.op)](_solve(node.left), _solve(node.right))
    return value


def _decimal(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else str(float(number))


def validate_rasbt(row: Row) -> str | None:
    """Error of a row whose `input`, which may be empty, is no text."""
    return None if isinstance(row.get("input"), str) else "column 'input' is missing or no text"


def rasbt_instruct(rows: Iterable[Row]) -> Iterator[Row]:
    """Instructions with their reference output."""
    for row in rows:
        yield {"messages": user(_rasbt_prompt(row)) + assistant(row["output"])}


def rasbt_pairs(rows: Iterable[Row]) -> Iterator[Row]:
    """Polite and rude answers, without the pairs of two equal ones."""
    for row in rows:
        if row["chosen"] != row["rejected"]:
            yield {
                "prompt": user(_rasbt_prompt(row)),
                "chosen": assistant(row["chosen"]),
                "rejected": assistant(row["rejected"]),
            }


def _rasbt_prompt(row: Row) -> str:
    return f"{row['instruction']}\n\n{row['input']}" if row["input"].strip() else row["instruction"]


def validate_tulu_human_prefs(row: Row) -> str | None:
    """Error of a row with an unknown judgment."""
    known = re.fullmatch(r"tie|[ab]-is-(slightly-)?better", row["preference"])
    return None if known else f"column 'preference' holds {row['preference']!r}"


def tulu_human_prefs(rows: Iterable[Row]) -> Iterator[Row]:
    """Judgments other than ties; `strength` is `"better"` or `"slightly-better"`."""
    for row in rows:
        if row["preference"] == "tie":
            continue
        winner, strength = row["preference"].split("-is-")
        loser = "b" if winner == "a" else "a"
        yield {
            "prompt": user(row["prompt"]),
            "chosen": assistant(row[f"completion_{winner}"]),
            "rejected": assistant(row[f"completion_{loser}"]),
            "strength": strength,
        }


def validate_mbpp(row: Row) -> str | None:
    """Error of a row whose tests cannot be run on its function."""
    for column, least in (("test_list", 1), ("challenge_test_list", 0)):
        tests = row.get(column)
        if not isinstance(tests, list) or len(tests) < least or not all(isinstance(test, str) for test in tests):
            return f"column {column!r} is no list of tests"
    return None if _tested_function(row) else "column 'test_list' calls no function that column 'code' defines"


def mbpp(rows: Iterable[Row]) -> Iterator[Row]:
    """
    Functions to write. A test has to be added to the prompt (`shown_tests`), as tests alone give the function's name
    and arguments.

    `prelude` is empty: nothing runs before the program. `hidden_tests` are the challenge tests, which 11 rows of
    the test split have.
    """
    for row in rows:
        yield {
            "prompt": user(row["text"].strip()),
            "answer": row["code"].replace("\r\n", "\n"),
            "tests": _with_setup(row, row["test_list"]),
            "hidden_tests": _with_setup(row, row["challenge_test_list"]),
            "entry_point": _tested_function(row),
            "prelude": "",
            "id": f"mbpp-{row['task_id']}",
        }


def _with_setup(row: Row, tests: list[str]) -> list[str]:
    # Upstream runs the setup code after the program and before its tests: here it is the first test.
    setup = (row.get("test_setup_code") or "").strip()
    return [setup, *tests] if setup and tests else tests


def _tested_function(row: Row) -> str | None:
    """Name of the function of `code` that the tests call; `None` where there is none, or code does not parse."""
    try:
        tests, code = ast.parse("\n".join(row["test_list"])), ast.parse(row["code"])
    except (SyntaxError, ValueError):
        return None
    called = {node.func.id for node in ast.walk(tests) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
    defined = [node.name for node in code.body if isinstance(node, ast.FunctionDef) and node.name in called]
    return defined[-1] if defined else None
