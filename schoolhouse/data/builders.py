"""Public data sets in TRL's columns.

Every builder takes `split` (`"train"` or `"test"`), `path` (a local file or folder that replaces the Hub) and
`revision` (of the Hub data set), and returns a `datasets.Dataset`. Where upstream has no split of its own, a hash
decides row by row ([`_side`]): the same rows land on the same side on every machine and from every copy.
"""

import ast
import hashlib
import itertools
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from schoolhouse.data.loading import read_rows
from schoolhouse.data.tiny.builders import TINY_DATASETS


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Source:
    """
    Where a data set comes from.

    Args:
        license (`str`):
            SPDX identifier of its license.
        origin (`str`):
            The project that made it.
        hub (`str`, *optional*):
            Hub id, or `https://` address of the file; without it a local path must be given.
        config (`str`, *optional*):
            Configuration on the Hub.
    """

    license: str
    origin: str
    hub: str | None = None
    config: str | None = None


_OASST = Source("Apache-2.0", "https://huggingface.co/datasets/OpenAssistant/oasst1", "OpenAssistant/oasst1")
_RASBT = Source(
    "Apache-2.0",
    "https://github.com/rasbt/LLMs-from-scratch",
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch07/04_preference-tuning-with-dpo/"
    "instruction-data-with-preference.json",
)
SOURCES = {
    "gsm8k": Source("MIT", "https://github.com/openai/grade-school-math", "openai/gsm8k", "main"),
    "svamp": Source("MIT", "https://github.com/arkilpatel/SVAMP", "ChilleD/SVAMP"),
    "oasst": _OASST,
    "oasst_pairs": _OASST,
    "rasbt_instruct": _RASBT,
    "rasbt_pairs": _RASBT,
    "tulu_human_prefs": Source("Apache-2.0", "https://github.com/allenai/open-instruct (human_eval/data)"),
    "mbpp": Source(
        "CC-BY-4.0",
        "https://github.com/google-research/google-research/tree/master/mbpp",
        "google-research-datasets/mbpp",
        "full",
    ),
}


def gsm8k(split: str = "train", path: str | None = None, revision: str | None = None) -> "Dataset":
    """
    GSM8K ([Cobbe et al., 2021](https://huggingface.co/papers/2110.14168)): 7,473 + 1,319 word problems.

    The completion is the worked solution without its calculator calls (`<<48/2=24>>`), ending in `#### N`; `answer` is
    N without thousands separators.
    """

    def fault_of(row: dict) -> str | None:
        fault = _fault_in_texts(row, "question", "answer")
        return fault or (None if "####" in row["answer"] else "column 'answer' has no final answer after '####'")

    return _dataset(
        {
            "prompt": _user(row["question"]),
            "completion": _assistant(re.sub(r"<<.*?>>", "", row["answer"])),
            "answer": row["answer"].rpartition("####")[2].strip().replace(",", ""),
        }
        for row in _read("gsm8k", split, path, revision, fault_of)
    )


def svamp(split: str = "train", path: str | None = None, revision: str | None = None) -> "Dataset":
    """
    SVAMP ([Patel et al., 2021](https://huggingface.co/papers/2103.07191)): 1,000 word problems of one or two steps.

    The authors give no split, copies differ in theirs: all rows are read and a problem is in the test split if the
    SHA-256 of its `ID`, as an integer modulo 10, is below 3. That makes 689 + 311. The completion is the equation as
    the worked step, then `#### N`; the step is left out of the one problem (`chal-680`) whose equation contradicts its
    answer. Extra columns: `answer`, `type`, `id`.
    """

    def fault_of(row: dict) -> str | None:
        if fault := _fault_in_texts(row, "ID", "Body", "Question", "Equation"):
            return fault
        try:
            _solve(ast.parse(row["Equation"].strip(), mode="eval").body)
        except (SyntaxError, ValueError, KeyError, ZeroDivisionError):
            return f"column 'Equation' is no arithmetic: {row['Equation']!r}"
        try:
            Fraction(str(row.get("Answer")))
        except ValueError:
            return f"column 'Answer' is no number: {row.get('Answer')!r}"
        return None

    return _dataset(
        {
            "prompt": _user(f"{row['Body'].strip()} {row['Question'].strip()}"),
            "completion": _assistant(_svamp_solution(row["Equation"], Fraction(str(row["Answer"])))),
            "answer": _decimal(Fraction(str(row["Answer"]))),
            "type": row.get("Type"),
            "id": row["ID"],
        }
        for row in _on_side(split, _read("svamp", None, path, revision, fault_of), lambda row: row["ID"], tenths=3)
    )


