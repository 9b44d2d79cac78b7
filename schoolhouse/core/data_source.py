"""Record of a data set that a run trained on; the run manifest stores it."""

from typing import Literal

from pydantic import BaseModel, Field


class Overlap(BaseModel):
    """
    Overlap of training prompts with one eval set.

    Args:
        train_rows (`int`):
            Training rows that overlap an item of the eval set.
        train_share (`float`):
            Their share of all training rows.
        train_ids (`list[int]`):
            Their indices; not stored.
        eval_rows (`int`):
            Items of the eval set that a training row overlaps.
        eval_share (`float`):
            Their share of all items.
        eval_ids (`list[int]`):
            Their indices; not stored. The other items are the uncontaminated ones.
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
        role (`"train"` or `"test"`):
            What the rows are used for.
        name (`str`):
            Name of the data set, as the recipe has it.
        location (`str`):
            Path, Hub id or address that was read; `"generated"` where a function made the rows.
        hub_id (`str`, *optional*):
            Hub id of the data set, also where a local copy was read.
        config (`str`, *optional*):
            Configuration on the Hub.
        revision (`str`, *optional*):
            Commit on the Hub, or the revision that was asked for.
        split (`str`):
            Split that was read.
        kind (`str`):
            Key of [`schoolhouse.data.columns.KINDS`].
        rows (`int`):
            Rows that were read, without malformed and dropped ones.
        used_rows (`int`):
            Rows that are in the mixture.
        weight (`float`, *optional*):
            Weight in the mixture.
        malformed (`int`, *optional*, defaults to `0`):
            Rows left out as malformed.
        malformed_rows (`list[str]`, *optional*):
            `"file:line: reason"` for the first of them.
        sha256 (`str`):
            Hash of the rows' content and order.
        license (`str`, *optional*):
            SPDX identifier of the license.
        exact_duplicates (`int`, *optional*):
            Training rows that repeat an earlier one.
        overlap (`dict[str, Overlap]`, *optional*):
            Name of an eval set -> what the training prompts share with it.
        dropped_overlap (`int`, *optional*):
            Training rows left out by `drop_overlap`.
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
