"""Common forms of training data in TRL's columns: Alpaca, ShareGPT, questions with answers, transcripts of pairs.

A form is recognised by its columns. What is read as what is said in the log, and a column that seems to belong to the
question but is not read is named there too.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from schoolhouse.data.columns import ROLES, kind_of


logger = logging.getLogger(__name__)

Row = dict[str, Any]
Message = dict[str, Any]

_QUESTIONS = ("question", "instruction", "query", "problem")
_ANSWERS = ("answer", "output", "response", "solution")
_INPUTS = ("input", "context")  # what an instruction is about
# Columns that a row may leave out.
OPTIONAL = frozenset({*_INPUTS, "system", "history"})
# What a question cannot be answered without, and no form here reads.
_NEVER_READ = ("choices", "options", "passage", "image", "images")
_CONVERSATIONS = ("conversations", "conversation")
# Columns that hold text in any form.
TEXT_COLUMNS = frozenset(
    {"prompt", "completion", "text", "chosen", "rejected", *_QUESTIONS, *_ANSWERS, *_INPUTS, "system"}
)
# Names of roles in ShareGPT's form and in its relatives.
_SPEAKERS = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "bing", "bard"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
    **dict.fromkeys(("observation", "function_response", "tool_response", "function"), "tool"),
}
# A transcript, as Anthropic's HH has them, and a turn in it.
_TRANSCRIPT = re.compile(r"\s*Human:.*?\n\nAssistant:", re.DOTALL)
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class Form:
    """
    A way to read rows.

    Args:
        name (`str`):
            Name for people, such as `"Alpaca"`.
        reading (`str`):
            The columns that are read, and what they become.
        convert (`Callable[[dict], dict]`):
            Returns the columns that a row becomes; raises a `ValueError` for a malformed row.
        reads (`frozenset[str]`):
            Columns that are read, and so are no longer columns of the result.
        unread (`tuple[str, ...]`, *optional*, defaults to `()`):
            Columns with another answer.
    """

    name: str
    reading: str
    convert: Callable[[Row], Row]
    reads: frozenset[str]
    unread: tuple[str, ...] = ()

    def read(self, row: Row) -> Row:
        """Return a row in TRL's columns, itself if it has them already; the columns that are not read stay."""
        converted = self.convert(row)
        if converted == {name: row[name] for name in row if name in self.reads or name in converted}:
            return row
        return {name: value for name, value in row.items() if name not in self.reads} | converted


def find_form(columns: set[str], kinds: Sequence[str]) -> Form | None:
    """
    Return the form of rows with these columns for a stage that trains on one of `kinds`, `None` where the rows are in
    TRL's columns already, or in no form that is known.

    Args:
        columns (`set[str]`):
            Names of the columns.
        kinds (`Sequence[str]`):
            Keys of [`schoolhouse.data.columns.KINDS`].
    """
    if "preference" in kinds:
        return _pairs(columns) if {"chosen", "rejected"} <= columns else None
    # Alpaca's own file has a column `text` too: the whole prompt in one string.
    if kind_of(columns, [kind for kind in kinds if kind != "text"]) is not None:
        return None
    is_for_rl = tuple(kinds) == ("prompt-only",)
    if column := _first(columns, (*_CONVERSATIONS, "messages")):
        return _conversations(column, columns, is_for_rl)
    # A worked solution is trained, and its result is compared with.
    answers = _ANSWERS if is_for_rl else _ANSWERS[::-1]
    question, answer = _first(columns, _QUESTIONS), _first(columns, answers)
    if question is None or (answer is None and not is_for_rl):
        return None
    return _questions(question, answer, columns, is_for_rl)


def unread_columns(columns: set[str]) -> list[str]:
    """Return the columns that seem to belong to a question, beyond TRL's."""
    return sorted(columns & {*_QUESTIONS, *_CONVERSATIONS, *OPTIONAL, *_NEVER_READ})


