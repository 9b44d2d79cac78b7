"""Data sets as YAML files: those of `data/`, known by name, and the user's own, known by path."""

import hashlib
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from schoolhouse.config.paths import shipped
from schoolhouse.config.user_code import load_function
from schoolhouse.config.yaml_file import YamlFile, read_yaml
from schoolhouse.data.columns import missing_text, prompt_text
from schoolhouse.data.files import MissingSplitError
from schoolhouse.data.loading import LoadReport, Table, open_table, read_rows, rename_columns, to_dataset


if TYPE_CHECKING:
    from datasets import Dataset


class HashSplit(BaseModel):
    """
    Split by a hash: the same rows are in the test split on every machine and from every copy of the data.

    Args:
        by_hash_of (`str`):
            Column, after conversion, whose SHA-256 decides: rows with the same value are in the same split. It hashes
            the prompt's text where the column holds messages.
        test_tenths (`int`, *optional*, defaults to `1`):
            Tenths of the values that belong to the test split.
    """

    model_config = ConfigDict(frozen=True)

    by_hash_of: str
    test_tenths: int = Field(default=1, ge=1, le=9)

    def split_of(self, row: dict[str, Any]) -> str:
        """`"train"` or `"test"`."""
        value = row[self.by_hash_of]
        text = prompt_text({self.by_hash_of: value}) if isinstance(value, list) else str(value)
        return "test" if int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10 < self.test_tenths else "train"


