"""The stages of a pipeline, read from its file and checked."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import TypedDict

from schoolhouse.config.errors import KeyPath
from schoolhouse.config.paths import find_file, shipped
from schoolhouse.config.yaml_file import read_yaml
from schoolhouse.core.manifest import Fingerprints
from schoolhouse.core.models import model_hash
from schoolhouse.evaluation.tasks import load_task


RECIPES = ("sft", "grpo", "reward", "ppo")
# The pipeline decides where a stage lies, and which base and adapter it continues.
_OF_THE_PIPELINE = ("model_name_or_path", "output_dir", "adapter_name_or_path")


class StageEntry(TypedDict, total=False):
    """A stage as pipeline.yaml has it."""

    name: str
    recipe: str
    config: str
    overrides: dict[str, Any]
    parent: str
    evals: list[str]
    minutes: float


class PipelineEntry(TypedDict, total=False):
    """The keys of pipeline.yaml."""

    name: str
    model_name_or_path: str
    output_dir: str
    evals: list[str]
    accelerate_config: str
    stages: list[StageEntry]


@dataclass
class Stage:
    """
    One stage of a pipeline, resolved.

    Args:
        name (`str`):
            Its name, which is also that of its folder.
        recipe (`str` or `None`):
            `"sft"`, `"grpo"`, `"reward"`, `"ppo"` or the stem of `script`; `None` for the base model, which is only
            evaluated.
        config_path (`str` or `None`):
            Recipe file.
        folder (`Path`):
            Run folder.
        script (`Path` or `None`):
            Script that trains it, `None` for the base model.
        config (`dict[str, Any]`):
            The recipe with its overrides, the pipeline's base, folders and parent.
        overrides (`dict[str, Any]`):
            What the pipeline sets instead of the recipe.
        parent (`str` or `None`):
            Stage whose adapter it continues.
        parents (`list[str]`):
            Stages whose adapters it uses: `parent`, and those that its config names.
        evals (`list[str]`):
            Tasks.
        minutes (`float` or `None`):
            Expected duration, until there is a measured one.
        needs_linux (`bool`):
            Whether a reward runs programs that the model writes, and this is another system.
        needs_linux_evals (`list[str]`):
            Those of `evals` that do.
        fingerprints (`Fingerprints` or `None`):
            Cache of [`schoolhouse.pipeline.staleness.stage_fingerprints`].
    """

    name: str
    recipe: str | None
    config_path: str | None
    folder: Path
    script: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    parents: list[str] = field(default_factory=list)
    evals: list[str] = field(default_factory=list)
    minutes: float | None = None
    needs_linux: bool = False
    needs_linux_evals: list[str] = field(default_factory=list)
    fingerprints: Fingerprints | None = None

    @property
    def evals_here(self) -> list[str]:
        """Tasks that this system can score."""
        return [task for task in self.evals if task not in self.needs_linux_evals]


@dataclass
class Pipeline:
    """
    A pipeline, resolved.

    Args:
        name (`str`):
            Its name.
        base (`str`):
            Base model of all stages.
        base_hash (`str`):
            What it computes, by [`schoolhouse.core.models.model_hash`].
        folder (`Path`):
            Folder of pipeline.json and of the stages' folders.
        accelerate_config (`Path`):
            How `accelerate launch` starts a stage.
        stages (`list[Stage]`):
            The base model, then the stages in order.
    """

    name: str
    base: str
    base_hash: str
    folder: Path
    accelerate_config: Path
    stages: list[Stage]


def load_pipeline(path: str | Path, output_dir: str | None = None) -> Pipeline:
    """
    Read and check a pipeline, and the recipes that it names; a mistake is a `ValueError` that names file and line.

    Args:
        path (`str` or `Path`):
            YAML file.
        output_dir (`str`, *optional*):
            Folder instead of the file's own.
    """
    file = read_yaml(path)
    stages = file.values.get("stages")
    for index in range(len(stages) if isinstance(stages, list) else 0):
        file.rename("stages", ("stages", index))
    values = file.parse(PipelineEntry)

    def fail(where: KeyPath, message: str) -> NoReturn:
        raise file.error(where, message)

    for key in ("model_name_or_path", "output_dir", "stages"):
        if not values.get(key):
            fail((key,), "missing: every pipeline needs it")
    base, folder = str(find_file(values["model_name_or_path"])), Path(output_dir or values["output_dir"])
    try:
        base_hash = model_hash(base)
    except ValueError as error:
        fail(("model_name_or_path",), str(error))
    stages = [Stage("base", None, None, folder / "base", evals=values.get("evals", []))]
    _check_evals(("evals",), False, stages[0].evals, fail)
    recipes, scripts = [], []
    for index, entry in enumerate(values["stages"]):
        where, before = ("stages", index), ["base", *(earlier["name"] for earlier in values["stages"][:index])]
        for key in ("name", "recipe", "config"):
            if key not in entry:
                fail(where, f"{key} is missing: every stage needs it")
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", entry["name"]):
            fail((*where, "name"), f"{entry['name']!r} is to be a folder: use letters, digits, _ and -")
        # Some file systems do not tell capitals from small letters.
        if entry["name"].lower() in ("report", *(name.lower() for name in before)):
            fail((*where, "name"), f"{entry['name']!r} is taken: name each stage once, and none `base` or `report`")
        try:
            scripts.append(_find_script(entry["recipe"], file.path.parent))
        except ValueError as error:
            fail((*where, "recipe"), str(error))
        if (parent := entry.get("parent")) is not None and parent not in before[1:]:
            fail((*where, "parent"), f"{parent!r} is no earlier stage; earlier: {', '.join(before[1:]) or 'none'}")
        is_reward_model = entry["recipe"] == "reward" if entry["recipe"] in RECIPES else None
        _check_evals((*where, "evals"), is_reward_model, entry.get("evals", []), fail)
        if not find_file(entry["config"]).is_file():
            fail((*where, "config"), f"{entry['config']} does not exist, seen from {Path.cwd()}")
        if taken := [key for key in _OF_THE_PIPELINE if key in entry.get("overrides", {})]:
            fail(
                (*where, "overrides", taken[0]), "the pipeline sets it, by model_name_or_path, output_dir and `parent`"
            )
        recipe_file = read_yaml(entry["config"])
        recipe_file.rename("recipe")
        recipes.append(recipe_file.values)
    own = [str(recipe.get("output_dir") or "").rstrip("/") for recipe in recipes]
    for index, (entry, recipe, script) in enumerate(zip(values["stages"], recipes, scripts, strict=True)):
        where, name, parent = ("stages", index), entry["name"], entry.get("parent")
        settings = recipe | entry.get("overrides", {})
        used: set[int] = set()
        try:
            config = {
                key: _redirect(value, own, index, [str(folder / other["name"]) for other in values["stages"]], used)
                for key, value in settings.items()
                if key not in _OF_THE_PIPELINE
            }
        except ValueError as error:
            fail((*where, "config"), str(error))
        config |= {"model_name_or_path": base, "output_dir": str(folder / name)}
        # A parent named only by the recipe's own path is the pipeline's `parent`, or nobody's.
        if parent is not None:
            config["adapter_name_or_path"] = str(folder / parent / "adapter")
        elif recipe.get("adapter_name_or_path"):
            fail(where, f"parent is missing: {entry['config']} continues {recipe['adapter_name_or_path']}")
        used_names = {values["stages"][number]["name"] for number in used}
        parents = [stage.name for stage in stages if stage.name == parent or stage.name in used_names]
        stage = Stage(name, script.stem, entry["config"], folder / name, script, config, entry.get("overrides", {}))
        stage.parent, stage.parents = parent, parents
        stage.evals, stage.minutes = entry.get("evals", []), entry.get("minutes")
        stages.append(stage)
    if sys.platform != "linux":
        for stage in stages:
            stage.needs_linux = _runs_programs(stage.config.get("rewards"))
            stage.needs_linux_evals = [task for task in stage.evals if load_task(task).runs_programs]
    accelerate = find_file(values.get("accelerate_config") or shipped("accelerate_config.yaml"))
    if not accelerate.is_file():
        fail(("accelerate_config",), f"{accelerate} does not exist, seen from {Path.cwd()}")
    return Pipeline(values.get("name", folder.name), base, base_hash, folder, accelerate, stages)


def _runs_programs(rewards: Any) -> bool:
    """Return whether one of a recipe's rewards runs programs that the model writes."""
    from schoolhouse.rewards.build import REWARDS

    entries = rewards if isinstance(rewards, list) else []
    names = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    return any(REWARDS[name].runs_programs for name in names if name in REWARDS)


