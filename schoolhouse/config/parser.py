"""Parses a recipe: every mistake is one line that names its file and line, or its flag, and exit status 2."""

import argparse
import dataclasses
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_origin, get_type_hints

import yaml

from schoolhouse.config.errors import ConfigError, KeyPath, nearest, render
from schoolhouse.config.key_rules import REMOVED, RENAMED, check_bounds, refuse_conflicts
from schoolhouse.config.paths import adapter_settings, check_locations
from schoolhouse.config.value_types import arms, check_choice, check_type, describe
from schoolhouse.config.yaml_file import YamlError, load_mapping, parse_value


def has_native_bf16(use_cpu: bool = False) -> bool:
    """Whether the training device multiplies bf16 in hardware: CPUs and MPS count as not, emulation is slower."""
    import torch

    return not use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


class _Flags(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _exit(message.removeprefix("argument "))


def _exit(line: str) -> NoReturn:
    print(" ".join(line.split()), file=sys.stderr)
    raise SystemExit(2)


class RecipeParser:
    """
    Parses `--config FILE` and flags into dataclasses; a flag wins over the file, the file over `defaults`.

    Args:
        dataclass_types (`Sequence[type]`):
            Dataclasses whose fields are the keys, returned in this order.
        description (`str`, *optional*):
            Text above `--help`.
        required (`Sequence[str]`, *optional*):
            Keys that the file or a flag must set.
        defaults (`dict[str, Any]`, *optional*):
            The recipe's own defaults, instead of those of the dataclasses.

    Attributes:
        check (`bool`): whether `--check` was given.
        config_path (`Path` or `None`): the file.
        resolved (`dict[str, Any]`): every key that the file or a flag set, for the run record; never a token's value.
    """

    def __init__(
        self,
        dataclass_types: Sequence[type],
        description: str | None = None,
        required: Sequence[str] = (),
        defaults: dict[str, Any] | None = None,
    ):
        self.dataclass_types = tuple(dataclass_types)
        self.required = tuple(required)
        self.defaults = dict(defaults or {})
        self.fields: dict[str, dataclasses.Field] = {}
        self.hints: dict[str, Any] = {}
        for cls in self.dataclass_types:
            hints = get_type_hints(cls)
            for name in self._names(cls):
                self.fields[name] = cls.__dataclass_fields__[name]
                self.hints[name] = hints[name]
        unknown = {*self.required, *self.defaults} - set(self.fields)
        if unknown:
            raise ValueError(f"required or defaults name no field of the dataclasses: {sorted(unknown)}")
        self.check = False
        self.config_path: Path | None = None
        self.resolved: dict[str, Any] = {}
        self._lines: dict[KeyPath, int] = {}
        self._flagged: set[str] = set()
        self._flags = self._build_flags(description)

    @staticmethod
    def _names(cls: type) -> list[str]:
        return [spec.name for spec in dataclasses.fields(cls) if spec.init]

    def _build_flags(self, description: str | None) -> _Flags:
        flags = _Flags(
            description=description,
            usage="%(prog)s --config FILE [--check] [--KEY VALUE ...]",
            epilog="Nested values are YAML: --dataset_columns '{prompt: question}'. A flag wins over the file.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        flags.add_argument("--config", metavar="FILE", help="YAML file with the keys below")
        flags.add_argument("--check", action="store_true", help="validate and show the data, load no model")
        added: set[str] = set()
        for cls in sorted(self.dataclass_types, key=lambda cls: cls.__module__.startswith(("trl.", "transformers."))):
            names = [name for name in self._names(cls) if name not in added]
            group = flags.add_argument_group(cls.__name__)
            # What a class adds or changes itself says more about the recipe than what it inherits.
            own = inspect.get_annotations(cls)
            for name in sorted(names, key=lambda name: name not in own):
                group.add_argument(f"--{name}", default=argparse.SUPPRESS, **self._flag_options(name))
            added.update(names)
        return flags

    def _flag_options(self, name: str) -> dict[str, Any]:
        hint, spec = self.hints[name], self.fields[name]
        kinds = {get_origin(arm) or arm for arm in arms(hint)}
        default = self.defaults.get(name, None if spec.default is dataclasses.MISSING else spec.default)
        default = getattr(default, "value", default)
        words = " or ".join(str(choice) for choice in spec.metadata.get("choices") or ()) or describe(hint)
        told = f"{spec.metadata.get('help', '')} [{words.removesuffix(' or null')}; default: {default}]"
        options: dict[str, Any] = {"help": told.replace("%%", "%").replace("%", "%%"), "metavar": "VALUE"}
        if bool in kinds:
            options |= {"nargs": "?", "const": "true"}
        elif list in kinds:
            options |= {"nargs": "+"}
        return options

    def parse_args(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """
        Parses the command line and the file it names.

        Args:
            argv (`Sequence[str]`, *optional*):
                Arguments, `sys.argv[1:]` by default.

        Returns:
            `tuple`: one instance of each dataclass, in the order of `dataclass_types`.

        Raises:
            `SystemExit`: status 2 after one line on stderr.
        """
        argv = sys.argv[1:] if argv is None else argv
        argv = [re.sub(r"^--[\w-]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), text) for text in argv]
        known, unknown = self._flags.parse_known_args(argv)
        texts = vars(known)
        self.check, config = texts.pop("check"), texts.pop("config")
        self._flagged = set(texts)
        self._refuse_unknown_flags(unknown)
        values = self._read_config(config) if config else {}
        for key in values:
            if key not in self.fields:
                self.error(key, f"unknown key; {self._advice(key)}")
        for key, value in values.items():
            self._check_value(key, value)
        flags = {key: self._parse_flag(key, text) for key, text in texts.items()}
        self.resolved = values | flags
        for key in self.required:
            if self.resolved.get(key, self.defaults.get(key)) in (None, ""):
                self.error(key, "missing: every run of this recipe needs it, in the file or as a flag")
        in_file = {key: value for key, value in values.items() if key not in flags}
        try:
            refuse_conflicts(in_file, flags)
            check_locations(self.resolved)
            values = adapter_settings(self.defaults | self.resolved, set(self.resolved))
        except ConfigError as problem:
            self.error(problem.path, str(problem))
        self._follow_hardware(values)
        instances = self._instantiate(values)
        if self.resolved.get("hub_token"):
            self.resolved["hub_token"] = "<hidden>"
        return instances

    def error(self, key: str | KeyPath | None, message: str) -> NoReturn:
        """
        Ends the program with one line on stderr and status 2.

        Args:
            key (`str` or `tuple`):
                The key at fault, or the path to a nested one such as `("datasets", 1, "name")`. A key from the file is
                reported with the file and its line, one from the command line as `--key`, one that is set nowhere
                with the file's first line.
            message (`str`):
                What is wrong, what is allowed, and the fix.
        """
        path: KeyPath = (key,) if isinstance(key, str) else key or ()
        label = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        text = f"{label}: {message}" if label else message
        if path and (path[0] in self._flagged or self.config_path is None):
            _exit(f"--{text}")
        if self.config_path is None:
            _exit(f"command line: {text}")
        known = [self._lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._lines]
        _exit(f"{self.config_path}:{known[0] if known else 1}: {text}")

    def _refuse_unknown_flags(self, unknown: list[str]) -> None:
        for text in unknown[:1]:
            if not text.startswith("-"):
                _exit(f"command line: {text}: a value without a flag; a recipe is given as --config FILE")
            name = text.lstrip("-").partition("=")[0]
            _exit(f"--{name}: unknown flag; {self._advice(name)}")

    def _advice(self, key: str) -> str:
        if key in REMOVED:
            return REMOVED[key]
        names = [name for name in RENAMED.get(key, ()) if name in self.fields]
        return f"it is called {names[0]} here" if names else nearest(key, self.fields)

    def _read_config(self, config: str) -> dict[str, Any]:
        self.config_path = Path(config)
        try:
            values, self._lines = load_mapping(self.config_path.expanduser().read_bytes())
        except OSError as error:
            _exit(f"{config}:1: cannot read the recipe: {error.strerror}")
        except YamlError as error:
            _exit(f"{config}:{error.line}: {error}")
        return values

    def _check_value(self, key: str, value: Any) -> None:
        try:
            check_type(value, self.hints[key], (key,))
            choices = self.fields[key].metadata.get("choices")
            if choices and value is not None:
                check_choice(value, choices, (key,))
            check_bounds(value, (key,))
        except ConfigError as problem:
            self.error(problem.path, str(problem))

    def _parse_flag(self, key: str, text: str | list[str]) -> Any:
        kinds = set(arms(self.hints[key]))
        texts = text if isinstance(text, list) else [text]
        # Text stays as typed: `--eos_token '#'` and `--model_revision 1234567` are no YAML.
        if kinds <= {str, type(None)}:
            value = None if text == "null" and type(None) in kinds else text
        else:
            try:
                value = [parse_value(item) for item in texts]
            except yaml.YAMLError as error:
                self.error(key, f"{render(text)} is no YAML: {getattr(error, 'problem', error)}")
            alone = isinstance(text, list) and str not in kinds and not isinstance(value[0], list | dict | None)
            value = value if len(value) > 1 or alone else value[0]
        self._check_value(key, value)
        return value

    def _follow_hardware(self, values: dict[str, Any]) -> None:
        """bf16 where the device has it and nothing else was asked for; TRL would turn it on everywhere."""
        if not {"bf16", "dtype"} & set(self.fields):
            return
        native = has_native_bf16(values.get("use_cpu", False))
        if "bf16" in self.fields and values.get("bf16") is None:
            values["bf16"] = native and not values.get("fp16")
        if "dtype" in self.fields and values.get("dtype") is None:
            # Weights that are trained themselves need fp32: bf16 would round small updates away.
            frozen = values.get("use_peft", self.fields["use_peft"].default)
            values["dtype"] = "bfloat16" if native and frozen and values.get("bf16") else "float32"

    def _instantiate(self, values: dict[str, Any]) -> tuple[Any, ...]:
        instances = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            # TRL sets this key itself, so every run would be warned about what nobody wrote.
            warnings.filterwarnings("ignore", message=r"`gradient_checkpointing` is deprecated")
            for cls in self.dataclass_types:
                try:
                    instances.append(cls(**{name: values[name] for name in self._names(cls) if name in values}))
                # Whatever a library's own check raises is about our values.
                except (ValueError, TypeError, OverflowError, OSError, ImportError) as error:
                    self.error(_first_named(str(error), self.resolved), str(error))
        for warning in caught:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return tuple(instances)


def _first_named(message: str, keys: Iterable[str]) -> str | None:
    keys = set(keys)
    return next((word for word in re.findall(r"\w+", message) if word in keys), None)
