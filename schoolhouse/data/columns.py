"""TRL's column formats: the one that a data set has, and the errors of its rows."""

from collections.abc import Iterable, Sequence
from typing import Any


# Kind of data set (TRL's name for it) -> its required columns. The first kind that fits is taken.
KINDS: dict[str, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
    "prompt-only": ("prompt",),
}
TRL_COLUMNS = tuple(dict.fromkeys(column for columns in KINDS.values() for column in columns))
ROLES = ("system", "developer", "user", "assistant", "tool")


def missing_text(row: dict[str, Any], columns: Iterable[str]) -> str | None:
    """Error of a row of which one of `columns` holds no text or an empty one; `None` for a valid row."""
    for column in columns:
        value = row.get(column)
        if value is None:
            return f"column {column!r} is missing"
        if not isinstance(value, str):
            return f"column {column!r} holds {type(value).__name__}, not text"
        if not value.strip():
            return f"column {column!r} is empty"
    return None


def kind_of(columns: Iterable[str], wanted: Sequence[str] | None = None) -> str | None:
    """Return the first kind, of the `wanted` ones in order of preference or of all, that fits a data set's columns."""
    present = set(columns)
    return next((kind for kind in wanted or KINDS if present.issuperset(KINDS[kind])), None)


def columns_of(kind: str, present: Iterable[str]) -> tuple[str, ...]:
    """TRL's columns of a kind among those `present`: a preference pair may have a prompt or not."""
    return ("prompt", *KINDS[kind]) if kind == "preference" and "prompt" in present else KINDS[kind]


def require_kind(label: str, names: Iterable[str], wanted: Sequence[str] | None = None) -> str:
    """[`kind_of`] with a `ValueError` that names the expected columns where no kind fits."""
    if kind := kind_of(names, wanted):
        return kind
    columns = "; ".join(" + ".join(KINDS[kind]) for kind in wanted or KINDS)
    raise ValueError(
        f"{label}: the columns {sorted(names)} are not what this stage trains on (wanted: {columns}); "
        "where they only have other names, map them with dataset_columns: {ours: theirs}"
    )


def surplus_of(names: Iterable[str], required: Sequence[str]) -> list[str]:
    """TRL's columns beyond the `required` ones: with two kinds side by side (ultrachat) TRL would have to guess."""
    return sorted(set(TRL_COLUMNS).intersection(names) - set(required))


def form_of(row: dict[str, Any], kind: str) -> str:
    """`"conversational"` where a row holds messages, `"standard"` where it holds text (TRL's names)."""
    return "standard" if isinstance(row[KINDS[kind][0]], str) else "conversational"


def validate_row(row: dict[str, Any], kind: str, columns: Sequence[str]) -> str | None:
    """
    Return what makes a row malformed, naming the column, or `None` for a valid row.

    Args:
        kind (`str`):
            Key of `KINDS`.
        columns (`Sequence[str]`):
            The columns to look at, from [`columns_of`].
    """
    for column in columns:
        value = row.get(column)
        if value is None:
            return f"column {column!r} is missing"
        if isinstance(value, str) and column != "messages":
            error = None if value.strip() else "is empty"
        elif isinstance(value, list) and column != "text":
            error = _validate_messages(value, answered=column != "prompt")
        else:
            wanted = {"text": "text", "messages": "a list of messages"}.get(column, "text or a list of messages")
            error = f"holds {type(value).__name__}, not {wanted}"
        if error:
            return f"column {column!r} {error}"
    if len({isinstance(row[column], str) for column in columns}) > 1:
        return f"columns {', '.join(map(repr, columns))} mix text with messages"
    return None


def _validate_messages(messages: list[Any], answered: bool) -> str | None:
    if not messages:
        return "is empty"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") is None:
            return f"has no role in message {number}"
        role, content = message["role"], message.get("content")
        if role not in ROLES:
            return f"has the unknown role {role!r} in message {number} (known: {', '.join(ROLES)})"
        if message.get("tool_calls"):
            continue
        if content is None:
            return f"has no content in message {number}"
        # A list of parts is the multimodal form of content.
        if not isinstance(content, str | list):
            return f"has {type(content).__name__} as content of message {number}"
        if role in ("user", "assistant") and not (content.strip() if isinstance(content, str) else content):
            return f"is empty in message {number} ({role})"
    if answered and all(message["role"] != "assistant" for message in messages):
        return "has no assistant message"
    return None


def prompt_text(row: dict[str, Any]) -> str:
    """
    Prompt of a row of any kind as one text: the part that it could share with an eval prompt.

    The `prompt` where there is one, else the user's turns of `messages` or `chosen`, else the whole `text`. System
    prompts are left out: all rows share them.
    """
    for column, roles in (("prompt", ROLES[2:]), ("messages", ("user",)), ("chosen", ("user",)), ("text", ())):
        if row.get(column) is not None:
            return _joined(row[column], roles)
    raise ValueError(f"a row with the columns {sorted(row)} has no prompt")


def whole_text(row: dict[str, Any]) -> str:
    """All of TRL's columns of a row as one text, by which duplicates are found."""
    columns = ("prompt", "messages", "completion", "chosen", "rejected", "text")
    return "\n".join(_joined(row[column], ROLES) for column in columns if row.get(column) is not None)


def _joined(value: str | list[dict[str, Any]], roles: Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    contents = [message.get("content") or "" for message in value if message["role"] in roles]
    return "\n".join(
        content if isinstance(content, str) else "\n".join(part.get("text") or "" for part in content)
        for content in contents
    )
