"""The parser of every script: each mistake is one line that names file and line, or the flag, and exit status 2."""

import argparse
import dataclasses
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_origin, get_type_hints

from schoolhouse.config.console import set_up_console
from schoolhouse.config.errors import ConfigError, FlagParser, KeyPath, exit_with, key_label, nearest, render
from schoolhouse.config.key_rules import LORA_KEYS, REMOVED, RENAMED, apply_renames, check_bounds, refuse_conflicts
from schoolhouse.config.paths import adapter_settings, check_locations
from schoolhouse.config.value_types import arms, check_type, describe
from schoolhouse.config.yaml_file import YamlFile, parse_value, read_yaml


def has_native_bf16(use_cpu: bool = False) -> bool:
    """Return whether the training device multiplies bf16 in hardware: CPUs and MPS do not, and emulation is slower."""
    import torch

    return not use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


# `--help` shows these; `--help all` shows every key.
_MAIN_KEYS = {
    *("model_name_or_path", "adapter_name_or_path", "dataset_name", "rewards", "output_dir", "learning_rate"),
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "max_length", "max_completion_length"),
    *("num_generations", "beta", "lora_r", "report_to"),
}


class RecipeParser:
    """
    Parser of `--config FILE` and flags into dataclasses; a flag wins over the file, the file over `defaults`.

    Fields may carry metadata: `help` (without it the docstring's `Args` are shown), `choices`, `bounds` (a key of
    [`~schoolhouse.config.key_rules.BOUNDS`]) and `comma` (text is split into a list at its commas).

    Args:
        dataclass_types (`Sequence[type]`):
            Dataclasses whose fields are the keys, returned in this order.
        description (`str`, *optional*):
            Text above `--help`.
        required (`Sequence[str]`, *optional*):
            Keys that the file or a flag must set.
        defaults (`dict[str, Any]`, *optional*):
            The recipe's own defaults, instead of those of the dataclasses.
        check (`str`, *optional*):
            Help of `--check`; `None` for a script without this flag.

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
        defaults: Mapping[str, Any] | None = None,
        check: str | None = "validate and show the data, load no model",
    ):
        self.dataclass_types = tuple(dataclass_types)
        self.required = tuple(required)
        self.defaults = dict(defaults or {})
        self.fields: dict[str, dataclasses.Field[Any]] = {}
        self.hints: dict[str, Any] = {}
        for cls in self.dataclass_types:
            hints = get_type_hints(cls)
            for spec in _fields(cls):
                self.fields[spec.name] = spec
                choices = spec.metadata.get("choices")
                self.hints[spec.name] = Literal[tuple(choices)] | None if choices else hints[spec.name]
        unknown = {*self.required, *self.defaults} - set(self.fields)
        if unknown:
            raise ValueError(f"required or defaults name no field of the dataclasses: {sorted(unknown)}")
        self.check = False
        self.config_path: Path | None = None
        self.resolved: dict[str, Any] = {}
        self._file: YamlFile | None = None
        self._flagged: set[str] = set()
        self._hidden: list[argparse.Action] = []
        self._flags = self._build_flags(description, check)

    def _build_flags(self, description: str | None, check: str | None) -> FlagParser:
        flags = FlagParser(
            description=description,
            usage=f"%(prog)s [--config FILE] {'[--check] ' if check else ''}[--KEY VALUE ...]",
            epilog="Nested values are YAML: --KEY '{name: value}'. A flag wins over the file.",
            add_help=False,
        )
        is_long = len(self.fields) > 40
        told = "the keys that matter most; `--help all` shows all" if is_long else "this message"
        flags.add_argument("-h", "--help", nargs="?", const="main", choices=("main", "all"), metavar="all", help=told)
        flags.add_argument("--config", metavar="FILE", help="YAML file with the keys below")
        if check:
            flags.add_argument("--check", action="store_true", help=check)
        added: set[str] = set()
        for cls in sorted(self.dataclass_types, key=lambda cls: cls.__module__.startswith(("trl.", "transformers."))):
            names = [spec.name for spec in _fields(cls) if spec.name not in added]
            group = flags.add_argument_group(cls.__name__)
            described = _described(cls)
            # A class's own keys, and those it changes, say more about the recipe than those it inherits.
            own = inspect.get_annotations(cls)
            for name in sorted(names, key=lambda name: name not in own):
                options = self._flag_options(name, described.get(name, ""))
                flag = group.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="VALUE", **options)
                if is_long and name not in _MAIN_KEYS:
                    self._hidden.append(flag)
            added.update(names)
        return flags

    def _print_help(self, asked: str) -> NoReturn:
        if asked == "main" and self._hidden:
            for flag in self._hidden:
                flag.help = argparse.SUPPRESS
            self._flags.epilog = f"{self._flags.epilog} `--help all` shows {len(self._hidden)} further keys."
        self._flags.print_help()
        raise SystemExit(0)

    def _flag_options(self, name: str, described: str) -> dict[str, Any]:
        spec, kinds = self.fields[name], {get_origin(arm) or arm for arm in arms(self.hints[name])}
        default = self.defaults.get(name, None if spec.default is dataclasses.MISSING else spec.default)
        told = f"{spec.metadata.get('help', described)} [{describe(self.hints[name])}"
        told += "]" if default is None else f"; default: {getattr(default, 'value', default)}]"
        options: dict[str, Any] = {"help": told.replace("%%", "%").replace("%", "%%")}
        if bool in kinds:
            options |= {"nargs": "?", "const": "true"}
        elif list in kinds:
            options |= {"nargs": "+"}
        return options

    def parse_args(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """
        Parse the command line and the file that it names.

        Args:
            argv (`Sequence[str]`, *optional*):
                Arguments, `sys.argv[1:]` by default.

        Returns:
            `tuple`: one instance of each dataclass, in the order of `dataclass_types`.

        Raises:
            SystemExit: status 2 after one line on stderr.
        """
        argv = sys.argv[1:] if argv is None else argv
        set_up_console()
        known, unknown = self._flags.parse_known_args([self._spell_flag(text) for text in argv])
        texts = vars(known)
        if asked := texts.pop("help"):
            self._print_help(asked)
        self.check, config = texts.pop("check", False), texts.pop("config")
        self._flagged = set(texts)
        self._refuse_unknown_flags(unknown)
        values = self._read_config(config) if config else {}
        flags = {key: self._parse_flag(key, text) for key, text in texts.items()}
        self.resolved = values | flags
        for key in self.required:
            if self.resolved.get(key, self.defaults.get(key)) in (None, ""):
                self.error(key, "missing: every run of this recipe needs it, in the file or as a flag")
        in_file = {key: value for key, value in values.items() if key not in flags}
        try:
            refuse_conflicts(in_file, flags)
            check_locations(self.resolved)
            values = self.defaults | self.resolved
            if "lora_r" in self.fields:
                values = adapter_settings(values, set(self.resolved))
        except ConfigError as error:
            self.error(error.path, error.message)
        for key in LORA_KEYS.keys() & self.fields.keys() & values.keys() - self.resolved.keys():
            self._check_value(key, values[key])  # of the adapter that is continued
        self._follow_hardware(values)
        instances = self._instantiate(values)
        if self.resolved.get("hub_token"):
            self.resolved["hub_token"] = "<hidden>"
        return instances

    @property
    def field_defaults(self) -> dict[str, Any]:
        """Values of keys that neither file, flags nor the recipe's own defaults set, where they are constants."""
        constant = {
            name: spec.default for name, spec in self.fields.items() if spec.default is not dataclasses.MISSING
        }
        return constant | self.defaults

    def error(self, key: str | KeyPath | None, message: str) -> NoReturn:
        """
        End the program with one line on stderr and status 2.

        Args:
            key (`str` or `tuple`, *optional*):
                The key at fault, or the path to a nested one such as `("datasets", 1, "name")`. A key from the file is
                reported with the file and its line, one from the command line as `--key`, one that is set nowhere with
                the file's first line.
            message (`str`):
                What is wrong, what is allowed, and the fix.
        """
        path: KeyPath = (key,) if isinstance(key, str) else key or ()
        text = f"{key_label(path)}: {message}" if path else message
        if path and (path[0] in self._flagged or self._file is None):
            exit_with(f"--{text}")
        exit_with(f"{self._file.place(path) if self._file else 'command line'}: {text}")

    def _spell_flag(self, text: str) -> str:
        """Return a flag with underscores for dashes, and with the new name of a former key."""
        flag = re.match(r"--([\w-]+)(.*)", text, re.DOTALL)
        if flag is None:
            return text
        name = flag[1].replace("-", "_")
        if name not in self.fields:
            (name,) = apply_renames("recipe", {name: None})
        return f"--{name}{flag[2]}"

    def _refuse_unknown_flags(self, unknown: list[str]) -> None:
        for text in unknown[:1]:
            if not text.startswith("-"):
                exit_with(f"command line: {text}: a value without a flag; a YAML file is given as --config FILE")
            name = text.lstrip("-").partition("=")[0]
            exit_with(f"--{name}: unknown flag; {self._advice(name)}")

    def _advice(self, key: str) -> str:
        if key in REMOVED:
            return REMOVED[key]
        names = [name for name in RENAMED.get(key, ()) if name in self.fields]
        return f"it is called {names[0]} here" if names else nearest(key, self.fields)

    def _read_config(self, config: str) -> dict[str, Any]:
        try:
            self._file = read_yaml(config)
            self._file.rename("recipe")
            rewards = self._file.values.get("rewards")
            for index, entry in enumerate(rewards if isinstance(rewards, list) else ()):
                self._file.rename(
                    f"rewards.{entry.get('name') if isinstance(entry, dict) else ''}", ("rewards", index)
                )
        except ConfigError as error:
            exit_with(str(error))
        self.config_path = self._file.path
        for key in self._file.values:
            if key not in self.fields:
                self.error(key, f"unknown key; {self._advice(key)}")
        return {key: self._check_value(key, value) for key, value in self._file.values.items()}

    def _check_value(self, key: str, value: Any) -> Any:
        metadata = self.fields[key].metadata
        if metadata.get("comma") and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        try:
            check_type(value, self.hints[key], (key,))
            check_bounds(value, (key,), metadata.get("bounds"))
        except ConfigError as error:
            self.error(error.path, error.message)
        return value

    def _parse_flag(self, key: str, text: str | list[str]) -> Any:
        kinds = set(arms(self.hints[key]))
        origins = {get_origin(kind) or kind for kind in kinds}
        texts = text if isinstance(text, list) else [text]
        # Text stays as typed: `--eos_token '#'` and `--model_revision 1234567` are no YAML.
        if self.fields[key].metadata.get("comma") or kinds <= {str, type(None)}:
            value: Any = ",".join(texts)
            return self._check_value(key, None if value == "null" and type(None) in kinds else value)
        # So do the items of a list of texts, unless the list itself is YAML.
        plain = list[str] in kinds and not texts[0].startswith("[") and texts != ["null"]
        try:
            values: list[Any] = texts if plain else [parse_value(item) for item in texts]
        except ConfigError as error:
            self.error(key, f"{render(texts[0] if len(texts) == 1 else text)} is no YAML: {error}")
        is_item = not isinstance(values[0], list | None) and (not isinstance(values[0], dict) or dict not in origins)
        alone = isinstance(text, list) and str not in kinds and is_item
        return self._check_value(key, values if len(values) > 1 or alone else values[0])

    def _follow_hardware(self, values: dict[str, Any]) -> None:
        """Set bf16 where the device has it and nothing else was asked for; TRL would turn it on everywhere."""
        if "bf16" not in self.fields:
            return
        native = has_native_bf16(values.get("use_cpu", False))
        if values.get("bf16") is None:
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
                given = {spec.name: values[spec.name] for spec in _fields(cls) if spec.name in values}
                try:
                    instances.append(cls(**given))
                except ConfigError as error:
                    self.error(error.path, error.message)
                # Whatever a library's own check raises is about our values.
                except (ValueError, TypeError, OverflowError, OSError, ImportError) as error:
                    self.error(_first_named(str(error), self.resolved), str(error))
        for warning in caught:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return tuple(instances)


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [spec for spec in dataclasses.fields(cls) if spec.init]


def _described(cls: type) -> dict[str, str]:
    """Return the descriptions of arguments in the docstrings of a class and its bases, which have TRL's form."""
    docstrings = [base.__doc__ or "" for base in reversed(cls.__mro__)]
    pattern = r"^( +)(\w+) \(.*\):\n((?:\1 +\S.*\n)+)"
    found = [match for text in docstrings for match in re.findall(pattern, text, re.MULTILINE)]
    return {name: " ".join(text.split()) for _, name, text in found}


def _first_named(message: str, keys: Iterable[str]) -> str | None:
    keys = set(keys)
    return next((word for word in re.findall(r"\w+", message) if word in keys), None)