def oasst(
    split: str = "train", path: str | None = None, revision: str | None = None, lang: str | None = "en"
) -> "Dataset":
    """
    OpenAssistant conversations ([Köpf et al., 2023](https://huggingface.co/papers/2304.07327)) as `messages`.

    Wherever people ranked several replies, only the best-ranked one is followed; every follow-up question that got a
    reply is followed, so a tree gives one conversation for each of its last questions. Trees in `lang` (`None`: all);
    deleted messages and those that reviewers refused are cut off with all that hangs on them. A tenth of the trees is
    the test split, by the hash of the tree's id. Reads the flat messages of the Hub data set and files of trees.
    """
    return _dataset(
        {"messages": _turns(line), "tree": tree}
        for tree, root in _oasst_trees("oasst", split, path, revision, lang)
        for line in _best_lines([root])
    )


def oasst_pairs(
    split: str = "train", path: str | None = None, revision: str | None = None, lang: str | None = "en"
) -> "Dataset":
    """
    Every two sibling replies of [`oasst`]'s trees that people ranked apart: `prompt`, `chosen`, `rejected`.

    The prompt is the conversation up to them, whatever the rank of its turns. The same trees as in [`oasst`] are the
    test split.
    """
    return _dataset(
        {"prompt": _turns(line), "chosen": _turns([better]), "rejected": _turns([worse]), "tree": tree}
        for tree, root in _oasst_trees("oasst_pairs", split, path, revision, lang)
        for line in _lines_to_questions([root])
        for better, worse in itertools.combinations(_ranked(line[-1]), 2)
        if better["rank"] < worse["rank"]
    )


def rasbt_instruct(split: str = "train", path: str | None = None, revision: str | None = None) -> "Dataset":
    """
    The 1,100 short instructions of Raschka's *Build a Large Language Model (From Scratch)* as `messages`.

    A tenth is the test split, by the hash of the prompt (instruction, blank line, input).
    """
    rows = _read(
        "rasbt_instruct",
        None,
        path,
        revision,
        lambda row: _fault_in_texts(row, "instruction", "output", empty="input"),
    )
    return _dataset(
        {"messages": _user(_rasbt_prompt(row)) + _assistant(row["output"])}
        for row in _on_side(split, rows, _rasbt_prompt)
    )


def rasbt_pairs(split: str = "train", path: str | None = None, revision: str | None = None) -> "Dataset":
    """
    Polite (`chosen`) and rude (`rejected`) answers to [`rasbt_instruct`]'s prompts, split like them: easy pairs.

    The 6 pairs of two equal answers express no preference and are left out.
    """
    rows = _read(
        "rasbt_pairs",
        None,
        path,
        revision,
        lambda row: _fault_in_texts(row, "instruction", "chosen", "rejected", empty="input"),
    )
    return _dataset(
        {
            "prompt": _user(_rasbt_prompt(row)),
            "chosen": _assistant(row["chosen"]),
            "rejected": _assistant(row["rejected"]),
        }
        for row in _on_side(split, rows, _rasbt_prompt)
        if row["chosen"] != row["rejected"]
    )


def tulu_human_prefs(split: str = "train", path: str | None = None, revision: str | None = None) -> "Dataset":
    """
    Human judgments of pairs of model answers from the evaluation of Tülu 1
    ([Wang et al., 2023](https://huggingface.co/papers/2306.04751)).

    Ties are left out: 774 of 1,150 judgments remain. Where several people judged one pair, each judgment is a row, so
    rows may contradict each other, as people do. Extra column: `strength`, `"better"` or `"slightly-better"`. A tenth
    is the test split, by the hash of the prompt. Not on the Hub: give a path.
    """

    def fault_of(row: dict) -> str | None:
        if fault := _fault_in_texts(row, "prompt", "completion_a", "completion_b", "preference"):
            return fault
        known = re.fullmatch(r"tie|[ab]-is-(slightly-)?better", row["preference"])
        return None if known else f"column 'preference' holds {row['preference']!r}"

    rows = _read("tulu_human_prefs", None, path, revision, fault_of)
    return _dataset(
        {
            "prompt": _user(row["prompt"]),
            "chosen": _assistant(row["completion_" + winner]),
            "rejected": _assistant(row["completion_" + ("b" if winner == "a" else "a")]),
            "strength": strength,
        }
        for row in _on_side(split, rows, lambda row: row["prompt"])
        if row["preference"] != "tie"
        for winner, strength in [row["preference"].split("-is-")]
    )


