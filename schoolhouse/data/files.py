"""Data files on disk: which of a folder's files are a split, and the rows of a JSON file with their lines."""

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from schoolhouse.core.files import parse_json


# Suffix of a file -> name of the reader in `datasets`.
_READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_KNOWN = ".jsonl, .json, .csv, .tsv (each also .gz) or .parquet"
# Environment variable: GiB that a compressed file may unpack to, 2 by default.
MAX_UNPACKED = "SCHOOLHOUSE_MAX_UNPACKED_GB"
_LONGEST_LINE = 1 << 28  # bytes
# First bytes of xz, bzip2, zip, zstd, lz4, 7z and rar files.
_PACKED = re.compile(rb"\xfd7zXZ|BZh\d1AY&SY|PK[\x03\x05\x07]|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18|7z\xbc\xaf|Rar!")
SPLIT_NAMES = ("train", "test", "validation", "valid", "val", "dev", "eval")


class MissingSplitError(ValueError):
    """The data set is there, but not the split that was asked for."""


def file_type(path: Path) -> str | None:
    """`"json"`, `"csv"`, `"tsv"` or `"parquet"` by the name of a file, `None` for any other."""
    return _READERS.get(Path(path.name.removesuffix(".gz")).suffix)


def is_saved_dataset(path: Path) -> bool:
    """Check if a folder was written by `save_to_disk` of `datasets`."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


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
    with _Gunzipped.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        if file.name.removesuffix(".gz").endswith(".json"):
            text = stream.read()
            is_list = text.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
            try:
                value = parse_json(text)
            except ValueError as error:
                if is_list:
                    raise ValueError(f"{file} is not valid JSON: {error}") from None
                value = None  # JSON Lines, whatever the name says
            if value is not None:
                for number, element in enumerate(_records(value)):
                    yield f"{file} row {number}", _row_or_reason(element)
                return
            stream = io.BytesIO(text)
        number = 0
        while line := stream.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"{file}:{number} is longer than {_LONGEST_LINE:,} bytes: write a row to a line")
            if line.removeprefix(codecs.BOM_UTF8).strip():
                yield f"{file}:{number}", _parse(line)


def _records(value: Any) -> list[Any]:
    """Records of a JSON document: the document itself, or the only list of records in it, as in `{"data": [...]}`."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return [value]
    lists = {
        name: part for name, part in value.items() if isinstance(part, list) and part and isinstance(part[0], dict)
    }
    # The turns of a single conversation are no records.
    is_one = {"messages", "conversations"} & set(lists) or len(lists) != 1
    return [value] if is_one else next(iter(lists.values()))


def _parse(line: bytes) -> dict[str, Any] | str:
    try:
        return _row_or_reason(parse_json(line))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    except ValueError as error:
        return f"not JSON: {error}"


def _row_or_reason(value: Any) -> dict[str, Any] | str:
    if not isinstance(value, dict):
        return f"not an object but {type(value).__name__}"
    try:
        # Half a surrogate pair is JSON, but no text that Arrow could hold.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        return "not UTF-8 text"
    return value


def check_size(file: Path, name: str | None = None) -> None:
    """
    Refuse a file of a few kilobytes that would fill memory or disk, before `datasets` unpacks it.

    Args:
        file (`Path`):
            A .csv, .csv.gz or .parquet file.
        name (`str`, *optional*):
            What messages call it, where it was downloaded; its path by default.

    Raises:
        `ValueError`: more than `SCHOOLHOUSE_MAX_UNPACKED_GB` are in it, it is damaged, or it is packed in another way.
    """
    with file.open("rb") as stream:
        head = stream.read(10)
    if file.suffix == ".parquet":
        _check_parquet(file)
    elif head.startswith(b"\x1f\x8b"):
        with _Gunzipped.open(file, name) as stream:
            while stream.read(1 << 20):
                pass
    # `datasets` looks at the first bytes and not at the name.
    elif _PACKED.match(head):
        raise ValueError(f"{name or file} is packed in a way that is not read: unpack it, or pack it with gzip")


def _limit() -> float:
    given = os.environ.get(MAX_UNPACKED, "2")
    try:
        return float(given) * 2**30
    except ValueError:
        raise ValueError(f"{MAX_UNPACKED}={given!r}: give a number, in GiB") from None


def _refuse_size(name: str | Path, size: float) -> NoReturn:
    raise ValueError(
        f"{name} unpacks to more than {_limit() / 2**30:g} GiB ({size / 2**30:.1f} so far): if you trust it, "
        f"set {MAX_UNPACKED} to a larger number"
    )


class _Gunzipped(io.RawIOBase):
    """Content of a .gz file, up to the limit."""

    def __init__(self, file: Path, name: str | None = None):
        self._name, self._stream, self._size, self._limit = name or file, gzip.GzipFile(file), 0, _limit()

    @classmethod
    def open(cls, file: Path, name: str | None = None) -> BinaryIO:
        return io.BufferedReader(cls(file, name), 1 << 20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._stream.readinto(buffer)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{self._name} is no whole gzip file: {error}") from None
        self._size += count
        if self._size > self._limit:
            _refuse_size(self._name, self._size)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _check_parquet(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    limit = _limit()
    try:
        metadata = pq.read_metadata(file)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        columns = [group.column(index) for group in groups for index in range(group.num_columns)]
        # A value takes a few bytes once it is read, also a missing one, of which runs are packed.
        size = sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in columns)
        texts = [column for column in columns if column.physical_type == "BYTE_ARRAY"]
        # A text that many rows have stands once in the file, as a dictionary's entry, and in each row once it is read.
        if size <= limit < sum(column.num_values * column.total_uncompressed_size for column in texts):
            paths = sorted({column.path_in_schema for column in texts})
            reader = pq.ParquetFile(file, read_dictionary=paths)
            for batch in reader.iter_batches(batch_size=10_000, columns=paths):
                size += sum(map(_text_size, batch.columns))
                if size > limit:
                    break
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    if size > limit:
        _refuse_size(file, size)


def _text_size(array: Any) -> int:
    """Bytes of all texts in an Arrow array, in which they are entries of dictionaries."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.DictionaryArray):
        return pc.sum(pc.take(pc.binary_length(array.dictionary), array.indices)).as_py() or 0
    if not pa.types.is_nested(array.type):
        return 0
    inside = array.flatten()
    return sum(map(_text_size, inside)) if isinstance(inside, list) else _text_size(inside)
