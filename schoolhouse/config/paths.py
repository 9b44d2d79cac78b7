"""Paths that a recipe names, checked before anything is loaded: models, data, the adapter that is continued."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from schoolhouse.config.errors import ConfigError, KeyPath, render
from schoolhouse.config.key_rules import LORA_KEYS


# Two local folders that differ in one of these are certainly different bases; their weights are not read.
_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")

_DATA_FILES = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".yaml", ".yml")

# First parts of the paths that `shipped` knows.
_SHIPPED = (("recipes",), ("data",), ("eval",), ("accelerate_config.yaml",))

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(relative: str) -> Path:
    """
    Return the path of a file of this project, given from the root of the checkout, such as `"recipes/sft.py"`.

    An installed package has such files inside, in `shipped/`.
    """
    checkout = _PACKAGE.parent
    return (checkout if (checkout / "pyproject.toml").is_file() else _PACKAGE / "shipped") / relative


def find_file(name: str | Path) -> Path:
    """
    Return the path of a file or folder that a recipe or a flag names, without `~`, seen from the working folder.

    One that is not there and begins with a folder of this project, such as `"data/tiny/base"` or
    `"recipes/configs/tiny/sft.yaml"`, is looked up among the shipped files, so that an installed package works from
    any folder.
    """
    path = Path(name).expanduser()
    if _exists(path) or ".." in path.parts or path.parts[:1] not in _SHIPPED:
        return path
    found = shipped(path.as_posix())
    return found if _exists(found) else path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have, being too long or with a NUL
        return False


def as_path(name: str) -> Path | None:
    """Return the path that `name` must be, or `None` where it may be a Hub id or a name of ours."""
    path = Path(name).expanduser()
    looks = name.startswith(("./", "../", "/", "~")) or name in (".", "..") or name.count("/") > 1
    return path if looks or _exists(path) or path.suffix in _DATA_FILES else None


def check_locations(values: dict[str, Any]) -> None:
    """
    Find the files and folders that a recipe names, and put their paths into `values`, see [`find_file`].

    A path that does not exist, or that of an adapter where a model is wanted, is a [`ConfigError`].
    """
    keys = ("model_name_or_path", "adapter_name_or_path", "dataset_name", "dataset_path")
    places: list[tuple[dict[str, Any], str, KeyPath]] = [(values, key, (key,)) for key in keys]
    for index, entry in enumerate(values.get("datasets") or ()):
        places += [(entry, key, ("datasets", index, key)) for key in ("name", "path")]
    for holder, key, where in places:
        if not holder.get(key):
            continue
        if (found := run_product(find_file(holder[key]), key)) != Path(holder[key]):
            holder[key] = str(found)
        path = found if key in ("dataset_path", "path") else as_path(holder[key])
        if path is not None and not _exists(path):
            raise ConfigError(where, f"{render(holder[key])} does not exist, seen from {Path.cwd()}")
        if key == "model_name_or_path" and path is not None and not (path / "config.json").is_file():
            is_adapter = (path / "adapter_config.json").is_file()
            advice = ": it is an adapter, set adapter_name_or_path" if is_adapter else ""
            raise ConfigError(where, f"{render(holder[key])} has no config.json, so it is no model{advice}")


# What a run folder holds, and the file that such a folder has.
_PRODUCTS = {
    "adapter_name_or_path": ("adapter", "adapter_config.json"),
    "model_name_or_path": ("model", "config.json"),
}


def run_product(path: Path, key: str) -> Path:
    """Return the adapter or model in a run folder, where one is named; else the path as it is."""
    name, file = _PRODUCTS.get(key, ("", ""))
    return path / name if name and not (path / file).exists() and (path / name / file).is_file() else path


def adapter_settings(values: dict[str, Any], written: Container[str]) -> dict[str, Any]:
    """
    Return a recipe's keys with the LoRA settings of the local adapter that it continues: peft would use those in any
    case.

    `values` are the keys with their defaults, `written` those that the user set. A contradiction between these and the
    adapter, another base, or no LoRA adapter is a [`ConfigError`].
    """
    name = values.get("adapter_name_or_path")
    folder = as_path(name) if name else None
    if folder is None:
        return values
    if not (folder / "adapter_config.json").is_file():
        advice = ": it is a model, set model_name_or_path" if (folder / "config.json").is_file() else ""
        message = f"{render(name)} has no adapter_config.json, so it is no adapter{advice}"
        raise ConfigError(("adapter_name_or_path",), message)
    adapter = _read_object(folder / "adapter_config.json")
    if (kind := adapter.get("peft_type")) != "LORA":
        raise ConfigError(("adapter_name_or_path",), f"only LoRA is continued, this is {render(kind)}")
    theirs = {ours: adapter[key] for ours, key in LORA_KEYS.items() if adapter.get(key) is not None}
    for key in filter(written.__contains__, LORA_KEYS):
        mine, value = values[key], theirs.get(key)
        # peft saved the modules that "all-linear" stood for on this base.
        if mine != "all-linear" and _as_set(mine) != _as_set(value):
            raise ConfigError((key,), f"{mine} contradicts the adapter being continued, which has {value}: remove it")
    base, mine = adapter.get("base_model_name_or_path"), values.get("model_name_or_path")
    if not isinstance(base, str | None):
        raise ConfigError(("adapter_name_or_path",), f"its base_model_name_or_path must be text, got {render(base)}")
    if base and mine and _differ(base, mine):
        raise ConfigError(("adapter_name_or_path",), f"it was trained on {base}, but model_name_or_path is {mine}")
    return values | theirs


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(("adapter_name_or_path",), f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(("adapter_name_or_path",), f"{path} holds no JSON object but {render(values)}")
    return values


def _as_set(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    return frozenset([value]) if isinstance(value, str) else value


def _differ(base: str, other: str) -> bool:
    """Return whether two names are certainly different bases: other Hub names, or local folders of other shapes."""
    paths = [as_path(base), as_path(other)]
    if paths == [None, None]:
        names = [name.rpartition("/")[2].lower() for name in (base, other)]
        return names[0] != names[1]
    configs = [path / "config.json" for path in paths if path is not None]
    if len(configs) < 2 or not all(config.is_file() for config in configs):
        return False
    ours, theirs = map(_read_object, configs)
    return any(ours.get(key) != theirs.get(key) for key in _SHAPE)
