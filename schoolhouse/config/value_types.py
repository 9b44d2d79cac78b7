"""Values from YAML held against type hints by pydantic, and its errors in our words."""

import dataclasses
import json
import re
from difflib import get_close_matches
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

from schoolhouse.config.errors import ConfigError, KeyPath, nearest, render


# pydantic's kinds of errors -> the type that was wanted.
_WANTED = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
}
_CHOICES = ("literal_error", "enum")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def check_type(value: Any, hint: Any, path: KeyPath = ()) -> None:
    """
    Raise a [`ConfigError`], with the deepest path that is wrong, for a value from YAML that a type hint does not
    admit.

    An integer passes for a float; nothing else is converted.
    """
    adapter = _adapter(hint)
    if adapter is None:
        raise ConfigError(path, "cannot be set from YAML or a flag, only from Python")
    try:
        text = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a flag of other bytes
        raise ConfigError(path, f"{render(value)} is not UTF-8 text") from None
    try:
        adapter.validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        wrong = to_config_error(error, value, hint)
        raise ConfigError((*path, *wrong.path), wrong.message) from None


def arms(hint: Any) -> list[Any]:
    """Return the alternatives of a union, or the hint alone."""
    kinds = list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
    # `SchedulerType | str` accepts only the enum's values: the trainer turns the text into the enum.
    has_enum = any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds)
    return [kind for kind in kinds if not (has_enum and kind is str)]


def describe(hint: Any) -> str:
    """Return a type hint in words, such as `an integer or text`; null is not mentioned."""
    adapter = _adapter(hint)
    try:
        if adapter is not None:
            # No field takes this value, so that the errors name all that it does take.
            adapter.validate_python(object(), strict=True)
    except ValidationError as error:
        return _wanted(error.errors(include_url=False))
    return "any value" if adapter else "only from Python"


def to_config_error(error: ValidationError, value: Any, hint: Any) -> ConfigError:
    """
    Return the deepest of pydantic's errors in our words.

    The whole `value` tells keys from the names of a union's alternatives in the error's location.
    """
    found = [(_path_in(value, details), details) for details in error.errors(include_url=False)]
    path = max((path for path, _ in found), key=len)
    wrong = [details for where, details in found if where == path]
    for details in wrong:
        if details["type"] in _UNKNOWN:
            return ConfigError(path, f"unknown key; {nearest(path[-1], _keys(hint, path[:-1]))}")
        if details["type"] in ("missing", "missing_argument"):
            return ConfigError(path, f"{details['loc'][-1]} is missing")
    got = wrong[0]["input"]
    if all(details["type"] in _CHOICES for details in wrong):
        choices = " or ".join(details["ctx"]["expected"] for details in wrong)
        near = get_close_matches(str(got), re.findall(r"'([^']*)'", choices), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return ConfigError(path, f"{render(got)} is not a choice; {hint}choices: {choices.replace(chr(39), '')}")
    if any(details["type"] in {*_WANTED, *_CHOICES} for details in wrong):
        return ConfigError(path, f"expected {_wanted(wrong)}, got {render(got)}{_advice(got, wrong)}")
    message = wrong[0]["msg"].removeprefix("Value error, ")
    return ConfigError(path, message.replace("Input should", "must") + f", got {render(got)}" * ("Input" in message))


@cache
def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    # A dataclass of a library, such as accelerate's `ParallelismConfig`, would arrive there as a plain mapping.
    kinds = [kind for kind in arms(hint) if not dataclasses.is_dataclass(kind)]
    union: Any = Union[tuple(kinds)]  # noqa: UP007
    try:
        return TypeAdapter(union) if set(kinds) - {type(None)} else None
    except PydanticSchemaGenerationError:
        return None


def _wanted(wrong: list[ErrorDetails]) -> str:
    words = [
        f"one of {details['ctx']['expected'].replace(chr(39), '')}"
        if details["type"] in _CHOICES
        else _WANTED.get(details["type"], details["type"])
        for details in wrong
    ]
    return " or ".join(dict.fromkeys(words))


def _advice(got: Any, wrong: list[ErrorDetails]) -> str:
    kinds = {details["type"] for details in wrong}
    if isinstance(got, int | float) and "string_type" in kinds:
        return ": quote it if text is meant"
    words = {"bool_type": r"true|false", "int_type": r"[-+]?\d+", "float_type": r"[-+]?[\d.]+(e[-+]?\d+)?"}
    if isinstance(got, str) and any(re.fullmatch(words[kind], got, re.I) for kind in kinds & set(words)):
        return ": remove the quotes"
    return ""


def _path_in(value: Any, details: ErrorDetails) -> KeyPath:
    """Return the path of an error inside `value`, without pydantic's names for the alternatives of a union."""
    path: list[str | int] = []
    for part in details["loc"]:
        inside = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if part in inside:
            path.append(part)
            value = value[part]
    return tuple(path)


def _keys(hint: Any, path: KeyPath) -> list[str]:
    """Return the keys that the type admits in the mapping at `path`."""
    found: list[str] = []
    for kind in arms(hint):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        else:
            fields = get_type_hints(kind) if dataclasses.is_dataclass(kind) or is_typeddict(kind) else {}
        if not path:
            found += fields
        elif path[0] in fields:
            found += _keys(fields[path[0]], path[1:])
        elif get_origin(kind) in (list, dict):
            found += _keys(get_args(kind)[-1], path[1:])
    return found
