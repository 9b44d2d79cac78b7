"""lineage.json of a shared repository: base model, adapters with the adapters they come from, hash of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schoolhouse.core.escape import one_line
from schoolhouse.core.files import load_object
from schoolhouse.core.fingerprint import file_hash
from schoolhouse.core.models import adapter_hash


LINEAGE_FILE = "lineage.json"


class BaseOnHub(BaseModel):
    """Base model: its Hub id, its commit, and the hash by which run manifests know it."""

    name: str
    revision: str
    hash: str


class LineageStage(BaseModel):
    """
    One adapter of the repository.

    Args:
        name (`str`), folder (`str`):
            Its stage, and its sub-folder, which is empty for the root.
        adapter (`str`), parent (`str` or `None`), reward_models (`list[str]`):
            Hashes of itself, of the adapter that it continues, and of the reward models that it was trained against.
    """

    name: str
    folder: str
    adapter: str
    parent: str | None
    reward_models: list[str]


class Lineage(BaseModel):
    """Content of lineage.json; `files` maps each path to its SHA-256."""

    model_config = ConfigDict(strict=True)

    schema_: Literal[1] = Field(1, alias="schema")
    base: BaseOnHub
    stages: list[LineageStage]
    files: dict[str, str]

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def check_lineage(folder: Path) -> Lineage:
    """
    Compare a downloaded folder with its lineage.json, and return that.

    `HfApi.verify_repo_checksums` compares with what the Hub holds now, also after somebody changed it there. A file
    that is missing or differs, and a path that leads out of the folder, is a `ValueError` that names it.
    """
    path = folder / LINEAGE_FILE
    if not path.is_file():
        raise ValueError(f"the repository has no {LINEAGE_FILE}: it was not pushed by recipes/share.py")
    try:
        lineage = Lineage.model_validate(load_object(path))
    except ValueError as error:  # pydantic's ValidationError is one
        told = one_line(error)
        raise ValueError(f"{LINEAGE_FILE} is not of the form that recipes/share.py writes: {told}") from None
    for name, wanted in lineage.files.items():
        # The cache's own links lead elsewhere, so the name is checked and not where it resolves to.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{LINEAGE_FILE} names a file outside the repository: {one_line(name)}")
        if not (folder / name).is_file():
            raise ValueError(f"{one_line(name)} is named in {LINEAGE_FILE} and missing")
        if file_hash(folder / name) != wanted:
            told = one_line(name)
            raise ValueError(f"{told} is not the file that {LINEAGE_FILE} names: it was changed after the push")
    for stage in lineage.stages:
        if "/" in stage.folder or stage.folder.startswith("."):
            raise ValueError(f"{LINEAGE_FILE} names a folder outside the repository: {one_line(stage.folder)}")
        if adapter_hash(str(folder / stage.folder)) != stage.adapter:
            raise ValueError(f"stage {one_line(stage.name)}: the adapter's hash is not the one in {LINEAGE_FILE}")
    return lineage
