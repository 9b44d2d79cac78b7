"""Hashes that decide whether a stage or an evaluation is still what its settings, files and code say."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.config.paths import find_file, shipped
from schoolhouse.config.yaml_file import YamlError, load_mapping
from schoolhouse.core.manifest import Fingerprints


if TYPE_CHECKING:
    from datasets import Dataset

# Settings that say where a run lies, what is shown, saved or shared of it, or how fast it is. They change no weight.
_NOT_COMPUTED = {
    *("output_dir", "resume_from_checkpoint", "preflight", "preflight_prompts"),
    *("run_name", "project", "report_to", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    *("disable_tqdm", "log_level", "log_level_replica", "log_on_each_node", "log_completions", "log_multimodal"),
    *("log_unique_prompts", "log_completions_hub_repo", "num_completions_to_print", "include_num_input_tokens_seen"),
    *("logging_dir", "logging_first_step", "logging_nan_inf_filter", "skip_memory_metrics", "save_on_each_node"),
    *("push_to_hub", "hub_token", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push"),
    *("hub_revision", "dataset_num_proc", "dataloader_num_workers", "dataloader_pin_memory", "ddp_timeout"),
    *("dataloader_persistent_workers", "dataloader_prefetch_factor", "vllm_gpu_memory_utilization"),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"),
}
_SAVING = {"save_strategy", "save_steps", "save_total_limit", "save_only_model"}
_LOGGING = {"logging_strategy", "logging_steps"}
# Keys of a data set's YAML file that say something about the data, and do not change it.
_DESCRIPTIVE = {"description", "origin", "license"}
_PACKAGE = Path(__file__).parents[1]
# Suffixes of the package's files that are run or rendered.
_CODE = {".py", ".jinja", ".css", ".js"}
# Sub-packages of which a script runs no file, so that a change there makes nothing stale. Every other file counts.
_NEVER_RUN = {
    "recipes": ("pipeline/", "report/"),
    "eval/run.py": ("training/", "rewards/", "hub/", "pipeline/", "report/"),
    "eval/report.py": ("training/", "rewards/", "hub/", "pipeline/"),
}


def computed(settings: dict[str, Any]) -> set[str]:
    """Return the keys of the settings that decide the weights of a run: all but those that change none."""
    left_out = set(_NOT_COMPUTED)
    if not settings.get("load_best_model_at_end"):  # else the best of those saved is the product
        left_out |= _SAVING
    # Evaluations, which draw random numbers, take the steps of logging by default; limits look at logged points.
    evaluates_at_logs = settings.get("eval_strategy") == "steps" and not settings.get("eval_steps")
    if not evaluates_at_logs and not settings.get("gold_reward") and not settings.get("kl_budget"):
        left_out |= _LOGGING
    if (settings.get("max_steps") or -1) > 0:
        left_out.add("num_train_epochs")
    return settings.keys() - left_out


def stage_fingerprints(
    script: Path,
    settings: dict[str, Any],
    base: str | None,
    product_of: Callable[[Path], str | None],
    launch: Path | None,
) -> Fingerprints:
    """
    Return the fingerprints of a stage. A recipe records them when it begins, and a pipeline compares them later.

    Args:
        settings (`dict[str, Any]`):
            Values that the recipe's file and flags set, with `output_dir`.
        base (`str` or `None`):
            Hash of the base model.
        product_of (`Callable`):
            Gives the hash of a run folder's product.
        launch (`Path` or `None`):
            File of `accelerate launch`.
    """
    named = _NamedFiles(Path(settings["output_dir"]).parent)
    without_paths = named.replace({key: settings[key] for key in computed(settings) - {"model_name_or_path"}})
    return Fingerprints(
        settings=digest([script.stem, without_paths]),
        files=digest(named.contents),
        code=code_hash(script),
        base=base,
        parents={name: product_of(Path(settings["output_dir"]).parent / name) for name in sorted(named.parents)},
        launch=digest(launch.read_text(encoding="utf-8")) if launch is not None else None,
    )


def evaluation_fingerprint(script: Path, settings: dict[str, Any], base: str, adapter: str | None) -> str:
    """
    Return the hash of everything that decides the results of an evaluation.

    Args:
        settings (`dict[str, Any]`):
            `tasks`, and every setting that differs from its default.
        base (`str`), adapter (`str` or `None`):
            Hashes of the base model and of the adapter.
    """
    named = _NamedFiles()
    places = ("output_dir", "model_name_or_path", "adapter_name_or_path")
    kept = named.replace({key: value for key, value in settings.items() if key not in places})
    return digest([kept, named.contents, base, adapter, code_hash(script)])


def code_hash(script: Path, package: Path = _PACKAGE) -> str:
    """
    Return the hash of a script and of all files of the package that it may run.

    Every file of the package counts, except those that `_NEVER_RUN` leaves out: an analysis of the import statements
    would miss modules that are imported at run time. Comments and docstrings do not count.
    """
    name = f"{script.resolve().parent.name}/{script.name}"
    left_out = (*_NEVER_RUN.get(name, _NEVER_RUN["recipes"]), "shipped/")
    files = {
        path: file
        for file in package.rglob("*")
        if file.suffix in _CODE and not (path := file.relative_to(package).as_posix()).startswith(left_out)
    }
    files["<script>"] = script  # a script of the user's counts by what it holds, not by its place
    if name == "eval/run.py":
        # Tasks read data sets. A recipe's own data set is in the part `files` of its fingerprints.
        for folder in (script.resolve().parents[1] / name for name in ("data", "eval/tasks")):
            files |= {f"{folder.name}/{file.relative_to(folder)}": file for file in folder.rglob("*.yaml")}
    return digest([[path, _source_hash(file)] for path, file in sorted(files.items())])


@cache
def _source_hash(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return digest(text)
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return digest(text)
    # The syntax tree holds no comments; docstrings are emptied.
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0].value.value = ""  # type: ignore[attr-defined]
    return digest(ast.dump(tree))


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class _NamedFiles:
    """
    Files that settings name. A path is replaced by the file's name and its content is hashed, so that files count by
    what they hold and not by where they lie.

    Args:
        siblings (`Path`, *optional*):
            Folder of the run folders that are known as stages. Their products are hashed by the caller.
        open_files (`tuple[Path, ...]`, *optional*):
            YAML files that are being read; the last one holds the settings, and paths in it begin beside it.
    """

    def __init__(self, siblings: Path | None = None, open_files: tuple[Path, ...] = ()) -> None:
        self.siblings, self.open_files = siblings, open_files
        self.parents: set[str] = set()
        self.contents: dict[str, Any] = {}

    def replace(self, value: Any, where: tuple[str | int, ...] = ()) -> Any:
        """Return `value` without places, and collect contents and parents on the way."""
        if isinstance(value, dict):
            return {key: self.replace(item, (*where, key)) for key, item in sorted(value.items())}
        if isinstance(value, list):
            return [self.replace(item, (*where, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        # The product of another stage: the pipeline's folder may lie anywhere.
        if self.siblings is not None and value.startswith(f"{self.siblings}/"):
            inside = value[len(str(self.siblings)) + 1 :]
            self.parents.add(inside.partition("/")[0])
            return f"<pipeline>/{inside}"
        key = ".".join(map(str, where))
        # A data set of this project, known by its name.
        if re.fullmatch(r"[\w-]+(/[\w-]+)*", value) and not Path(value).exists():
            if (known := shipped(f"data/{value}.yaml")).is_file():
                self.contents[key] = self._yaml(known)
            return value
        # A path, also in `rewards.py:function`.
        place, function = re.fullmatch(r"(.*?)(\.py:\w+)?", value, re.DOTALL).groups(default="")  # type: ignore[union-attr]
        beside = self.open_files[-1].parent if self.open_files else Path()
        path = find_file(beside / Path(place + function.partition(":")[0]).expanduser())
        try:
            content = self._content(path)
        except OSError:  # a text that cannot be a path
            return value
        if content is None:
            return value
        self.contents[key] = content
        return path.name + function.partition(":")[2]

    def _content(self, path: Path) -> Any:
        if path.is_file():
            return self._yaml(path) if path.suffix in (".yaml", ".yml") else file_hash(path)
        # A folder's name without a slash may be meant (`dataset_path: rows`); the working folder and its parents
        # never are.
        if not path.is_dir() or Path.cwd().is_relative_to(path.resolve()):
            return None
        return [[str(file.relative_to(path)), file_hash(file)] for file in sorted(path.rglob("*")) if file.is_file()]

    def _yaml(self, path: Path) -> Any:
        """Return the settings in a YAML file and the content of the files that they name."""
        if path in self.open_files:
            return path.name
        inner = _NamedFiles(open_files=(*self.open_files, path))
        try:
            values = load_mapping(path.read_bytes())[0]
            return [inner.replace({key: values[key] for key in values.keys() - _DESCRIPTIVE}), inner.contents]
        except YamlError:
            return file_hash(path)


def fingerprint(rows: Dataset) -> str:
    """Return the SHA-256 of a data set's content and order, the same on every machine and from every file format."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(_without_none(row), sort_keys=True, default=str).encode() + b"\n")
    return sha.hexdigest()


def _without_none(value: Any) -> Any:
    # Arrow fills what a JSON row leaves out with None: both are the same content.
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
