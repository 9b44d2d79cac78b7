"""What a course is made of, and which of its stages are still what their settings, parents, data and code say."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from eval.harness.models import adapter_hash, folder_digest, model_hash
from recipes.training.locations import as_path
from recipes.training.strict_yaml import StrictYamlError, ValueProblem, check_type, load_mapping


ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("sft", "grpo", "reward", "ppo")
# Keys that say where a run lies or what is shown of it, and nothing of what it computes.
_NOT_HASHED = {"output_dir", "run_name", "report_to", "disable_tqdm", "logging_dir"}
_IMPORT = re.compile(r"\b(?:from|import)\s+((?:recipes|data|eval)(?:\.\w+)*)(?:\s+import\s+\(?([\w\s,]+))?")


class StageEntry(TypedDict, total=False):
    """A stage as course.yaml has it."""

    name: str
    recipe: str
    config: str
    overrides: dict[str, Any]
    after: str
    evals: list[str]
    minutes: float


class CourseEntry(TypedDict, total=False):
    """The keys of course.yaml."""

    name: str
    model_name_or_path: str
    output_dir: str
    evals: list[str]
    accelerate_config: str
    stages: list[StageEntry]


@dataclass
class Stage:
    """
    One stage of a course, resolved.

    Args:
        name (`str`):
            Its name, which is also that of its folder.
        recipe (`str` or `None`):
            `"sft"`, `"grpo"`, `"reward"` or `"ppo"`; `None` for the base model, which is only measured.
        config_path (`str` or `None`):
            Recipe file.
        folder (`Path`):
            Run folder.
        config (`dict[str, Any]`):
            The recipe with its overrides, the course's base, folders and parent.
        after (`str` or `None`):
            Stage whose adapter it continues.
        parents (`list[str]`):
            Stages whose adapters it uses: `after`, and those that its config names.
        evals (`list[str]`):
            Tasks.
        minutes (`float` or `None`):
            Expected duration, until there is a measured one.
        key (`str`):
            Hash of all that decides its adapter.
    """

    name: str
    recipe: str | None
    config_path: str | None
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    after: str | None = None
    parents: list[str] = field(default_factory=list)
    evals: list[str] = field(default_factory=list)
    minutes: float | None = None
    key: str = ""


@dataclass
class Course:
    """
    A course, resolved.

    Args:
        name (`str`):
            Its name.
        base (`str`):
            Base model of all stages.
        base_hash (`str`):
            What it computes, by [`eval.harness.models.model_hash`].
        folder (`Path`):
            Folder of course.json and of the stages' folders.
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


def load_course(path: str | Path, output_dir: str | None = None) -> Course:
    """
    Read and check a course, and the recipes that it names.

    Args:
        path (`str` or `Path`):
            YAML file.
        output_dir (`str`, *optional*):
            Instead of the file's own.

    Returns:
        [`Course`]: every stage with its key.

    Raises:
        ValueError: one line that names file and line.
    """
    values, lines = _read(Path(path), CourseEntry)

    def fail(where: tuple, message: str) -> None:
        known = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), 1)
        raise ValueError(f"{path}:{known}: {'.'.join(map(str, where))}: {message}")

    for key in ("model_name_or_path", "output_dir", "stages"):
        if not values.get(key):
            fail((key,), "missing: every course needs it")
    base, folder = values["model_name_or_path"], Path(output_dir or values["output_dir"])
    try:
        base_hash = model_hash(base)
    except ValueError as error:
        fail(("model_name_or_path",), str(error))
    stages = [Stage("base", None, None, folder / "base", evals=values.get("evals", []))]
    own_folders: dict[str, str] = {}  # output_dir as a recipe has it -> stage
    for index, entry in enumerate(values["stages"]):
        where = ("stages", index)
        for key in ("name", "recipe", "config"):
            if key not in entry:
                fail(where, f"{key} is missing: every stage needs it")
        name, before = entry["name"], [stage.name for stage in stages]
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
            fail((*where, "name"), f"{name!r} is to be a folder: use letters, digits, _ and -")
        if name in before:
            fail((*where, "name"), f"{name!r} is taken: name each stage once, and none `base`")
        if entry["recipe"] not in RECIPES:
            fail((*where, "recipe"), f"unknown recipe {entry['recipe']!r}; known: {', '.join(RECIPES)}")
        if (after := entry.get("after")) is not None and after not in before[1:]:
            fail((*where, "after"), f"{after!r} is no earlier stage; earlier: {', '.join(before[1:]) or 'none'}")
        if not Path(entry["config"]).is_file():
            fail((*where, "config"), f"{entry['config']} does not exist, seen from {Path.cwd()}")
        recipe, _ = _read(Path(entry["config"]), dict[str, Any])
        own = recipe.get("output_dir")
        try:
            config, used = _redirect(recipe | entry.get("overrides", {}), own_folders, folder)
        except ValueError as error:
            fail((*where, "config"), str(error))
        config |= {"model_name_or_path": base, "output_dir": str(folder / name)}
        # A parent named only by the recipe's own path is the course's `after`, or nobody's.
        config.pop("adapter_name_or_path", None)
        if after is not None:
            config["adapter_name_or_path"] = str(folder / after / "adapter")
        elif recipe.get("adapter_name_or_path"):
            fail(where, f"after is missing: {entry['config']} continues {recipe['adapter_name_or_path']}")
        parents = [parent for parent in before if parent == after or parent in used]
        stages.append(
            Stage(
                name,
                entry["recipe"],
                entry["config"],
                folder / name,
                config,
                after,
                parents,
                entry.get("evals", []),
                entry.get("minutes"),
            )
        )
        if own is not None:
            if own in own_folders:
                own_folders[own] = ""  # two stages of one recipe file: a path to it would be ambiguous
            else:
                own_folders[own] = name
    accelerate = Path(values.get("accelerate_config") or ROOT / "accelerate_config.yaml")
    if not accelerate.is_file():
        fail(("accelerate_config",), f"{accelerate} does not exist, seen from {Path.cwd()}")
    course = Course(values.get("name", folder.name), base, base_hash, folder, accelerate, stages)
    set_keys(course)
    return course


