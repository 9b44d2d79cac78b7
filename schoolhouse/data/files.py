"""Data files on disk: which of a folder's files are a split, and the rows of a JSON file with their lines."""

import codecs
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


# Suffix of a file -> name of the reader in `datasets`.
_READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_KNOWN = ".jsonl, .json, .csv (each also .gz) or .parquet"
SPLIT_NAMES = ("train", "test", "validation", "valid", "val", "dev", "eval")


class MissingSplitError(ValueError):
    """The data set is there, but not the split that was asked for."""


def file_type(path: Path) -> str | None:
    """`"json"`, `"csv"` or `"parquet"` by the name of a file, `None` for any other."""
    return _READERS.get(Path(path.name.removesuffix(".gz")).suffix)


def find_files(path: Path, split: str | None) -> list[Path]:
    """
    Files that hold a split, or all files without one.

    Args:
        path (`Path`):
            A file, or a folder with files named `split.jsonl`, `split-00000-of-00002.parquet` and such, or with a
            sub-folder per split; also in its sub-folder `data`, where the Hub has them. A single file of any name is
            the train split.

    Raises:
        `MissingSplitError`: if only other splits are there. `ValueError`: if no data is.
    """
    if path.is_file():
        if file_type(path) is None:
            raise ValueError(f"{path} is no data file: wanted is {_KNOWN}")
        named = _split_named_by(path)
        # One file never serves two splits: training on the test rows must not happen by leaving out a folder.
        if split is not None and split != (named if named in SPLIT_NAMES else "train"):
            fix = f"set the split to {named!r}" if named in SPLIT_NAMES else "give a folder with a file for each split"
            raise MissingSplitError(f"{path} is not read as split {split!r}: {fix}, or rename it {split}.*")
        return [path]
    files = [*sorted(path.glob("*")), *sorted(path.glob("[!.]*/*"))]
    files = [file for file in files if file_type(file) and file.is_file()]
    if not files:
        raise ValueError(f"{path} holds no data file: wanted is {_KNOWN}")
    splits = [
        file.parent.name if file.parent not in (path, path / "data") else _split_named_by(file) for file in files
    ]
    if split is None or (split == "train" and len(files) == 1 and splits[0] not in SPLIT_NAMES):
        return files
    if split not in splits:
        raise MissingSplitError(
            f"{path} has no file for split {split!r} (such as {split}.jsonl); it has {sorted(set(splits))}"
        )
    return [file for file, name in zip(files, splits, strict=True) if name == split]


def _split_named_by(file: Path) -> str:
    """`train` for `train.jsonl`, `train-00000-of-00002.parquet` and `train.v2.json.gz`."""
    return re.split(r"[-.]", file.name)[0]


def read_json(file: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place and row, or place and the reason why there is none, for each line or array element that is not blank."""
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
        if file.name.removesuffix(".gz").endswith(".json"):
            text = stream.read().removeprefix(codecs.BOM_UTF8)
            if text.lstrip()[:1] == b"[":
                try:
                    elements = json.loads(text)
                except ValueError as error:
                    raise ValueError(f"{file} is not valid JSON: {error}") from None
                for number, element in enumerate(elements):
                    yield f"{file} row {number}", _row_or_reason(element)
                return
            stream.seek(0)
        for number, line in enumerate(stream, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                yield f"{file}:{number}", _parse(line)


def _parse(line: bytes) -> dict[str, Any] | str:
    try:
        return _row_or_reason(json.loads(line.decode()))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except UnicodeError:
        return "not UTF-8 text"
    except RecursionError:
        return "not JSON: nested too deep"


def _row_or_reason(value: Any) -> dict[str, Any] | str:
    if not isinstance(value, dict):
        return f"not an object but {type(value).__name__}"
    try:
        # Half a surrogate pair is JSON, but no text that Arrow could hold.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        return "not UTF-8 text"
    return value
