"""Download of what was shared: no pickled file, and each file checked against the lineage."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from schoolhouse.core.escape import one_line
from schoolhouse.hub.artifacts import ADAPTER_FILES
from schoolhouse.hub.client import retried
from schoolhouse.hub.lineage import LINEAGE_FILE, Lineage, check_lineage


if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAMES = (*ADAPTER_FILES, "README.md", "run.json", "results.json", LINEAGE_FILE)
PATTERNS = [*_NAMES, *(f"*/{name}" for name in _NAMES), ".eval_results/*.yaml"]


def pull(api: HfApi, repo_id: str, folder: Path, revision: str | None = None) -> Lineage:
    """
    Download an adapter, or those of a pipeline, and check it.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        repo_id (`str`):
            `owner/name`.
        folder (`Path`):
            Where to; must be empty or absent. It appears complete or not at all.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `Lineage`: content of lineage.json.

    Raises:
        ValueError: no such repository, or a file that differs from what the lineage says.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another --output_dir")
    try:
        source = Path(retried(lambda: api.snapshot_download(repo_id, revision=revision, allow_patterns=PATTERNS)))
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{one_line(repo_id)} cannot be downloaded: {one_line(error)}") from None
    lineage = check_lineage(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
        part = Path(scratch, folder.name)
        for name in [*lineage.files, LINEAGE_FILE]:  # files that were added after the push are not copied
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, part / name)
        part.replace(folder)
    return lineage