def plain_messages(messages: Any) -> Any:
    """
    Return messages whose content is text: parts of kind `text` are joined, in any column that holds messages.

    Raises:
        ValueError: for a part that is no text, such as an image.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages
    if not any(isinstance(message.get("content"), list) for message in messages):
        return messages
    return [{**message, "content": _joined_parts(message.get("content"))} for message in messages]


def _joined_parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"holds a part of kind {kind!r}: only text is trained here")
    return "".join(part["text"] for part in content)


def _first(columns: set[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _conversations(column: str, columns: set[str], is_for_rl: bool) -> Form:
    def convert(row: Row) -> Row:
        turns = [_turn(entry, number) for number, entry in enumerate(row.get(column) or [], start=1)]
        if row.get("system") and not (turns and turns[0].get("role") == "system"):
            turns.insert(0, {"role": "system", "content": row["system"]})
        if not is_for_rl:
            return {"messages": turns}
        if turns and turns[-1]["role"] == "assistant":
            return {"prompt": turns[:-1], "answer": turns[-1].get("content"), **_given(row, "answer")}
        return {"prompt": turns}

    name = "ShareGPT" if column in _CONVERSATIONS else "conversations"
    into = "prompt, its last answer → answer" if is_for_rl else "messages"
    read = [column, *({"system"} & columns)]
    return Form(name, f"{' + '.join(reversed(read))} → {into}", convert, frozenset(read))


def _turn(entry: Any, number: int) -> Message:
    """A message of ShareGPT's form, `{from, value}`, or of TRL's, `{role, content}`."""
    if not isinstance(entry, dict):
        raise ValueError(f"turn {number} is no mapping with `from` and `value`")
    if "role" in entry:
        return entry
    speaker, value = entry.get("from"), entry.get("value")
    role = _SPEAKERS.get(str(speaker))
    if role is None:
        raise ValueError(f"turn {number} is from {speaker!r}; known: {', '.join(_SPEAKERS)}")
    if role != "call":
        return {"role": role, "content": value}
    try:
        calls = json.loads(value)
    except (TypeError, ValueError):
        raise ValueError(f"turn {number} from {speaker!r} is no JSON with name and arguments") from None
    functions = [{"type": "function", "function": call} for call in (calls if isinstance(calls, list) else [calls])]
    return {"role": "assistant", "content": "", "tool_calls": functions}


def _questions(question: str, answer: str | None, columns: set[str], is_for_rl: bool) -> Form:
    """Alpaca's form, and questions with answers: the prompt is text, or turns where the rows bring more than one."""
    about = _first(columns, _INPUTS) if question == "instruction" else None
    has_turns = bool({"system", "history"} & columns)

    def convert(row: Row) -> Row:
        prompt = _text(row, question)
        if about and not _is_missing(row.get(about)):
            prompt = f"{prompt}\n\n{_text(row, about)}"
        if has_turns:
            before = [{"role": "system", "content": row["system"]}] if row.get("system") else []
            for number, past in enumerate(row.get("history") or (), start=1):
                before += _past_turns(past, number)
            asked: Any = [*before, {"role": "user", "content": prompt}]
        else:
            asked = prompt
        if is_for_rl:
            return {"prompt": asked} | ({"answer": row.get(answer), **_given(row, "answer")} if answer else {})
        said = _text(row, answer or "")
        return {"prompt": asked, "completion": [{"role": "assistant", "content": said}] if has_turns else said}

    read = [name for name in ("system", "history", question, about) if name and (name in columns)]
    kept = {answer} - {"answer"} if is_for_rl else {answer}
    into = "answer" if is_for_rl else "completion"
    reading = f"{' + '.join(read)} → prompt" + (f", {answer} → {into}" if answer and answer != into else "")
    name = "Alpaca" if question == "instruction" else "questions and answers"
    unread = () if is_for_rl else tuple(name for name in _ANSWERS if name in columns and name != answer)
    return Form(name, reading, convert, frozenset({*read, *kept} - {None}), unread)


def _past_turns(past: Any, number: int) -> list[Message]:
    """An entry of `history`: a pair of question and answer, or a message."""
    if isinstance(past, dict):
        return [_turn(past, number)]
    if not isinstance(past, list | tuple) or [*map(type, past)] != [str, str]:
        raise ValueError(f"column 'history' holds no pair of question and answer: {past!r:.80}")
    return [{"role": "user", "content": past[0]}, {"role": "assistant", "content": past[1]}]


def _is_missing(value: Any) -> bool:
    """Whether a value is `None`, an empty text, or the NaN that tables hold in their place."""
    return value is None or value == "" or value != value


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if _is_missing(value):
        raise ValueError(f"column {column!r} is {'empty' if value == '' else 'missing'}")
    if not isinstance(value, str | int | float):
        raise ValueError(f"column {column!r} holds {type(value).__name__}, not text")
    return str(value)


