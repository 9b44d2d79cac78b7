"""Files that a reader finds complete, old or new, even when the process that writes them is killed."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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
