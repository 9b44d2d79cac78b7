"""Which stages of a pipeline are still what their settings, parents, files and code say."""

import ast
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from schoolhouse.config.paths import shipped
from schoolhouse.core.models import adapter_hash, folder_digest
from schoolhouse.data.specs import is_dataset_spec, load_dataset_spec
from schoolhouse.pipeline.plan import Pipeline, Stage


# Keys that say where a run lies or what is shown of it, and nothing of what it computes.
_NOT_HASHED = {"output_dir", "run_name", "report_to", "disable_tqdm", "logging_dir"}
# Suffixes of files that are run or rendered.
_CODE = {".py", ".jinja", ".css", ".js"}
# Sub-packages of which a script runs no file, so that a change there makes nothing stale. Everything else counts.
_NEVER_RUN = {
    "recipes": ("pipeline/", "report/"),
    "eval/run.py": ("training/", "rewards/", "hub/", "pipeline/", "report/"),
    "eval/report.py": ("training/", "rewards/", "hub/", "pipeline/"),
}


def set_keys(pipeline: Pipeline) -> None:
    """
    Give every stage its key, parents first: a key holds its parents' keys, so a change reaches all descendants.

    A key has six parts: `settings`, the recipe with its overrides but for where it lies; `files`, the content of every
    file or folder that the settings name, such as data, reward functions, chat templates and adapters from elsewhere,
    and the description of every data set;
    `code`, the recipe's script and all of this repository that it may run; `base`; `parents`; and `launch`.
    Library versions are no part: an upgrade would train everything anew. run.json has them, and the plan says which
    stages were trained with others.

    Args:
        pipeline ([`Pipeline`]):
            Its stages get `parts` and `key`.
    """
    keys: dict[str, str] = {}
    for stage in pipeline.stages:
        if stage.recipe is not None:
            files: dict[str, str] = {}
            kept = {key: value for key, value in stage.config.items() if key not in _NOT_HASHED}
            kept.pop("model_name_or_path")
            settings = _without_places(kept, (), pipeline, files)
            stage.parts = {
                "settings": _digest([stage.recipe, settings]),
                "files": _digest(files),
                "code": code_hash(f"recipes/{stage.recipe}.py"),
                "base": pipeline.base_hash,
                "parents": _digest([keys[parent] for parent in stage.parents]),
                "launch": _digest(pipeline.accelerate_config.read_text(encoding="utf-8")),
            }
            stage.key = _digest(stage.parts)
        keys[stage.name] = stage.key


def eval_key(pipeline: Pipeline, stage: Stage, product: str | None) -> str:
    """Hash of all that decides the results of a stage's eval: the adapter itself, base, tasks and the eval's code."""
    return _digest(
        {"tasks": stage.evals, "base": pipeline.base_hash, "adapter": product, "code": code_hash("eval/run.py")}
    )


def report_key(pipeline_json: Path) -> str:
    """Hash of all that decides the report: the pipeline's record, which names adapters and evals, and its code."""
    return _digest([pipeline_json.read_text(encoding="utf-8"), code_hash("eval/report.py")])


def is_done(pipeline: Pipeline, stage: Stage) -> bool:
    """
    Whether a stage's adapter is there, is what the stage made, and was made from its parents' present adapters.

    Args:
        pipeline ([`Pipeline`]), stage ([`Stage`]):
            The stage and its pipeline.

    Returns:
        `bool`: always true for the base model.
    """
    return not stale_reason(pipeline, stage)


def stale_reason(pipeline: Pipeline, stage: Stage) -> str:
    """
    What is to be trained, in a word or two.

    Args:
        pipeline ([`Pipeline`]), stage ([`Stage`]):
            The stage and its pipeline.

    Returns:
        `str`: empty for a stage that is done.
    """
    if stage.recipe is None:
        return ""
    state = read_json(stage.folder / "stage.json")
    if not state:
        return "new"
    if state.get("key") != stage.key:
        parts = state.get("parts", {})
        return f"changed: {', '.join(name for name in stage.parts if stage.parts[name] != parts.get(name))}"
    if state.get("status") != "done":
        return "goes on"
    if state.get("product") != product(stage):
        return "adapter lost or altered"
    parents = [parent for parent in pipeline.stages if parent.name in stage.parents]
    made_from = state.get("parents", {})
    fresh = [
        parent.name
        for parent in parents
        if stale_reason(pipeline, parent) or made_from.get(parent.name) != product(parent)
    ]
    return f"another {', '.join(fresh)}" if fresh else ""