def mbpp(split: str = "train", path: str | None = None, revision: str | None = None) -> "Dataset":
    """
    MBPP ([Austin et al., 2021](https://huggingface.co/papers/2108.07732)): 374 + 500 short functions to write, with
    three tests each; the splits `validation` (90) and `prompt` (10) can be had too.

    The tests are part of the prompt, as they alone give the function's name and arguments. Extra columns: `answer`
    (code), `tests` (what a reward may run), `hidden_tests` (the challenge tests that 11 rows of the test split have:
    never for a reward), `entry_point`, `prelude` (empty: there is nothing to run before the program) and `id`. Setup
    code, which upstream runs after the program and before its tests, is the first of the tests.
    """

    def fault_of(row: dict) -> str | None:
        if fault := _fault_in_texts(row, "text", "code"):
            return fault
        for column, least in (("test_list", 1), ("challenge_test_list", 0)):
            tests = row.get(column)
            if not isinstance(tests, list) or len(tests) < least or not all(isinstance(test, str) for test in tests):
                return f"column {column!r} is no list of tests"
        return None if _tested_function(row) else "column 'test_list' calls no function that column 'code' defines"

    def with_setup(row: dict, tests: list[str]) -> list[str]:
        setup = (row.get("test_setup_code") or "").strip()
        return [setup, *tests] if setup and tests else tests

    return _dataset(
        {
            "prompt": _user(
                f"{row['text'].strip()}\n\nThe code has to pass these tests:\n```python\n"
                + "\n".join(test.strip() for test in row["test_list"])
                + "\n```"
            ),
            "answer": row["code"].replace("\r\n", "\n"),
            "tests": with_setup(row, row["test_list"]),
            "hidden_tests": with_setup(row, row["challenge_test_list"]),
            "entry_point": _tested_function(row),
            "prelude": "",
            "id": f"mbpp-{row['task_id']}",
        }
        for row in _read("mbpp", split, path, revision, fault_of)
    )


DATASETS: dict[str, Callable[..., "Dataset"]] = {
    "gsm8k": gsm8k,
    "svamp": svamp,
    "oasst": oasst,
    "oasst_pairs": oasst_pairs,
    "rasbt_instruct": rasbt_instruct,
    "rasbt_pairs": rasbt_pairs,
    "tulu_human_prefs": tulu_human_prefs,
    "mbpp": mbpp,
    **TINY_DATASETS,
}


def _read(
    name: str,
    split: str | None,
    path: str | None,
    revision: str | None,
    fault_of: Callable[[dict], str | None],
    only: tuple[str, ...] = (),
) -> list[dict]:
    source = SOURCES[name]
    if path is not None:
        return read_rows(path, split, fault_of, only=only)
    if source.hub is None:
        raise ValueError(f"{name} is not on the Hub: give dataset_path, a file or folder from {source.origin}")
    return read_rows(source.hub, split, fault_of, source.config, revision, only)


def _dataset(rows: Iterator[dict]) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _side(key: str, tenths: int) -> str:
    return "test" if int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 < tenths else "train"


def _on_side(split: str, rows: list, key_of: Callable[..., str], tenths: int = 1) -> list:
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: this data set is divided into 'train' and 'test'")
    if not (chosen := [row for row in rows if _side(key_of(row), tenths) == split]):
        raise ValueError(f"none of the {len(rows)} rows falls into split {split!r}: too few to divide by a hash")
    return chosen


def _fault_in_texts(row: dict, *columns: str, empty: str | None = None) -> str | None:
    """Fault of a row whose `columns` must hold text; column `empty` may hold an empty one."""
    for column in (*columns, *([empty] if empty else [])):
        value = row.get(column)
        if value is None:
            return f"column {column!r} is missing"
        if not isinstance(value, str):
            return f"column {column!r} holds {type(value).__name__}, not text"
        if not value.strip() and column != empty:
            return f"column {column!r} is empty"
    return None