class DatasetSpec(BaseModel):
    """
    Content of a data set's YAML file.

    One of `hub_id`, `url`, `path` and `rows` says where the rows come from; without any of them the data set needs a
    `dataset_path`. A function is named `package.module:function`, or `file.py:function` beside the YAML file.

    Args:
        description (`str`, *optional*):
            What the data set holds, with its paper and its columns.
        hub_id (`str`, *optional*):
            Data set on the Hub.
        url (`str`, *optional*):
            `https://` address of a JSON file.
        path (`str`, *optional*):
            Local file or folder, relative to the YAML file.
        rows (`str`, *optional*):
            Function that makes the rows: called with `split` and the parameters, it returns or yields a `dict` a row.
        config (`str`, *optional*):
            Configuration on the Hub.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub.
        license (`str`, *optional*):
            SPDX identifier of the license.
        origin (`str`, *optional*):
            The project that made the data set.
        split (`"upstream"` or [`HashSplit`], *optional*, defaults to `"upstream"`):
            The splits of the files or the Hub, or a split of all rows by a hash.
        splits (`dict[str, dict]`, *optional*):
            With `rows`: the splits, and parameters of each.
        columns (`dict[str, str]`, *optional*):
            TRL's column names to the data set's own, where renaming is all that is needed.
        function (`str`, *optional*):
            Function that converts the rows: called with the upstream rows and the parameters, it returns or yields the
            rows in TRL's columns.
        validate (`str`, *optional*):
            With `function`: called with an upstream row, returns an error text for a malformed one, else `None`.
        required_columns (`list[str]`, *optional*):
            With `function`: upstream columns that must hold text.
        read_columns (`list[str]`, *optional*):
            With `function`: upstream columns that are read; all by default.
        parameters (`dict[str, Any]`, *optional*):
            Further arguments of `function` or `rows`.
        shown_tests (`int`, *optional*):
            Number of each row's `tests` that are appended to its prompt, and so moved to a column `shown_tests`: the
            tests that stay are graded and shown nowhere. Without it the prompts are left as they are.
    """

    model_config = ConfigDict(frozen=True)

    description: str | None = None
    hub_id: str | None = None
    url: str | None = Field(default=None, pattern="^https://")
    path: str | None = None
    rows: str | None = None
    config: str | None = None
    revision: str | None = None
    license: str | None = None
    origin: str | None = None
    split: Literal["upstream"] | HashSplit = "upstream"
    splits: dict[str, dict[str, Any]] | None = None
    columns: dict[str, str] | None = None
    function: str | None = None
    validate_function: str | None = Field(default=None, alias="validate")  # pydantic's own name is `validate`
    required_columns: list[str] = []
    read_columns: list[str] = []
    parameters: dict[str, Any] = {}
    shown_tests: int | None = Field(default=None, ge=0)

    _name: str = PrivateAttr()
    _file: YamlFile = PrivateAttr()

    @property
    def location(self) -> str:
        """Hub id, address or path of the rows; `"generated"` where a function makes them, `""` where none is given."""
        path = str(self._beside(self.path)) if self.path else ""
        return self.hub_id or self.url or path or ("generated" if self.rows else "")

    def files(self) -> list[Path]:
        """Local files that decide which rows the data set has: the YAML file, data and code beside it."""
        functions = [name.rpartition(":")[0] for name in (self.rows, self.function, self.validate_function) if name]
        names = [self.path, *(name for name in functions if name.endswith(".py"))]
        return [self._file.path, *(self._beside(name) for name in names if name)]

    def error(self, key: str, message: str) -> ValueError:
        """Error that names file, line and key."""
        return self._file.error((key,), message)

    def load_function(self, key: str) -> Callable[..., Any]:
        """Function that a key names."""
        try:
            return load_function(self._file.values[key], self._file.path.parent)
        except ValueError as error:
            raise self.error(key, str(error)) from None

    def call(self, key: str, *arguments: Any, max_rows: int | None = None, **parameters: Any) -> list[dict[str, Any]]:
        """First rows of the function that a key names; an exception in it becomes one line with the key's place."""
        function = self.load_function(key)
        try:
            return list(islice(function(*arguments, **parameters), max_rows))
        except Exception as error:
            name = self._file.values[key]
            raise self.error(key, f"{name} raised {type(error).__name__}: {error}") from error

    def check_keys(self) -> None:
        """Raise a `ValueError` where keys contradict each other."""
        given = list(self._file.values)
        sources = [key for key in given if key in ("hub_id", "url", "path", "rows")]
        if len(sources) > 1:
            raise self.error(sources[1], f"excludes {sources[0]}: the rows come from one place")
        if self.rows and not self.splits:
            raise self.error("rows", "needs splits: the names of the splits, such as {train: {}, test: {}}")
        needed = {"splits": "rows"} | dict.fromkeys(("validate", "required_columns", "read_columns"), "function")
        for key in given:
            if key in needed and needed[key] not in given:
                raise self.error(key, f"has no effect without {needed[key]}")
        for key, other in (("columns", "function"), ("columns", "rows"), ("function", "rows"), ("split", "rows")):
            if key in given and other in given:
                raise self.error(key, f"has no effect with {other}, which decides it alone")

    def _beside(self, name: str) -> Path:
        return self._file.path.parent / Path(name).expanduser()


@cache
def dataset_names() -> list[str]:
    """Names of the data sets that Schoolhouse ships, such as `"gsm8k"` and `"tiny/sft"`."""
    folder = shipped("data")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def is_dataset_spec(name: str) -> bool:
    """Check if a name is that of a shipped data set, or of a YAML file."""
    return name in dataset_names() or name.endswith((".yaml", ".yml"))


def load_dataset_spec(name: str) -> DatasetSpec:
    """
    Read the description of a data set, one of [`dataset_names`] or the path of a YAML file.

    Raises:
        `ValueError`: a mistake in the file; one line that names file, line and key.
    """
    file = read_yaml(shipped(f"data/{name}.yaml") if name in dataset_names() else name)
    spec = file.parse(DatasetSpec)
    spec._name, spec._file = name, file
    spec.check_keys()
    return spec


