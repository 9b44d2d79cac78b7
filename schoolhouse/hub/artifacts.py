"""Adapters to share: that of one run with its manifest and results, or those of a pipeline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from schoolhouse.core.escape import one_line
from schoolhouse.core.files import load_object
from schoolhouse.core.manifest import (
    PIPELINE_FILE,
    RUN_FILE,
    ModelSource,
    RunManifest,
    read_manifest,
    read_pipeline_index,
)
from schoolhouse.core.models import adapter_hash
from schoolhouse.evaluation.results import EvaluationResults, TaskResult, load_results


PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
WEIGHTS_FILE = "adapter_model.safetensors"
# Nothing else of an adapter folder is uploaded.
ADAPTER_FILES = (
    "adapter_config.json", WEIGHTS_FILE, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
    "reward_statistics.json",
)  # fmt: skip


@dataclass
class Artifact:
    """
    One adapter to share.

    Args:
        name (`str`):
            Name of its stage, `sft`.
        adapter (`Path`):
            Folder of the adapter.
        manifest (`RunManifest`), base (`ModelSource`):
            Manifest of the run that made it, and the base model of that run.
        hash (`str`):
            [`~schoolhouse.core.models.adapter_hash`].
        folder (`str`, *optional*):
            Sub-folder in the repository; empty for the root.
        results (`list[EvaluationResults]`), base_results (`list[EvaluationResults]`):
            Results of this adapter, and of the base alone.
        origin (`str`, *optional*):
            Run folder, as the pipeline and other stages' recipes name it.
    """

    name: str
    adapter: Path
    manifest: RunManifest
    base: ModelSource
    hash: str
    folder: str = ""
    results: list[EvaluationResults] = field(default_factory=list)
    base_results: list[EvaluationResults] = field(default_factory=list)
    origin: str = ""

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of adapter_config.json."""
        return load_object(self.adapter / "adapter_config.json")

    @property
    def is_reward_model(self) -> bool:
        """`True` for an adapter that is used for scores and not for texts."""
        return self.config.get("task_type") == "SEQ_CLS"

    @property
    def tag(self) -> str:
        """Tag of its commit on the Hub."""
        return f"{self.name}-{self.hash[:8]}"


def all_tasks(results: Sequence[EvaluationResults]) -> dict[str, TaskResult]:
    """Return the results of all tasks, by name, of several evaluations of one model."""
    return {name: task for found in results for name, task in found.tasks.items()}


def read_artifacts(path: str, results: Sequence[str] = ()) -> list[Artifact]:
    """
    Read the adapters in a folder, and refuse (`ValueError`) what may not be shared.

    Args:
        path (`str`):
            A run folder, its `adapter`, or the folder of a pipeline, of which the finished stages are read.
        results (`Sequence[str]`, *optional*):
            Folders of results, beside `eval` of the run folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{path} is no folder: name a run folder, its adapter folder, or a pipeline's folder")
    if (folder / PIPELINE_FILE).is_file() or (folder / "course.json").is_file():
        return _read_pipeline(folder, results)
    return [_read_artifact(folder, results)]


def _read_pipeline(folder: Path, results: Sequence[str]) -> list[Artifact]:
    # The recipes name run folders as seen from where the pipeline was started; here each is in the folder of its name.
    stages = [stage for stage in read_pipeline_index(folder).stages if stage.status == "done"]
    of_base = [str(folder / stage.name / "eval") for stage in stages if stage.recipe is None and stage.eval]
    artifacts = []
    for stage in stages:
        if (folder / stage.name / "adapter").is_dir():
            artifact = _read_artifact(folder / stage.name, [*results, *of_base], stage.name)
            artifact.folder, artifact.origin = stage.name, str(artifact.manifest.config.get("output_dir", ""))
            artifacts.append(artifact)
    if not artifacts:
        raise ValueError(f"{folder} holds no finished stage with an adapter")
    if len({artifact.base.hash for artifact in artifacts}) > 1:
        raise ValueError(f"{folder}: its stages have different base models; push them one by one")
    return artifacts


def _read_artifact(folder: Path, results: Sequence[str], stage: str | None = None) -> Artifact:
    adapter = folder if (folder / "adapter_config.json").is_file() else folder / "adapter"
    refuse_unsafe(adapter if adapter.is_dir() else folder)
    for file in ("adapter_config.json", WEIGHTS_FILE):
        if not (adapter / file).is_file():
            raise ValueError(f"{folder} is no adapter: it has no {file}; name a folder that a recipe made")
    run = next((place for place in (adapter.parent, adapter) if (place / RUN_FILE).is_file()), None)
    if run is None:
        raise ValueError(f"{folder} has no {RUN_FILE} beside it: a card could not say how the adapter came about")
    manifest, digest = read_manifest(run), adapter_hash(str(adapter))
    if manifest.status != "done" or manifest.product_hash != digest or manifest.model is None:
        raise ValueError(
            f"{run / RUN_FILE} (status {manifest.status}) is not the manifest of this adapter as it is now: run the "
            "recipe to its end"
        )
    artifact = Artifact(stage or manifest.recipe, adapter, manifest, manifest.model, digest)
    base = artifact.config.get("base_model_name_or_path")
    if base not in (None, artifact.base.name):
        raise ValueError(f"{adapter} names the base {base}, its run.json {artifact.base.name}: they do not match")
    if not re.fullmatch(r"[\w-]{1,60}", artifact.name, re.ASCII):  # on the Hub it is a folder, a tag and a heading
        raise ValueError(f"stage {one_line(artifact.name)!r}: use letters, digits, _ and -")
    own = [str(run / "eval")] if (run / "eval" / "results.json").is_file() else []
    for place in dict.fromkeys([*results, *own]):
        found = load_results(place)
        if found.hashes.model != artifact.base.hash:
            raise ValueError(f"{place} was measured on another base model than that of {adapter}")
        if found.hashes.adapter is None:
            artifact.base_results.append(found)
        elif found.hashes.adapter == digest:
            artifact.results.append(found)
        elif stage is None:  # in a pipeline they may be another stage's
            raise ValueError(f"{place} was measured with another adapter than {adapter}: evaluate again")
    return artifact


def unmerged_refusal(config: dict[str, Any]) -> str | None:
    """Return the reason for which llama.cpp and vLLM take an adapter only merged, `None` if they take it as it is."""
    kinds = {
        "trainable_token_indices": "trained tokens (trainable_new_tokens)",
        "modules_to_save": "whole modules (lora_modules_to_save)",
        "use_dora": "DoRA",
    }
    found = [told for key, told in kinds.items() if config.get(key)]
    return f"the adapter has {found[0]}, which vLLM and llama.cpp take merged only" if found else None


def refuse_unsafe(folder: Path) -> None:
    """Refuse (`ValueError`) a folder with a file that its readers would unpickle, or a link out of the folder."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLED:
            raise ValueError(f"{path} may be pickled, and unpickling runs code: remove it (weights are safetensors)")
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} is a link out of the folder: put the file itself there, or remove it")
