"""The content of a data set as one number."""

import hashlib
import json
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset


def fingerprint(rows: "Dataset") -> str:
    """
    SHA-256 of the rows' content and order, the same on every machine, from every file format and under every path.

    Args:
        rows (`datasets.Dataset`):
            Rows to sign.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(_without_none(row), sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _without_none(value: Any) -> Any:
    # Arrow fills what a JSON row leaves out with None: both are the same content.
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