def _user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def _tested_function(row: dict) -> str | None:
    """The function of `code` that the tests call; `None` where there is none, or one of the two does not parse."""
    try:
        tests, code = ast.parse("\n".join(row["test_list"])), ast.parse(row["code"])
    except (SyntaxError, ValueError):
        return None
    called = {node.func.id for node in ast.walk(tests) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
    defined = [node.name for node in code.body if isinstance(node, ast.FunctionDef) and node.name in called]
    return defined[-1] if defined else None


def _rasbt_prompt(row: dict) -> str:
    return f"{row['instruction']}\n\n{row['input']}" if row["input"].strip() else row["instruction"]


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def _solve(node: ast.AST) -> Fraction:
    """Value of an equation; `KeyError` for anything but numbers and the four operations."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    return _OPERATORS[type(getattr(node, "op", None))](_solve(node.left), _solve(node.right))


def _decimal(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else str(float(number))


def _svamp_solution(equation: str, answer: Fraction) -> str:
    # Python's own unparser drops the brackets that the order of operations makes needless.
    text = re.sub(r"\d+(\.\d+)?", lambda number: _decimal(Fraction(number[0])), equation.strip())
    tree = ast.parse(text, mode="eval").body
    final = f"#### {_decimal(answer)}"
    if isinstance(tree, ast.BinOp) and _solve(tree) == answer:
        return f"{ast.unparse(tree)} = {_decimal(answer)}\n{final}"
    return final


# message_id, parent_id and message_tree_id: only in the flat form; prompt: only in trees.
_OASST_COLUMNS = (
    *("message_id", "parent_id", "message_tree_id", "prompt"),
    *("role", "text", "lang", "rank", "deleted", "review_result"),
)


def _oasst_trees(
    name: str, split: str, path: str | None, revision: str | None, lang: str | None
) -> list[tuple[str, dict]]:
    """Id and root message of each tree on one side of the split."""

    def fault_of(row: dict) -> str | None:
        if fault := _fault_in_texts(row, "message_tree_id"):
            return fault
        messages = [row["prompt"]] if row.get("prompt") else [row]
        for message in messages:
            if not isinstance(message, dict) or (fault := _fault_in_texts(message, "message_id", "role", "text")):
                return fault or "a message is not an object"
            if message["role"] not in _OASST_ROLES:
                return f"unknown role {message['role']!r}"
            messages.extend(message.get("replies") or [])
        return None

    rows = _read(name, None, path, revision, fault_of, _OASST_COLUMNS)
    children: dict[str | None, list[dict]] = defaultdict(list)
    for row in rows:
        if not row.get("prompt"):
            children[row.get("parent_id")].append(row)
            row["replies"] = children[row["message_id"]]
    trees = [(row["message_tree_id"], row["prompt"]) for row in rows if row.get("prompt")]
    trees += [(row["message_tree_id"], row) for row in children[None]]
    trees = [(tree, root) for tree, root in trees if lang in (None, root.get("lang"))]
    return _on_side(split, trees, lambda tree: tree[0])


_OASST_ROLES = {"prompter": "user", "assistant": "assistant"}


def _turns(messages: list[dict]) -> list[dict]:
    return [{"role": _OASST_ROLES[message["role"]], "content": message["text"]} for message in messages]


def _replies(message: dict) -> list[dict]:
    return [
        reply
        for reply in message.get("replies") or []
        if not reply.get("deleted") and reply.get("review_result") is not False
    ]


def _ranked(question: dict) -> list[dict]:
    return sorted((reply for reply in _replies(question) if reply.get("rank") is not None), key=lambda r: r["rank"])


def _best_lines(line: list[dict]) -> Iterator[list[dict]]:
    """Conversations that begin with `line` (which ends in a question) and take the best reply at every fork."""
    if not (replies := _replies(line[-1])):
        return
    # Unranked siblings stand in no order of merit: their ids decide, which no rewriting of the file changes.
    best = (_ranked(line[-1]) or sorted(replies, key=lambda reply: reply["message_id"]))[0]
    answered = [*line, best]
    longer = [more for question in _replies(answered[-1]) for more in _best_lines([*answered, question])]
    yield from longer or [answered]


def _lines_to_questions(line: list[dict]) -> Iterator[list[dict]]:
    """Every path from the root to a question, `line` (which ends in one) first."""
    yield line
    for reply in _replies(line[-1]):
        for question in _replies(reply):
            yield from _lines_to_questions([*line, reply, question])
