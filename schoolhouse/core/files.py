"""Files that a reader finds complete, even when their writer is killed, and JSON that others may have written."""

import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn


# No file of ours comes near it; more would exhaust the stack of whoever walks through the value.
_DEEPEST = 100
_TOO_DEEP = f"lists and objects nested more than {_DEEPEST} deep"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; create its folder if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is unique, so that several processes can write the same file; a rename within one folder is atomic.
    file, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            # Without it, a power failure may leave the new name with empty content.
            os.fsync(stream.fileno())
        os.chmod(part, 0o644)  # mkstemp makes the file unreadable for other users
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def write_json(path: Path, value: Any, allow_nan: bool = False) -> None:
    """
    Write a JSON file atomically.

    Args:
        allow_nan (`bool`, *optional*, defaults to `False`):
            Write `NaN` and `Infinity`, which Python reads but JSON does not know: what a diverged trainer logs.
            Without it they are a `ValueError`.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write a JSON Lines file atomically, one value per line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def parse_json(text: str | bytes, finite: bool = False) -> Any:
    """
    Return the value in a JSON text.

    Args:
        text (`str` or `bytes`):
            The text, in UTF-8.
        finite (`bool`, *optional*, defaults to `False`):
            Refuse `NaN` and `Infinity`, which trainers log and JSON does not know.

    Raises:
        `ValueError`: one line, for a syntax error (a `json.JSONDecodeError`), text that is no UTF-8, lists and objects
        nested more than 100 deep, an integer that 64 bits do not hold, and a key that an object has twice.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = (_FINITE if finite else _ANY).decode(text)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # Looking at every value would cost more than reading it, so only where the text leaves it open.
    if text.count("[") + text.count("{") > _DEEPEST or re.search(r"\d{19}", text):
        _check_values(value)
    return value


def load_object(path: Path, finite: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file; no object, or what [`parse_json`] refuses, is a `ValueError` with its path."""
    try:
        value = parse_json(path.read_bytes(), finite)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not valid: it holds no JSON object")
    return value


def _check_values(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST + 1):
        if any(type(item) is int and not -(2**63) <= item < 2**63 for item in level):
            raise ValueError("an integer that 64 bits do not hold: quote it if text is meant")
        inside = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [child for children in inside for child in children]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} twice in one object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# `json.loads` would build a decoder for each text.
_ANY = json.JSONDecoder(object_pairs_hook=_unique)
_FINITE = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
