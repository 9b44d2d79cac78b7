"""Data that a recipe trains on, with its record."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schoolhouse.core.data_source import DataSource


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class LoadedData:
    """
    Rows that a recipe trains on.

    Args:
        train (`datasets.Dataset`):
            Training rows; in a mixture the column `source` names the data set of each (a `source` of its own is kept).
        test (`datasets.Dataset` or `None`):
            Rows for the loss during training, `None` without a test split.
        sources (`list[DataSource]`):
            A record for each data set and split.
    """

    train: "Dataset"
    test: "Dataset | None"
    sources: list[DataSource]