def open_dataset(
    spec: DatasetSpec,
    split: str,
    path: str | None = None,
    revision: str | None = None,
    max_rows: int | None = None,
    report: LoadReport | None = None,
    **parameters: Any,
) -> Table:
    """
    Rows of a data set in TRL's columns, before they are checked.

    Args:
        path (`str`, *optional*):
            Local file or folder that replaces the Hub.
        revision (`str`, *optional*):
            Branch, tag or commit on the Hub, instead of that of the description.
        max_rows (`int`, *optional*):
            Number of rows, from the top.
        report ([`LoadReport`], *optional*):
            Takes malformed upstream rows and the commit.
        **parameters (`Any`):
            Parameters of its function, instead of those of the description.

    Raises:
        `ValueError`: there is no such split or no data, over 1 % of the rows are malformed, a function fails.
    """
    if spec.rows and spec.splits:
        if split not in spec.splits:
            known = f"there is no split {split!r}; known are {', '.join(spec.splits)}"
            raise MissingSplitError(str(spec.error("splits", known)))
        given = {**spec.parameters, **spec.splits[split], **parameters}
        return _with_shown_tests(spec, Table(spec.rows, spec.call("rows", split, max_rows=max_rows, **given)))
    location = path or spec.location
    if not location:
        raise ValueError(f"{spec._name} is not on the Hub: give dataset_path, a file or folder from {spec.origin}")
    by_hash = spec.split if isinstance(spec.split, HashSplit) else None
    if by_hash and split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: this data set is divided into 'train' and 'test'")
    read_split = None if by_hash else split  # a hash divides the rows of all splits that upstream has
    config, revision = (None, None) if path else (spec.config, revision or spec.revision)
    if spec.function:
        own = spec.load_function("validate") if spec.validate_function else lambda row: None

        def validate(row: dict[str, Any]) -> str | None:
            return missing_text(row, spec.required_columns) or own(row)

        rows = read_rows(location, read_split, validate, config, revision, spec.read_columns, report)
        table = Table(spec.function, spec.call("function", rows, **{**spec.parameters, **parameters}))
    else:
        table = open_table(location, read_split, config, revision, report=report)
        if spec.columns:
            rename_columns(table, spec.columns)
    if by_hash:
        table = _select_split(spec, by_hash, table, split)
    if max_rows is not None:
        table = table.select(range(min(max_rows, len(table.rows))))
    return _with_shown_tests(spec, table)


def load_rows(
    name: str,
    split: str = "train",
    path: str | None = None,
    revision: str | None = None,
    max_rows: int | None = None,
    **parameters: Any,
) -> "Dataset":
    """
    Rows of a data set with all its columns, for an evaluation or a test.

    Args:
        name (`str`):
            One of [`dataset_names`], or the path of a YAML file.
        split (`str`, *optional*, defaults to `"train"`):
            Split to read.
        path, revision, max_rows, **parameters:
            As in [`open_dataset`].
    """
    from datasets import Dataset

    spec = load_dataset_spec(name)
    table = open_dataset(spec, split, path, revision, max_rows, **parameters)
    if (spec.function or spec.rows) and spec.shown_tests is None:
        return Dataset.from_list(table.rows, on_mixed_types="use_json")
    return to_dataset(table)


def _with_shown_tests(spec: DatasetSpec, table: Table) -> Table:
    """The table whose prompts show as many tests as the key `shown_tests` says; a row without tests is malformed."""
    if spec.shown_tests is None:
        return table

    from schoolhouse.data.shown_tests import show_tests

    rows: list[dict[str, Any] | str] = []
    for row in table.rows:
        try:
            rows.append(row if isinstance(row, str) else show_tests(row, spec.shown_tests))
        except ValueError as error:
            rows.append(str(error))
    return Table(table.label, rows, table.places)


def _select_split(spec: DatasetSpec, rule: HashSplit, table: Table, split: str) -> Table:
    has_column = [isinstance(row, dict) and row.get(rule.by_hash_of) not in (None, "", []) for row in table.rows]
    if not any(has_column):
        raise spec.error("split", f"no row has the column {rule.by_hash_of!r}, by which the rows are divided")
    # A row without the column is malformed: it is reported with the train split.
    sides = [rule.split_of(row) if known else "train" for row, known in zip(table.rows, has_column, strict=True)]
    if split not in sides:
        raise ValueError(f"none of the {len(sides)} rows falls into split {split!r}: too few to divide by a hash")
    return table.select([index for index, side in enumerate(sides) if side == split])
