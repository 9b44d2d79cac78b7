"""What was shared comes back: downloaded without pickled files, each file held against the lineage."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from schoolhouse.core.escape import one_line
from schoolhouse.core.models import adapter_hash
from schoolhouse.hub.artifacts import FILES, file_hash
from schoolhouse.hub.push import retried


_NAMES = (*FILES, "README.md", "run.json", "results.json", "lineage.json")
PATTERNS = [*_NAMES, *(f"*/{name}" for name in _NAMES), ".eval_results/*.yaml"]


def pull(api: Any, repo_id: str, folder: Path, revision: str | None = None) -> dict[str, Any]:
    """
    Download an adapter, or a pipeline's, and check it.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        repo_id (`str`):
            `owner/name`.
        folder (`Path`):
            Where to; must be empty or absent.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `dict[str, Any]`: lineage.json.

    Raises:
        ValueError: no such repository, or a file that differs from what the lineage says.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another --output_dir")
    try:
        source = retried(lambda: api.snapshot_download(repo_id, revision=revision, allow_patterns=PATTERNS))
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{one_line(repo_id)} cannot be downloaded: {one_line(error)}") from None
    lineage = check_lineage(Path(source))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
        part = Path(scratch, folder.name)
        for name in [*lineage["files"], "lineage.json"]:  # what was added after the push stays behind
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(source, name), part / name)
        part.replace(folder)
    return lineage


def check_lineage(folder: Path) -> dict[str, Any]:
    """
    Hold a downloaded folder against its lineage.

    Args:
        folder (`Path`):
            With `lineage.json`.

    Returns:
        `dict[str, Any]`: the lineage.

    Raises:
        ValueError: naming the file that is missing, is another, or claims something else.
    """
    path = folder / "lineage.json"
    if not path.is_file():
        raise ValueError("the repository has no lineage.json: it was not pushed by recipes/share.py")
    try:
        lineage = json.loads(path.read_text(encoding="utf-8"))
        files, stages = dict(lineage["files"]), list(lineage["stages"])
        names = [(str(stage["name"]), str(stage["folder"]), stage["adapter"]) for stage in stages]
        lineage["base"]["name"].split("/")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("lineage.json is not of the form that recipes/share.py writes") from None
    for name, wanted in files.items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:  # the cache's own links lead elsewhere
            raise ValueError(f"lineage.json names a file outside the repository: {one_line(name)}")
        if not file.is_file():
            raise ValueError(f"{one_line(name)} is named in lineage.json and missing")
        if file_hash(file.read_bytes()) != wanted:
            raise ValueError(
                f"{one_line(name)} is not the file that lineage.json names: it was changed after the push"
            )
    for name, place, digest in names:
        if "/" in place or place.startswith("."):
            raise ValueError(f"lineage.json names a folder outside the repository: {one_line(place)}")
        if adapter_hash(str(folder / place)) != digest:
            raise ValueError(f"stage {one_line(name)}: the adapter's hash is not the one in lineage.json")
    return lineage
