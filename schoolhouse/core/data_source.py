"""Record of a data set that a run trained on; the run manifest stores it."""

from typing import Literal

from pydantic import BaseModel, Field


class Overlap(BaseModel):
    """
    Overlap of training prompts with one eval set.

    Args:
        train_rows: Training rows that overlap an item of the eval set.
        train_share: Their share of all training rows.
        train_ids: Their indices; not stored.
        eval_rows: Items of the eval set that a training row overlaps.
        eval_share: Their share of all items.
        eval_ids: Their indices; not stored. The other items are the uncontaminated ones.
    """

    train_rows: int
    train_share: float
    train_ids: list[int] = Field(default=[], exclude=True)
    eval_rows: int
    eval_share: float
    eval_ids: list[int] = Field(default=[], exclude=True)


class DataSource(BaseModel):
    """
    One data set in one split.

    Args:
        name: Name of the data set, as the recipe has it.
        location: Path, Hub id or address that was read; `"generated"` where a function made the rows.
        hub_id: Hub id of the data set, also where a local copy was read.
        config: Configuration on the Hub.
        revision: Commit on the Hub, or the revision that was asked for.
        kind: Key of [`schoolhouse.data.columns.KINDS`].
        rows: Rows that were read, without malformed and dropped ones.
        used_rows: Rows that are in the mixture.
        weight: Weight in the mixture.
        malformed: Rows left out as malformed.
        malformed_rows: `"file:line: reason"` for the first of them.
        sha256: Hash of the rows' content and order.
        license: SPDX identifier.
        exact_duplicates: Training rows that repeat an earlier one.
        overlap: Name of an eval set -> what the training prompts share with it.
        dropped_overlap: Training rows left out by `drop_overlap`.
    """

    role: Literal["train", "test"]
    name: str
    location: str
    hub_id: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str
    kind: str
    rows: int
    used_rows: int
    weight: float | None = None
    malformed: int = 0
    malformed_rows: list[str] = []
    sha256: str
    license: str | None = None
    exact_duplicates: int | None = None
    overlap: dict[str, Overlap] | None = None
    dropped_overlap: int | None = None
