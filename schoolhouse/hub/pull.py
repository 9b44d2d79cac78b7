"""Download of what was shared: no pickled file, each file checked against the lineage, and its content by its name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from schoolhouse.core.escape import one_line
from schoolhouse.hub.artifacts import ADAPTER_FILES
from schoolhouse.hub.client import retried
from schoolhouse.hub.lineage import LINEAGE_FILE, Lineage, check_lineage
from schoolhouse.hub.secret_scan import safetensors_header


if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAMES = (*ADAPTER_FILES, "README.md", "run.json", "results.json", LINEAGE_FILE)
PATTERNS = [*_NAMES, *(f"*/{name}" for name in _NAMES), ".eval_results/*.yaml"]

_LARGEST_TEXT = 2**28  # bytes of a file that holds no weights; the largest tokenizers have an eighth of it


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
        ValueError: no such repository, a file that differs from what the lineage says, or content that is not what
            its name says.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another --output_dir")
    try:
        source = Path(retried(lambda: api.snapshot_download(repo_id, revision=revision, allow_patterns=PATTERNS)))
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{one_line(repo_id)} cannot be downloaded: {one_line(error)}") from None
    lineage = check_lineage(source)
    check_content(source, lineage.files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
        part = Path(scratch, folder.name)
        for name in [*lineage.files, LINEAGE_FILE]:  # files that were added after the push are not copied
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, part / name)
        part.replace(folder)
    return lineage


def check_content(folder: Path, names: Iterable[str]) -> None:
    """
    Refuse (`ValueError`) a file that is not what its name says: a pickled file or an archive under another name,
    weights with bytes that belong to no tensor, text that is none; and a file that no adapter has.
    """
    for name in names:
        path, told = folder / name, one_line(name)
        if not any(fnmatchcase(name, pattern) for pattern in PATTERNS):
            raise ValueError(
                f"{LINEAGE_FILE} names {told}, which is no file of an adapter: take it out of the repository"
            )
        if path.suffix != ".safetensors" and path.stat().st_size > _LARGEST_TEXT:
            raise ValueError(f"{told} has {path.stat().st_size:,} bytes; without weights at most {_LARGEST_TEXT:,}")
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            safetensors_header(name, content)
        elif path.name == "tokenizer.model":  # binary
            if content[:2] == b"PK" or content[:1] == b"\x80":
                raise ValueError(f"{told} is an archive or pickled, and unpickling runs code: no tokenizer is")
        else:
            try:
                text = content.decode("utf-8")
                is_right = "\0" not in text and (path.suffix != ".json" or isinstance(json.loads(text), dict | list))
            except (ValueError, RecursionError):
                is_right = False
            if not is_right:
                raise ValueError(
                    f"{told} is no {'JSON' if path.suffix == '.json' else 'text'}: its content is not by its name"
                )
