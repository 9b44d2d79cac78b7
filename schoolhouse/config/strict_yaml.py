"""YAML that remembers its lines, and values held against type hints; what stock loaders let pass is an error here."""

import math
import re
import types
from collections.abc import Iterable
from difflib import get_close_matches
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import yaml


KeyPath = tuple[str | int, ...]


class StrictYamlError(Exception):
    """A file that is not one YAML mapping with unique text keys; `line` counts from 1."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line = line


class ValueProblem(Exception):
    """A value that its type hint does not admit; `path` leads to it, such as `("datasets", 1, "weight")`."""

    def __init__(self, path: KeyPath, message: str):
        super().__init__(message)
        self.path = path


class _Loader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2: `no` is text, `1e-4` a number, `2024-01-01` and `1:30` are text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  PyYAML looks resolvers up on the class


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def parse_value(text: str) -> Any:
    """Reads one YAML value, such as a flag's argument; raises `yaml.YAMLError`."""
    return yaml.load(text, _Loader)


def load_mapping(raw: bytes) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """
    Reads a YAML mapping and the line of every key and list item in it.

    Args:
        raw (`bytes`):
            The file's content, UTF-8.

    Returns:
        `tuple[dict, dict]`: the values, and the line (from 1) of each path into them. A key that came through a merge
        (`<<`) has the line where it is written.

    Raises:
        `StrictYamlError`: not UTF-8, a syntax error, a duplicate or non-text key, or no mapping.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise StrictYamlError(line, "not a UTF-8 text file: is this a recipe, or a model or archive?") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(loader, node, (), lines, ())
        values = None if node is None else loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StrictYamlError(line, f"character {chr(error.character)!r} may not stand in YAML") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from None
    if values is None:
        raise StrictYamlError(1, "the file is empty: write `key: value` lines, such as `model_name_or_path: ...`")
    if not isinstance(values, dict):
        line = node.start_mark.line + 1
        raise StrictYamlError(line, f"expected `key: value` lines, got {render(values)} as the whole file")
    return values, lines


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> StrictYamlError:
    mark = error.problem_mark or error.context_mark
    rows = text.split("\n")
    if mark.index < len(text) and text[mark.index] == "\t":
        return StrictYamlError(mark.line + 1, "a tab where YAML wants spaces: indent with spaces")
    # An unclosed bracket or quote and a key without colon are noticed lines later than they were written.
    if error.context_mark and re.search(r"flow|quoted|simple key", error.context or ""):
        mark = error.context_mark
    shown = rows[mark.line].strip() if mark.line < len(rows) else ""
    problem = error.problem
    if (error.context or "").startswith("expected"):
        problem = f"{error.context}, {problem}"
    elif problem.startswith("mapping values"):
        problem = "a stray indent, a second `: ` on one line, or a line above without its colon,"
    return StrictYamlError(mark.line + 1, f"YAML syntax: {problem} in {render(shown)}")


def _walk(
    loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], above: tuple[yaml.Node, ...]
) -> None:
    """Records the line of every path below `node` and refuses duplicate and non-text keys, tags and cycles."""
    if node in above:
        raise StrictYamlError(node.start_mark.line + 1, "an anchor that contains itself")
    above = (*above, node)
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if node.tag != loader.resolve(type(node), node.value, (plain, not plain)):
        raise StrictYamlError(node.start_mark.line + 1, "recipes use no YAML tags (`!name`): write the plain value")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(loader, item, (*path, index), lines, above)
    elif isinstance(node, yaml.MappingNode):
        written: dict[str, int] = {}
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        for source in merged:
            for mapping in source.value if isinstance(source, yaml.SequenceNode) else [source]:
                _walk(loader, mapping, path, lines, above)
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise StrictYamlError(line, f"keys must be text, got {shown}: quote it if it is meant as a name")
            if key.value in written:
                raise StrictYamlError(line, f"{key.value}: duplicate key, first set on line {written[key.value]}")
            written[key.value] = line
            lines[(*path, key.value)] = line
            _walk(loader, value, (*path, key.value), lines, above)


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
        `ValueProblem`: with the deepest path that is wrong.
    """
    kinds = arms(hint)
    problems = []
    for arm in kinds:
        try:
            return _check_arm(value, arm, path)
        except ValueProblem as problem:
            problems.append(problem)
    deepest = max(problems, key=lambda problem: len(problem.path))
    if len(kinds) == 1 or len(deepest.path) > len(path):
        raise deepest
    # `None | X`: what X has to say is clearer than a list of alternatives.
    real = [problem for arm, problem in zip(kinds, problems, strict=True) if arm is not types.NoneType]
    if len(real) == 1:
        raise real[0]
    raise ValueProblem(path, f"expected {describe(hint)}, got {render(value)}")


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
                raise ValueProblem((*path, key), f"unknown key; {nearest(key, hints)}")
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
            raise ValueProblem(path, f"expected a finite number, got {value}")
    elif arm is str:
        simple = isinstance(value, int | float)
        _check_type_or_raise(isinstance(value, str), value, arm, path, "quote it if text is meant" * simple)
    elif arm is types.NoneType:
        _check_type_or_raise(value is None, value, arm, path)
    else:
        raise ValueProblem(path, "cannot be set from YAML or a flag, only from Python")


def _check_type_or_raise(matches: bool, value: Any, hint: Any, path: KeyPath, advice: str = "") -> None:
    if not matches:
        raise ValueProblem(path, f"expected {describe(hint)}, got {render(value)}" + f": {advice}" * bool(advice))


def _unquote(value: Any) -> str:
    return "remove the quotes" * (isinstance(value, str) and type(parse_plain(value)) in (int, float))


def parse_plain(text: str) -> Any:
    """What `text` would be without quotes, or the text itself where it is no valid YAML."""
    try:
        return parse_value(text)
    except yaml.YAMLError:
        return text


def check_choice(value: Any, choices: Iterable[Any], path: KeyPath = ()) -> None:
    """Raises `ValueProblem`, naming the nearest choice, unless `value` is one of `choices`, type included."""
    choices = list(choices)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        near = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueProblem(path, f"{render(value)} is not a choice; {hint}choices: {', '.join(map(str, choices))}")


def nearest(key: Any, known: Iterable[str]) -> str:
    """`did you mean X?`, or the known keys where nothing is near and they are few."""
    known = list(known)
    near = get_close_matches(str(key), known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known keys: {', '.join(known)}" if len(known) < 20 else "no known key is near; --help lists all"


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


def render(value: Any) -> str:
    """A value as an error shows it: its kind and its text, on one line and short."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