def set_keys(course: Course) -> None:
    """Give every stage its key, parents first; a key holds its parents' keys, so a change reaches all descendants."""
    keys: dict[str, str] = {}
    for stage in course.stages:
        if stage.recipe is not None:
            stage.key = _digest(
                {
                    "recipe": stage.recipe,
                    "config": _named_by_stage(
                        {key: value for key, value in stage.config.items() if key not in _NOT_HASHED}, course
                    ),
                    "parents": [keys[parent] for parent in stage.parents],
                    "base": course.base_hash,
                    "data": data_hash(stage.config),
                    "code": code_hash(f"recipes/{stage.recipe}.py"),
                    "accelerate": course.accelerate_config.read_text(encoding="utf-8"),
                }
            )
        keys[stage.name] = stage.key


def eval_key(course: Course, stage: Stage, product: str | None) -> str:
    """Hash of all that decides the results of a stage's eval: the adapter itself, base, tasks and the eval's code."""
    return _digest(
        {"tasks": stage.evals, "base": course.base_hash, "adapter": product, "code": code_hash("eval/run.py")}
    )


def is_done(course: Course, stage: Stage) -> bool:
    """
    Whether a stage's adapter is there, is what the stage made, and was made from its parents' present adapters.

    Args:
        course ([`Course`]), stage ([`Stage`]):
            The stage and its course.

    Returns:
        `bool`: always true for the base model.
    """
    if stage.recipe is None:
        return True
    state = read_json(stage.folder / "stage.json")
    if state.get("status") != "done" or state.get("key") != stage.key or state.get("product") != product(stage):
        return False
    parents = [parent for parent in course.stages if parent.name in stage.parents]
    return all(is_done(course, parent) and state["parents"].get(parent.name) == product(parent) for parent in parents)


def product(stage: Stage) -> str | None:
    """Hash of a stage's adapter (or of the ensemble in `members/`), `None` where there is none."""
    if (stage.folder / "adapter").is_dir():
        try:
            return adapter_hash(str(stage.folder / "adapter"))
        except (ValueError, OSError):
            return None
    members = sorted((stage.folder / "members").glob("*/adapter_config.json"))
    if not members:
        return None
    return folder_digest({}, [bytes.fromhex(adapter_hash(str(member.parent))) for member in members])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def data_hash(config: dict[str, Any]) -> str:
    """Hash of the local files that a recipe trains on; what the repository generates is hashed as its code."""
    names = [config.get("dataset_name"), config.get("dataset_path")]
    for entry in config.get("datasets") or ():
        names += [entry.get("name"), entry.get("path")]
    digest = hashlib.sha256()
    for name in filter(None, names):
        path = as_path(name)
        if path is None or not path.exists():
            continue
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def code_hash(script: str, root: Path = ROOT) -> str:
    """
    Hash of a script and of everything of this repository that it imports, directly or not.

    Args:
        script (`str`):
            Such as `"recipes/sft.py"`.
        root (`Path`, *optional*):
            The repository.

    Returns:
        `str`: the hash. Imports in the text of programs that are run in processes of their own count too.
    """
    seen: set[Path] = set()
    pending = [root / script]
    while pending:
        file = pending.pop()
        if file not in seen:
            seen.add(file)
            pending += _imported(file, root)
    return _digest([[str(file.relative_to(root)), _source_hash(file)] for file in sorted(seen)])


@cache
def _source_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _imported(file: Path, root: Path) -> tuple[Path, ...]:
    found = []
    for module, names in _IMPORT.findall(file.read_text(encoding="utf-8")):
        parts = module.split(".")
        paths = [root.joinpath(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
        for name in ("", *re.findall(r"\w+", names)):
            paths.append(
                root.joinpath(*parts, name).with_suffix(".py")
                if name
                else root.joinpath(*parts[:-1], parts[-1] + ".py")
            )
        found += [path for path in paths if path.is_file()]
    return tuple(found)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path, hint: Any) -> tuple[dict[str, Any], dict]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist, seen from {Path.cwd()}")
    lines: dict = {}
    try:
        values, lines = load_mapping(path.read_bytes())
        check_type(values, hint)
    except StrictYamlError as error:
        raise ValueError(f"{path}:{error.line}: {error}") from None
    except ValueProblem as problem:
        where = problem.path
        line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), 1)
        raise ValueError(f"{path}:{line}: {'.'.join(map(str, where))}: {problem}") from None
    return values, lines


def _redirect(value: Any, own_folders: dict[str, str], folder: Path) -> tuple[Any, set[str]]:
    """A config whose paths into other recipes' `output_dir` lead into the course's folders, and the stages named."""
    used: set[str] = set()

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, str):
            for own, stage in own_folders.items():
                if value.startswith(own.rstrip("/") + "/"):
                    if not stage:
                        raise ValueError(f"{value} is the output_dir of several stages: override it in the course")
                    used.add(stage)
                    return str(folder / stage) + value[len(own.rstrip("/")) :]
        return value

    return {key: walk(item) for key, item in value.items() if key != "output_dir"}, used


def _named_by_stage(value: Any, course: Course) -> Any:
    """A config without the course's own folder, so that the same course elsewhere has the same keys."""
    text = json.dumps(value, sort_keys=True)
    return text.replace(json.dumps(str(course.folder) + "/")[1:-1], "<course>/")
