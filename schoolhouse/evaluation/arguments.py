"""Arguments of `eval/run.py`: flags, and the same keys in a YAML file, both strict."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml


@dataclass
class EvalArguments:
    """
    What `eval/run.py` can be told, by a flag or by a key of the `--config` file. A flag wins over the file.

    Args:
        model_name_or_path (`str`, *optional*):
            Hub id or folder of the base model.
        adapter_name_or_path (`str`, *optional*):
            Hub id or folder of a LoRA adapter on it.
        revision (`str`, *optional*):
            Branch, tag or commit of the base model on the Hub.
        tasks (`list[str]`, *optional*):
            Names of tasks, separated by commas.
        output_dir (`str`, *optional*):
            Folder of results.json and the samples, or of the comparison.json of `--compare`.
        task_paths (`dict[str, str]`, *optional*):
            Task -> local file or folder to read instead of the Hub.
        trained_on (`list[str]`, *optional*):
            Training data (NAME, NAME=PATH or a file), for a second score on the items that share nothing with it.
        limit (`int`, *optional*):
            Number of items of each task, from the top.
        num_samples (`int`, *optional*):
            Completions per item, instead of the task's own number (1 but for tiny_descriptions).
        temperature (`float`, *optional*):
            Of the sampling, instead of the task's own (0, greedy, but for tiny_descriptions).
        top_p (`float`, *optional*, defaults to `1.0`):
            Share of the probability that is sampled from.
        max_new_tokens (`int`, *optional*):
            Length at which completions are cut, instead of the task's own.
        seed (`int`, *optional*, defaults to `42`):
            Of the sampling.
        batch_size (`int`, *optional*, defaults to `64`):
            Most sequences of a batch.
        tokens_per_batch (`int`, *optional*, defaults to `32768`):
            Most tokens of a batch, prompts and completions.
        dtype (`str`, *optional*):
            float32, bfloat16 or float16, instead of what suits the hardware.
        device (`str`, *optional*):
            Torch device, instead of the fastest one.
        compare (`list[str]`, *optional*):
            Two folders of results, before and after: their paired tests; nothing is evaluated.
        export_lm_eval (`str`, *optional*):
            Folder of results to write in lm-eval's layout into output_dir; nothing is evaluated.
    """

    model_name_or_path: str | None = None
    adapter_name_or_path: str | None = None
    revision: str | None = None
    tasks: list[str] = field(default_factory=list)
    output_dir: str | None = None
    task_paths: dict[str, str] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    limit: int | None = None
    num_samples: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    max_new_tokens: int | None = None
    seed: int = 42
    batch_size: int = 64
    tokens_per_batch: int = 32_768
    dtype: str | None = None
    device: str | None = None
    compare: list[str] = field(default_factory=list)
    export_lm_eval: str | None = None

    def __post_init__(self):
        if self.compare:
            if len(self.compare) != 2:
                raise ValueError(f"compare names {len(self.compare)} folders: it wants two, before and after")
            return
        for name in ("output_dir",) if self.export_lm_eval else ("model_name_or_path", "tasks", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is missing: give --{name} or set it in the --config file")
        for name in ("limit", "num_samples", "max_new_tokens", "batch_size", "tokens_per_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: it must be 0 or more")
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype is {self.dtype!r}: choose float32, bfloat16 or float16")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks is {', '.join(self.tasks)}: name each task once")
        if unused := sorted(set(self.task_paths) - set(self.tasks)):
            raise ValueError(f"task_paths names {unused[0]}, which is not among the tasks ({', '.join(self.tasks)})")
        for name, path in self.task_paths.items():
            if not Path(path).expanduser().exists():
                raise ValueError(f"task_paths: {name} is to be read from {path}, which does not exist")


def parse_arguments(argv: list[str]) -> EvalArguments:
    """
    Reads the command line, and the YAML file that `--config` names.

    Args:
        argv (`list[str]`):
            The command line without the script.

    Returns:
        [`EvalArguments`]: the checked arguments.

    Raises:
        ValueError: naming flag, or file and line, for an unknown or doubled key, a wrong type or a value out of range.
    """
    parser = _Parser(prog="eval/run.py", description="Evaluate a model on tasks, or compare two results.")
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file with the same keys")
    summaries = _summaries()
    for option in dataclasses.fields(EvalArguments):
        shape = {"nargs": 2, "metavar": ("BEFORE", "AFTER")} if option.name == "compare" else {"metavar": "X"}
        parser.add_argument(f"--{option.name}", default=argparse.SUPPRESS, help=summaries[option.name], **shape)
    flags = vars(parser.parse_args(argv))
    config = flags.pop("config")
    values = _read_yaml(config) if config else {}
    for name, text in flags.items():
        values[name] = text if name == "compare" else _typed(name, text, f"--{name}", is_flag=True)
    return EvalArguments(**values)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; --help lists the flags")


def _summaries() -> dict[str, str]:
    # The docstring is the one place where arguments are described.
    lines = [line.strip() for line in EvalArguments.__doc__.splitlines()]
    heads = {line.split(" (`")[0]: number for number, line in enumerate(lines) if " (`" in line}
    return {name: lines[number + 1].replace("%", "%%") for name, number in heads.items()}


def _read_yaml(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise ValueError(f"config file {path} does not exist")
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = error.problem_mark.line + 1 if getattr(error, "problem_mark", None) else 1
        raise ValueError(f"{path}:{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise ValueError(f"{path}:1: holds no keys: write `key: value` lines")
    known = [option.name for option in dataclasses.fields(EvalArguments)]
    loader = yaml.SafeLoader("")
    values: dict[str, Any] = {}
    for key_node, value_node in root.value:
        key, place = key_node.value, f"{path}:{key_node.start_mark.line + 1}"
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ValueError(f"{place}: unknown key {key!r}; {hint}")
        if key in values:
            raise ValueError(f"{place}: key {key!r} is given twice")
        try:
            value = loader.construct_object(value_node, deep=True)
        except yaml.YAMLError as error:
            raise ValueError(f"{place}: {key}: {error.problem}") from None
        values[key] = _typed(key, value, f"{place}: {key}")
    return values


def _typed(name: str, value: Any, place: str, is_flag: bool = False) -> Any:
    """The value in the type of the field `name`; the text of a flag is read as YAML unless a text is wanted."""
    option = next(option for option in dataclasses.fields(EvalArguments) if option.name == name)
    wanted = option.type.removesuffix(" | None")
    if wanted.startswith("list") and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif is_flag and not wanted.startswith("str"):
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if value is None and option.default is None:
        return None
    if wanted == "float":
        try:
            return float(value) if not isinstance(value, bool) else _refuse(place, value, wanted)
        except (TypeError, ValueError):  # YAML 1.1 takes 1e-5 for a text, so texts are tried too
            _refuse(place, value, wanted)
    matches = {
        "str": isinstance(value, str),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "list[str]": isinstance(value, list) and all(isinstance(part, str) for part in value),
        "dict[str, str]": isinstance(value, dict)
        and all(isinstance(part, str) for pair in value.items() for part in pair),
    }
    return value if matches[wanted] else _refuse(place, value, wanted)


def _refuse(place: str, value: Any, wanted: str) -> NoReturn:
    names = {"str": "a text", "int": "a whole number", "float": "a number", "list[str]": "names with commas between"}
    raise ValueError(f"{place} is {value!r}: it wants {names.get(wanted, 'a mapping, {task: path}')}")