def is_evaluated(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether a stage's eval is that of its present adapter, tasks and code, and still as it was written."""
    state = read_json(stage.folder / "eval" / "stage.json")
    return (
        state.get("status") == "done"
        and state.get("key") == eval_key(pipeline, stage, product(stage))
        and state.get("product") == eval_product(stage)
    )


def eval_product(stage: Stage) -> str | None:
    """Hash of a stage's results and graded samples, `None` where there are none."""
    folder = stage.folder / "eval"
    files = [folder / "results.json", *(folder / "samples" / f"{task}.jsonl" for task in stage.evals)]
    return _digest([_file_hash(file) for file in files]) if all(file.is_file() for file in files) else None


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
    """A JSON file's content; empty where it is missing, damaged or of another form."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def code_hash(script: str, root: Path | None = None) -> str:
    """
    Hash of a script and of all files of the package that it may run.

    Args:
        script (`str`):
            Such as `"recipes/sft.py"`.
        root (`Path`, *optional*):
            Folder that holds the script and the package, this project's own by default.

    Returns:
        `str`: the hash, which comments and docstrings do not change. Every file of the package counts but those that
        `_NEVER_RUN` leaves out: following imports would miss those that are made at run time.
    """
    package = root / "schoolhouse" if root else Path(__file__).parents[1]
    left_out = _NEVER_RUN[script if script in _NEVER_RUN else "recipes"]
    files = {
        name: file
        for file in package.rglob("*")
        if file.suffix in _CODE
        and not (name := file.relative_to(package).as_posix()).startswith((*left_out, "shipped/"))
    }
    files[script] = root / script if root else shipped(script)
    if script == "eval/run.py":
        # Tasks read data sets. A recipe's own data set is in the part `files` of its key.
        for name in ("data", "eval/tasks"):
            folder = root / name if root else shipped(name)
            files |= {f"{name}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*.yaml")}
    return _digest([[name, _source_hash(file)] for name, file in sorted(files.items())])


@cache
def _source_hash(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        return _digest(text)
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return _digest(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0].value.value = ""
    return _digest(ast.dump(tree))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _without_places(value: Any, where: tuple, pipeline: Pipeline, files: dict[str, str]) -> Any:
    """
    A config in which a path is only a name: what lies there is in `files`, and the pipeline's own folder is anywhere.
    """
    is_dataset = where[-1:] == ("dataset_name",) or (where[:1], where[-1:]) == (("datasets",), ("name",))
    if is_dataset and is_dataset_spec(value):
        files[".".join(map(str, where))] = _dataset_digest(value)
        return Path(value).name
    if isinstance(value, dict):
        return {key: _without_places(item, (*where, key), pipeline, files) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_without_places(item, (*where, index), pipeline, files) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value.startswith(f"{pipeline.folder}/"):
        return f"<pipeline>{value[len(str(pipeline.folder)) :]}"
    place, function = re.fullmatch(r"(.+?)(\.py:\w+)?", value, re.DOTALL).groups(default="")
    path = Path(place + function.partition(":")[0]).expanduser()
    try:
        content = _content(path)
    except OSError:  # a text that is no path at all
        return value
    if content is None:
        return value
    files[".".join(map(str, where))] = content
    return path.name + function.partition(":")[2]


def _dataset_digest(name: str) -> str:
    """Hash of a data set's YAML file, but for what it says of the data, and of the files that it names."""
    spec = load_dataset_spec(name)
    described = spec.model_dump(exclude={"description", "origin", "license"})
    return _digest([described, *map(_content, spec.files()[1:])])


def _content(path: Path) -> str | None:
    if path.is_file():
        return _file_hash(path)
    # A folder without a slash may be meant (`dataset_path: rows`), the working folder and what holds it never is.
    if not path.is_dir() or Path.cwd().is_relative_to(path.resolve()):
        return None
    return _digest(
        [[str(file.relative_to(path)), _file_hash(file)] for file in sorted(path.rglob("*")) if file.is_file()]
    )


def _file_hash(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
