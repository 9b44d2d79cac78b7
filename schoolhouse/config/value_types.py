"""Values from YAML held against type hints."""

import math
import types
from collections.abc import Iterable
from difflib import get_close_matches
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import yaml

from schoolhouse.config.errors import ConfigError, KeyPath, nearest, render
from schoolhouse.config.yaml_file import parse_value


def check_type(value: Any, hint: Any, path: KeyPath = ()) -> None:
    """
    Holds a value that came from YAML against a type hint: scalars, `Literal`, `Enum`, `list`, `dict`, `TypedDict`
    (whose keys are checked too) and unions of them. An integer passes for a float, nothing else is converted.

    Args:
        value (`Any`):
            What the YAML said.
        hint (`Any`):
            Resolved type hint of the field.
        path (`tuple`, *optional*, defaults to `()`):
            Where the value stands, for the error.

    Raises:
        `ConfigError`: with the deepest path that is wrong.
    """
    kinds = arms(hint)
    problems = []
    for arm in kinds:
        try:
            return _check_arm(value, arm, path)
        except ConfigError as problem:
            problems.append(problem)
    deepest = max(problems, key=lambda problem: len(problem.path))
    if len(kinds) == 1 or len(deepest.path) > len(path):
        raise deepest
    # `None | X`: what X has to say is clearer than a list of alternatives.
    real = [problem for arm, problem in zip(kinds, problems, strict=True) if arm is not types.NoneType]
    if len(real) == 1:
        raise real[0]
    raise ConfigError(path, f"expected {describe(hint)}, got {render(value)}")


def arms(hint: Any) -> list[Any]:
    """The alternatives of a union, or the hint alone."""
    kinds = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    # `SchedulerType | str` accepts only the enum's values: the trainer turns the text into the enum.
    has_enum = any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds)
    return [kind for kind in kinds if not (has_enum and kind is str)]


def _check_arm(value: Any, arm: Any, path: KeyPath) -> None:
    origin, arguments = get_origin(arm) or arm, get_args(arm)
    if arm is Any:
        return
    if is_typeddict(arm):
        _check_type_or_raise(isinstance(value, dict), value, arm, path)
        hints = get_type_hints(arm)
        for key, item in value.items():
            if key not in hints:
                raise ConfigError((*path, key), f"unknown key; {nearest(key, hints)}")
            check_type(item, hints[key], (*path, key))
    elif origin is Literal or (isinstance(arm, type) and issubclass(arm, Enum)):
        choices = arguments or [member.value for member in arm]
        check_choice(value, choices, path)
    elif origin is list:
        _check_type_or_raise(isinstance(value, list), value, arm, path)
        for index, item in enumerate(value):
            check_type(item, arguments[0] if arguments else Any, (*path, index))
    elif origin is dict:
        _check_type_or_raise(isinstance(value, dict), value, arm, path)
        for key, item in value.items():
            check_type(item, arguments[1] if arguments else Any, (*path, key))
    elif arm is bool:
        quoted = isinstance(value, str) and isinstance(parse_plain(value), bool)
        _check_type_or_raise(isinstance(value, bool), value, arm, path, "remove the quotes" * quoted)
    elif arm is int:
        _check_type_or_raise(type(value) is int, value, arm, path, _unquote(value))
    elif arm is float:
        _check_type_or_raise(type(value) in (int, float), value, arm, path, _unquote(value))
        if not math.isfinite(value):
            raise ConfigError(path, f"expected a finite number, got {value}")
    elif arm is str:
        simple = isinstance(value, int | float)
        _check_type_or_raise(isinstance(value, str), value, arm, path, "quote it if text is meant" * simple)
    elif arm is types.NoneType:
        _check_type_or_raise(value is None, value, arm, path)
    else:
        raise ConfigError(path, "cannot be set from YAML or a flag, only from Python")


def _check_type_or_raise(matches: bool, value: Any, hint: Any, path: KeyPath, advice: str = "") -> None:
    if not matches:
        raise ConfigError(path, f"expected {describe(hint)}, got {render(value)}" + f": {advice}" * bool(advice))


def _unquote(value: Any) -> str:
    return "remove the quotes" * (isinstance(value, str) and type(parse_plain(value)) in (int, float))


def parse_plain(text: str) -> Any:
    """What `text` would be without quotes, or the text itself where it is no valid YAML."""
    try:
        return parse_value(text)
    except yaml.YAMLError:
        return text


def check_choice(value: Any, choices: Iterable[Any], path: KeyPath = ()) -> None:
    """Raises `ConfigError`, naming the nearest choice, unless `value` is one of `choices`, type included."""
    choices = list(choices)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(path, f"{render(value)} is not a choice; {hint}choices: {', '.join(map(str, choices))}")


def describe(hint: Any) -> str:
    """A type hint in words, such as `an integer or null`."""
    kinds = arms(hint)
    if len(kinds) > 1:
        return " or ".join(dict.fromkeys(describe(kind) for kind in kinds))
    (arm,) = kinds
    origin, arguments = get_origin(arm) or arm, get_args(arm)
    words = {bool: "true or false", int: "an integer", float: "a number", str: "text", types.NoneType: "null"}
    if arm in words:
        return words[arm]
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if isinstance(arm, type) and issubclass(arm, Enum):
        return "one of " + ", ".join(str(member.value) for member in arm)
    if origin is list:
        return f"a list (items: {describe(arguments[0])})" if arguments else "a list"
    return "a mapping" if origin is dict or is_typeddict(arm) else "any value" if arm is Any else arm.__name__