def _given(row: Row, column: str) -> Row:
    return {column: row[column]} if row.get(column) is not None else {}


def _pairs(columns: set[str]) -> Form | None:
    """Preference pairs: the question once, before the answers, and the answers without it."""
    asked = [name for name in ("prompt", *_CONVERSATIONS, "messages", *_QUESTIONS) if name in columns][:1]
    has_system = "system" in columns
    read = [*({"system"} & columns), *asked]

    def convert(row: Row) -> Row:
        chosen, rejected = (_answer(row.get(side), side) for side in ("chosen", "rejected"))
        prompt = row.get(asked[0]) if asked else None
        if isinstance(prompt, list):
            prompt = [_turn(entry, number) for number, entry in enumerate(prompt, start=1)]
            if asked[0] != "prompt" and prompt and prompt[-1].get("role") == "assistant":
                raise ValueError(f"column {asked[0]!r}, the question of a pair, ends with an answer")
        elif isinstance(prompt, str) and _TRANSCRIPT.match(prompt):
            prompt = [turn for turn in _turns_of_transcript(prompt) if turn["content"]]
            chosen, rejected = (side.strip() if isinstance(side, str) else side for side in (chosen, rejected))
        if isinstance(chosen, str) and isinstance(rejected, str) and not isinstance(prompt, list) and not has_system:
            return {"chosen": chosen, "rejected": rejected} | ({"prompt": prompt} if prompt is not None else {})
        turns = prompt if isinstance(prompt, list) else [] if prompt is None else [{"role": "user", "content": prompt}]
        sides = [
            [{"role": "assistant", "content": side}] if isinstance(side, str) else side for side in (chosen, rejected)
        ]
        if turns:
            turns, *sides = _without_question(turns, sides)
        if row.get("system") and not (turns and turns[0].get("role") == "system"):
            turns = [{"role": "system", "content": row["system"]}, *turns]
        # Without a prompt TRL takes for it the turns that both sides begin with.
        return {"chosen": sides[0], "rejected": sides[1]} | ({"prompt": turns} if turns else {})

    source = f"{' + '.join(read)} → prompt, and the answers without it" if read else "their turns, before the answers"
    return Form("preference pairs", source, convert, frozenset({*read, "chosen", "rejected"}))


def _without_question(turns: list[Message], sides: list[list[Message]]) -> list[list[Message]]:
    """
    Return the question, and the answers without it: many sets repeat it inside of the answers, some with a system
    message that is only there.
    """
    roles = [side[0].get("role") if side else None for side in sides]
    if not {"user", "system"} & {*roles}:
        return [turns, *sides]
    start = int(roles == ["system", "system"] and turns[0].get("role") != "system")
    end = start + len(turns)
    if not (_same(sides[0][:end], sides[1][:end]) and _same(sides[0][start:end], turns)):
        raise ValueError("columns 'chosen' and 'rejected' do not both begin with the question that the row has beside")
    return [sides[0][:start] + turns, *(side[end:] for side in sides)]


def _turns_of_transcript(text: str) -> list[Message]:
    _, *parts = _TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _answer(value: Any, side: str) -> Any:
    """An answer as text or as messages: also a single message, and a transcript whose turns begin with `Human:`."""
    if isinstance(value, dict):
        return [_turn(value, 1)]
    if isinstance(value, list):
        return plain_messages([_turn(entry, number) for number, entry in enumerate(value, start=1)])
    if not isinstance(value, str):
        raise ValueError(f"column {side!r} holds {type(value).__name__}, not text or messages")
    return _turns_of_transcript(value) if _TRANSCRIPT.match(value) else value


def _same(ours: list[Message], theirs: list[Message]) -> bool:
    said = [[(turn.get("role"), str(turn.get("content")).strip()) for turn in turns] for turns in (ours, theirs)]
    return said[0] == said[1]


def in_turns(row: Row) -> Row:
    """Return the texts of a row as turns: the prompt is the user's, all else the assistant's."""
    roles = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
    texts = {column: row[column] for column in roles if isinstance(row.get(column), str)}
    return {column: [{"role": roles[column], "content": text}] for column, text in texts.items()}
