"""What is shared: one stage's adapter with its record and results, or the stages of a pipeline."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schoolhouse.core.escape import one_line
from schoolhouse.core.models import adapter_hash
from schoolhouse.evaluation.results import read_results


PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
WEIGHTS = "adapter_model.safetensors"
# Of an adapter folder nothing else is uploaded.
FILES = (
    "adapter_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
    "reward_statistics.json",
)  # fmt: skip


@dataclass
class Stage:
    """
    One adapter to share.

    Args:
        name (`str`):
            Of the stage, `sft`.
        adapter (`Path`):
            Folder of the adapter.
        record (`dict[str, Any]`):
            Its run.json.
        folder (`str`):
            Sub-folder in the repository; empty for the root.
        results (`list[dict[str, Any]]`, *optional*):
            results.json of this adapter, and of the base alone.
        origin (`str`, *optional*):
            Run folder, as the pipeline and other stages' recipes name it.
        hash (`str`, *optional*):
            [`~schoolhouse.core.models.adapter_hash`].
    """

    name: str
    adapter: Path
    record: dict[str, Any]
    folder: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    origin: str = ""
    hash: str = ""

    @property
    def config(self) -> dict[str, Any]:
        return _read_json(self.adapter / "adapter_config.json")

    @property
    def own_results(self) -> list[dict[str, Any]]:
        return [results for results in self.results if results["hashes"]["adapter"] is not None]

    @property
    def tag(self) -> str:
        return f"{self.name}-{self.hash[:8]}"


def read_stages(path: str, results: list[str] | None = None) -> list[Stage]:
    """
    The stages that a path stands for.

    Args:
        path (`str`):
            A run folder, its `adapter`, or the folder of a pipeline (with `pipeline.json`).
        results (`list[str]`, *optional*):
            Folders of results, beside `eval` of the run folder.

    Returns:
        `list[Stage]`: one, or the finished stages of a pipeline that made an adapter.

    Raises:
        ValueError: whatever of it may not be shared, in one line.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{path} is no folder: name a run folder, its adapter folder, or a pipeline's folder")
    if (folder / "pipeline.json").is_file():
        return _pipeline(folder, results or [])
    return [_stage(folder, results or [])]


def _pipeline(folder: Path, results: list[str]) -> list[Stage]:
    pipeline = _read_json(folder / "pipeline.json")
    if pipeline.get("schema") != 1:
        raise ValueError(f"{folder / 'pipeline.json'} is not a pipeline of schema 1")
    # The folders named there are relative to wherever the pipeline was started; they are those of the stages' names.
    entries = {entry["name"]: entry for entry in pipeline["stages"] if entry["status"] == "done"}
    of_base = [folder / name / "eval" for name, entry in entries.items() if entry["recipe"] is None and entry["eval"]]
    stages = []
    for name, entry in entries.items():
        if (folder / name / "adapter").is_dir():
            stage = _stage(folder / name, [*results, *map(str, of_base)], name)
            stage.folder, stage.origin = name, entry["folder"]
            stages.append(stage)
    if not stages:
        raise ValueError(f"{folder} holds no finished stage with an adapter")
    if len({stage.record["model"]["hash"] for stage in stages}) > 1:
        raise ValueError(f"{folder}: its stages stand on different base models; push them one by one")
    return stages


def _stage(folder: Path, results: list[str], name: str | None = None) -> Stage:
    adapter = folder if (folder / "adapter_config.json").is_file() else folder / "adapter"
    refuse_unsafe(adapter if adapter.is_dir() else folder)
    for file in ("adapter_config.json", WEIGHTS):
        if not (adapter / file).is_file():
            raise ValueError(f"{folder} is no adapter: it has no {file}; name a folder that a recipe made")
    run = next((place / "run.json" for place in (adapter.parent, adapter) if (place / "run.json").is_file()), None)
    if run is None:
        raise ValueError(f"{folder} has no run.json beside it: a card could not say how the adapter came about")
    record = _read_json(run)
    digest = adapter_hash(str(adapter))
    if record.get("status") != "finished" or record.get("product_hash") != digest:
        raise ValueError(
            f"{run} (status {record.get('status')}) is not the record of this adapter as it is now: run the recipe to "
            "its end"
        )
    base = Stage("", adapter, record).config.get("base_model_name_or_path")
    if base not in (None, record["model"]["name"]):
        raise ValueError(f"{adapter} names the base {base}, its run.json {record['model']['name']}: they do not match")
    stage = Stage(name or Path(record["command"][0]).stem, adapter, record, hash=digest)
    if not re.fullmatch(r"[\w-]{1,60}", stage.name, re.ASCII):  # it is a folder, a tag and a heading there
        raise ValueError(f"stage {one_line(stage.name)!r}: use letters, digits, _ and -")
    own = [str(run.parent / "eval")] if (run.parent / "eval" / "results.json").is_file() else []
    for place in dict.fromkeys([*results, *own]):
        found = read_results(place)
        if found["hashes"]["model"] != record["model"]["hash"]:
            raise ValueError(f"{place} was measured on another base model than that of {adapter}")
        if found["hashes"]["adapter"] in (digest, None):
            stage.results.append(found)
        elif name is None:  # in a pipeline it may be another stage's
            raise ValueError(f"{place} was measured with another adapter than {adapter}: evaluate again")
    return stage


def refuse_unsafe(folder: Path) -> None:
    """
    Refuse a folder in which a file would be unpickled by whoever loads it, or leads out of the folder.

    Args:
        folder (`Path`):
            Looked through with its sub-folders.

    Raises:
        ValueError: naming the file.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLED:
            raise ValueError(f"{path} may be pickled, and unpickling runs code: remove it (weights are safetensors)")
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} is a link out of the folder: put the file itself there, or remove it")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def file_hash(content: bytes) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def base_hash_on_hub(api: Any, base: str, revision: str | None = None) -> str:
    """
    [`model_hash`] of a base on the Hub as a folder would have it, without its weights' download.

    Args:
        api ([`~huggingface_hub.HfApi`]):
            Client.
        base (`str`):
            Hub id.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `str`: the hash.
    """
    from schoolhouse.core.models import folder_digest

    paths = [file for file in api.list_repo_tree(base, revision=revision) if getattr(file, "size", None) is not None]
    weights = sorted(
        file.path for file in paths if file.path.startswith("model") and file.path.endswith(".safetensors")
    )
    if "config.json" not in {file.path for file in paths} or not weights:
        raise ValueError(f"{base} is no model with safetensors weights")
    config = json.loads(Path(api.hf_hub_download(base, "config.json", revision=revision)).read_text(encoding="utf-8"))
    known = {file.path: file.lfs.sha256 for file in paths if file.path in weights and file.lfs is not None}
    digests = [
        bytes.fromhex(known[path])
        if path in known
        else hashlib.sha256(Path(api.hf_hub_download(base, path, revision=revision)).read_bytes()).digest()
        for path in weights
    ]
    return folder_digest(config, digests)
