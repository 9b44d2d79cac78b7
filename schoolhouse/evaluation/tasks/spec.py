"""Part of a task file that all kinds of tasks share: where rows come from, and how they become items."""

from __future__ import annotations

import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.paths import as_path
from schoolhouse.config.user_code import load_function
from schoolhouse.config.yaml_file import YamlFile
from schoolhouse.core.rows import is_missing
from schoolhouse.evaluation.results import EvalSample, PreferenceReport
from schoolhouse.evaluation.tasks.items import Item, Messages, Row, columns_in, text_of


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from schoolhouse.core.generation import Sample, Sampling


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerationPlan:
    """Token ids of each item's prompt, and how completions are drawn: `num_samples` for each item."""

    prompts: list[list[int]]
    sampling: Sampling
    num_samples: int


@dataclass(frozen=True)
class LoadedModel:
    """
    A model in evaluation mode, ready for use: a language model, or for pairs a reward model.

    Args:
        batch_size (`int`):
            Most sequences of a batch.
        draw (`Callable`):
            Draws the completions of a [`GenerationPlan`], item by item; those in the cache are not drawn again.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    draw: Callable[[GenerationPlan], list[Sample]]


class Task(BaseModel, ABC):
    """
    Keys that all kinds of tasks share. An expression is the name of a column, or a text with `{column}` in it.

    Args:
        version (`int`, *optional*, defaults to `1`):
            Raised with every change of items, prompt or scorer; results of different versions are not compared.
        description (`str`, *optional*):
            One line for `--list`.
        num_items (`int`, *optional*):
            Number of items for `--list`, of which a data set that changed is warned.
        dataset (`str`, *optional*):
            Name of a data set in `data/`, path of a data file or a data set's YAML file (relative to the task file),
            or Hub id. Without `dataset` and `rows` the user gives a file with `--task_paths`.
        dataset_config (`str`, *optional*):
            Configuration of a Hub data set.
        split (`str`, *optional*, defaults to `"test"`):
            Split that is asked.
        rows (`str`, *optional*):
            Function that returns the rows as dicts, instead of a data set: `file.py:function`.
        id (`str`, *optional*, defaults to `"id"`):
            Expression of an item's name; `{number}` is the row's number from 0, which is also the name where the
            column is missing.
        level (`str`, *optional*):
            Column by which results are broken down.
        cluster (`str`, *optional*):
            Column that is equal in items of one source, whose scores are correlated.
        limit (`int`, *optional*):
            Rows that are read, from the top, unless the user says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    version: int = Field(default=1, ge=1)
    description: str = ""
    num_items: int | None = Field(default=None, ge=1)
    dataset: str | None = None
    dataset_config: str | None = None
    split: str = "test"
    rows: str | None = None
    id: str = "id"
    level: str | None = None
    cluster: str | None = None
    limit: int | None = Field(default=None, ge=1)

    higher_is_better: ClassVar[bool] = True
    metric: ClassVar[str] = "accuracy"
    model_type: ClassVar[Literal["CAUSAL_LM", "SEQ_CLS"]] = "CAUSAL_LM"

    _name: str = PrivateAttr("")
    _file: YamlFile | None = PrivateAttr(None)
    _rows: Sequence[Row] | None = PrivateAttr(None)

    @property
    def asked_as(self) -> str:
        """Kind of the task for `--list`; of a generating task its scorer."""
        return self.kind

    @property
    def name(self) -> str:
        """Name in results: that of the file without `.yaml`."""
        return self._name

    def attach(self, file: YamlFile) -> None:
        """Note the file that the task was read from: its name, its folder and its lines."""
        self._name, self._file = file.path.stem, file

    def attach_rows(self, name: str, rows: Sequence[Row]) -> None:
        """Note name and rows of a task that was read from no file."""
        self._name, self._rows = name, rows

    @property
    def runs_programs(self) -> bool:
        """Whether it runs programs that the model writes, which only Linux can."""
        return False

    @property
    def folder(self) -> Path:
        """Folder from which the paths in the file start."""
        return self._file.path.parent if self._file else Path()

    @abstractmethod
    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        """Return the samples of the items, in order."""

    @abstractmethod
    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        """Return prompt and reference of a row; a `ValueError` says what is wrong with it."""

    def report(
        self, loaded: LoadedModel, items: Sequence[Item], samples: Sequence[EvalSample]
    ) -> PreferenceReport | None:
        """Return what the results of this kind have beyond the summary."""
        return None

    def prepare(self) -> None:
        """Raise an error that would otherwise only show after the model has answered."""

    def build(self, limit: int | None = None, path: str | None = None) -> list[Item]:
        """
        Return the items of the task.

        Args:
            limit (`int`, *optional*):
                Rows to read, from the top.
            path (`str`, *optional*):
                Local file or folder to read instead of the data set.

        Raises:
            ValueError: if there are no rows, two items have the same id, or more than 1 % of the rows are malformed.
        """
        self.prepare()
        rows = self.asked_rows(limit or self.limit, path)
        self._check_columns({column for row in rows for column in row})
        before = self.examples(path)
        sources: dict[str, int] = {}
        items = []
        for number, row in enumerate(rows):
            try:
                prompt, reference = self.make_item(row)
            except ValueError as error:
                raise self.error(f"row {number} is malformed: {error}") from None
            if not prompt:  # an empty document has no bits
                continue
            level = row.get(self.level) if self.level and not is_missing(row.get(self.level)) else None
            cluster = sources.setdefault(str(row[self.cluster]), len(sources)) if self.cluster else None
            whole = before(row) + prompt if before else prompt
            items.append(Item(self._item_id(row, number), whole, reference, level, cluster, row))
        if not items:
            raise self.error("it has no items: look at what its data set or path names")
        if len({item.id for item in items}) < len(items):
            raise self.error("it has two items with the same id")
        if self.num_items not in (None, len(items)) and not (limit or path):
            logger.warning(
                f"{self.name}: {len(items)} items where its task file says {self.num_items}: its data set changed"
            )
        return items

    def asked_rows(self, limit: int | None, path: str | None) -> Sequence[Row]:
        """Return the rows that become items."""
        return self._read(self.split, limit, path)

    def examples(self, path: str | None) -> Callable[[Row], Any] | None:
        """Return a function that gives the examples before a row's prompt, of its type; `None` for no examples."""
        return None

    def columns(self) -> list[tuple[str, str]]:
        """Return the keys that name columns, each with a column that some row must have."""
        written = self._file.values if self._file and (self.dataset or self.rows) else {}
        named = [(key, getattr(self, key)) for key in ("id", "level", "cluster") if written.get(key)]
        return [(key, column) for key, text in named for column in columns_in(text) or [text] if column != "number"]

    def error(self, message: str) -> ValueError:
        """Return an error that names the task and its file."""
        place = f"{self._file.path}: " if self._file else ""
        return ValueError(f"{place}task {self.name}: {message}")

    def error_at(self, key: str, message: str) -> ConfigError:
        """Return an error that names the line of a key."""
        return self._file.error((key,), message) if self._file else ConfigError((key,), message)

    def check_keys(self) -> None:
        """Raise a [`ConfigError`] where keys contradict each other or a function cannot be loaded."""
        if self.dataset and self.rows:
            raise self.error_at("rows", "excludes dataset: the rows come from one place")
        if self.dataset_config and not self.dataset:
            raise self.error_at("dataset_config", "has no effect without dataset")
        if self.dataset and not self._beside(self.dataset).exists():
            named = as_path(self.dataset)  # a path by its form, or one that exists
            if named is not None and not named.exists():
                raise self.error_at("dataset", f"{self._beside(self.dataset)} does not exist, seen from {Path.cwd()}")
        if self.rows:
            try:
                load_function(self.rows, self.folder)
            except ValueError as error:
                raise self.error_at("rows", str(error)) from None

    def files(self) -> list[Path]:
        """Return the local files that decide about items and scores: the task file, and data and code beside it."""
        functions = [name.rpartition(":")[0] for name in self.functions() if name.rpartition(":")[0].endswith(".py")]
        names = [self.dataset] if self.dataset and self._beside(self.dataset).exists() else []
        own = [self._file.path] if self._file else []
        return own + [self._beside(name) for name in [*names, *functions]]

    def functions(self) -> list[str]:
        """Return the names of the functions that the file names."""
        return [self.rows] if self.rows else []

    def _beside(self, path: str) -> Path:
        return self.folder / Path(path).expanduser()

    def _item_id(self, row: Row, number: int) -> str:
        if columns_in(self.id):
            return text_of(self.id, {**row, "number": number})
        given = row.get(self.id)
        return str(number if is_missing(given) else given)

    def _check_columns(self, present: set[str]) -> None:
        for key, column in self.columns():
            if present and column not in present:
                raise self.error_at(key, f"no row has the column {column!r}; {nearest(column, sorted(present))}")

    def _read(self, split: str, limit: int | None, path: str | None) -> Sequence[Row]:
        from schoolhouse.data.loading import read_rows
        from schoolhouse.data.specs import dataset_names, is_dataset_spec, load_rows

        if self._rows is not None:
            return self._rows[:limit]
        if self.rows:
            function = load_function(self.rows, self.folder)
            try:
                rows = [dict(row) for row in itertools.islice(function(path=path) if path else function(), limit)]
            except Exception as error:
                raise self.error_at("rows", f"{self.rows} raised {type(error).__name__}: {error}") from error
            return rows
        if not self.dataset and not path:
            raise self.error(f"it has no data set of its own: --task_paths '{{{self.name}: FILE}}'")
        location = self.dataset or ""
        if self.dataset and self.dataset not in dataset_names() and self._beside(self.dataset).exists():
            location = str(self._beside(self.dataset))
        if is_dataset_spec(location):
            return load_rows(location, split, path=path, max_rows=limit).to_list()
        # One file that the user names is the split that is asked, whatever it is called.
        is_file = Path(path or location).is_file() and split == self.split
        config = None if path else self.dataset_config
        present: set[str] = set()

        def malformed(row: dict[str, Any]) -> str | None:
            present.update(row)
            return self._malformed(row)

        try:
            return read_rows(path or location, None if is_file else split, malformed, config)[:limit]
        except ValueError:
            self._check_columns(present)  # a column that no row has is a mistake in the task file, not in the rows
            raise

    def _malformed(self, row: dict[str, Any]) -> str | None:
        try:
            self.make_item(row)
        except ValueError as error:
            return str(error)
        return None

    def _sample(self, item: Item, index: int = 0, **fields: Any) -> EvalSample:
        groups = {"level": item.level, "cluster": item.cluster}
        fields |= {name: value for name, value in groups.items() if value is not None}
        return EvalSample(id=item.id, index=index, prompt=item.prompt, reference=item.reference, **fields)