def _find_script(recipe: str, folder: Path) -> Path:
    """Return the script of a recipe: one of ours by its name, or one of the user's by its path."""
    if recipe in RECIPES:
        return shipped(f"recipes/{recipe}.py")
    if not recipe.endswith(".py"):
        raise ValueError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}, or a script's path, my_stage.py")
    for path in (find_file(recipe), folder / recipe):
        if path.is_file():
            return path.absolute()
    raise ValueError(f"{recipe} does not exist, seen from {Path.cwd()} or from {folder.absolute()}")


def _check_evals(
    where: KeyPath, is_reward_model: bool | None, evals: list[str], fail: Callable[[KeyPath, str], NoReturn]
) -> None:
    """Refuse unknown tasks, and tasks for the other kind of model; `None` for a model of unknown kind."""
    for name in evals:
        try:
            task = load_task(name)
        except ValueError as error:
            fail(where, str(error))
        if is_reward_model is not None and (task.model_type == "SEQ_CLS") != is_reward_model:
            fail(where, f"{name} asks a {'language' if is_reward_model else 'reward'} model, and this is none")


def _redirect(value: Any, own: Sequence[str], index: int, folders: Sequence[str], used: set[int]) -> Any:
    """
    Lead paths into the recipes' `own` run folders, in a value of stage `index`, into the pipeline's `folders`. The
    stages that it names are added to `used`.
    """
    if isinstance(value, dict):
        return {key: _redirect(item, own, index, folders, used) for key, item in value.items()}
    if isinstance(value, list):
        return [_redirect(item, own, index, folders, used) for item in value]
    if not isinstance(value, str):
        return value
    found = [path for path in own if path and f"{value}/".startswith(f"{path}/")]
    if not found:
        return value
    named = [number for number, path in enumerate(own) if path == max(found, key=len)]
    number = index if index in named else named[0]
    if len(named) > 1 and number != index:
        raise ValueError(f"{value} is the output_dir of several stages: override it in the pipeline")
    if number > index:
        raise ValueError(f"{value} is made by a later stage: move that one up")
    used.add(number)
    return folders[number] + value[len(own[number]) :]
