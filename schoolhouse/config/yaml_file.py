"""YAML 1.2 with the line of each key; duplicate keys, tags and more that stock loaders let pass are errors."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from schoolhouse.config.errors import ConfigError, KeyPath, key_label, render
from schoolhouse.config.key_rules import apply_renames
from schoolhouse.config.paths import find_file
from schoolhouse.config.value_types import to_config_error


T = TypeVar("T")

_TAG = "tag:yaml.org,2002:"
_NO_TEXT = [f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float")]
# Neither a recipe nor a task comes near these; a few aliases can stand for billions of values.
_MOST_VALUES = 50_000
_LONGEST = 250_000  # characters
_DEEPEST = 100


class YamlError(ConfigError):
    """Text that is not one YAML value with unique text keys; `line` counts from 1."""

    def __init__(self, line: int, message: str):
        super().__init__((), message)
        self.line = line


@dataclass(frozen=True)
class YamlFile:
    """
    A YAML mapping that was read from a file.

    Args:
        path (`Path`):
            Where it was found.
        values (`dict[str, Any]`):
            Its content: text, numbers, `True`, `False`, `None`, lists and mappings with text keys.
        lines (`dict[KeyPath, int]`):
            Line, from 1, of every key and list item, such as `("datasets", 1, "weight")`.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]

    def place(self, path: KeyPath) -> str:
        """Return `file:line` of a key, or of the nearest key above it that the file holds."""
        known = [self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines]
        return f"{self.path}:{known[0] if known else 1}"

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """Return an error whose text names file, line and key; an empty path stands for the whole file."""
        label = f"{key_label(path)}: " if path else ""
        return ConfigError((), f"{self.place(path)}: {label}{message}")

    def rename(self, where: str, path: KeyPath = ()) -> None:
        """Give the former keys of the mapping at `path` their new names, in place; see [`apply_renames`]."""
        mapping: Any = self.values
        for part in path:
            mapping = mapping[part]
        if not isinstance(mapping, dict):
            return  # its type is an error of its own
        try:
            renamed = apply_renames(where, mapping, lambda key: (str(self.path), self.lines[*path, key]))
        except ConfigError as error:
            raise self.error((*path, *error.path), error.message) from None
        for old, new in zip(mapping, renamed, strict=True):
            self.lines[*path, new] = self.lines[*path, old]
        mapping.clear()
        mapping.update(renamed)

    def parse(self, kind: type[T]) -> T:
        """
        Return the content as a dataclass or a pydantic model.

        Unknown keys and values of other types are a [`ConfigError`] with file, line and key.
        """
        try:
            return TypeAdapter(kind).validate_json(json.dumps(self.values), strict=True, extra="forbid")
        except ValidationError as error:
            wrong = to_config_error(error, self.values, kind)
            raise self.error(wrong.path, wrong.message) from None


def read_yaml(path: str | Path) -> YamlFile:
    """
    Read a file that holds one YAML mapping; one that Schoolhouse ships is also found from another working folder.

    No such file, no UTF-8 text, wrong syntax, a key that is given twice or is no text, or no mapping at all is a
    [`ConfigError`] with file and line.
    """
    found = find_file(path)
    try:
        values, lines = load_mapping(found.read_bytes())
    except OSError as error:
        raise ConfigError((), f"{path}:1: cannot be read: {error.strerror}, seen from {Path.cwd()}") from None
    except YamlError as error:
        raise ConfigError((), f"{found}:{error.line}: {error.message}") from None
    return YamlFile(found, values, lines)


def load_mapping(raw: bytes) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """
    Return the YAML mapping in a file's content, and the line (from 1) of each path into it.

    A key that came through a merge (`<<`) has the line where it is written. What [`read_yaml`] refuses is a
    [`YamlError`].
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YamlError(line, "not a UTF-8 text file: is this a recipe, or a model or archive?") from None
    node = _compose(text)
    reader = _NodeReader()
    values = None if node is None else reader.read(node, ())
    if node is None or values is None:
        raise YamlError(1, "the file is empty: write `key: value` lines, such as `model_name_or_path: ...`")
    if not isinstance(values, dict):
        raise YamlError(_line(node), f"expected `key: value` lines, got {render(values)} as the whole file")
    return values, reader.lines


def parse_value(text: str) -> Any:
    """Return one YAML value, such as the argument of a flag; raise [`YamlError`] where it is none."""
    node = _compose(text)
    return None if node is None else _NodeReader().read(node, ())


def _compose(text: str) -> Node | None:
    if len(text) > _LONGEST:
        raise YamlError(1, f"{len(text)} characters, and at most {_LONGEST} are read: is this a recipe, or data?")
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _DEEPEST
    yaml.composer.warn_double_anchors = False
    try:
        return cast(Node | None, yaml.compose(text))
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"character {chr(error.character)!r} may not stand in YAML") from None
    except MarkedYAMLError as error:
        raise _syntax_error(text, error) from None
    except YAMLError as error:
        raise YamlError(1, f"YAML syntax: {error}") from None
    except (ValueError, OverflowError, LookupError, AssertionError):  # what ruamel.yaml lets through
        raise YamlError(1, "YAML syntax: a number in a directive (`%YAML`) or in an escape is out of range") from None


def _syntax_error(text: str, error: MarkedYAMLError) -> YamlError:
    mark = error.problem_mark or error.context_mark
    rows = text.split("\n")
    if mark.index < len(text) and text[mark.index] == "\t":
        return YamlError(mark.line + 1, "a tab where YAML wants spaces: indent with spaces")
    # An unclosed bracket or quote and a key without colon are noticed lines later than they were written.
    if error.context_mark and re.search(r"flow|quoted|simple key", error.context or ""):
        mark = error.context_mark
    shown = rows[mark.line].strip() if mark.line < len(rows) else ""
    problem = error.problem or ""
    if (error.context or "").startswith("expected"):
        problem = f"{error.context}, {problem}"
    elif problem.startswith("mapping values"):
        problem = "a stray indent, a second `: ` on one line, or a line above without its colon,"
    elif problem.startswith("maximum depth"):
        problem = f"values nested more than {_DEEPEST} deep"
    return YamlError(mark.line + 1, f"YAML syntax: {problem} in {render(shown)}")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _check_text(node: Node) -> None:
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise YamlError(_line(node), f"{render(node.value)} holds half a surrogate pair, which is no text")


class _NodeReader:
    """Values of YAML nodes, and the line of every path; `lines` grows as nodes are read."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.above: list[Node] = []
        self.num_values = 0
        self.yaml = YAML(typ="safe", pure=True)

    def read(self, node: Node, path: KeyPath) -> Any:
        self.num_values += 1
        if any(node is other for other in self.above):
            raise YamlError(_line(node), "an anchor that contains itself")
        if self.num_values > _MOST_VALUES or len(self.above) > _DEEPEST:
            raise YamlError(_line(node), f"aliases that stand for more than {_MOST_VALUES} values, or nest too deeply")
        plain = isinstance(node, ScalarNode) and node.style is None
        if str(node.ctag) != str(self.yaml.resolver.resolve(type(node), node.value, (plain, not plain))):
            raise YamlError(_line(node), "recipes use no YAML tags (`!name`) or directives: write the plain value")
        self.above.append(node)
        value: Any
        match node:
            case SequenceNode():
                value = [self._item(item, (*path, index), item) for index, item in enumerate(node.value)]
            case MappingNode():
                value = self._mapping(node, path)
            case _:
                value = self._scalar(node)
        self.above.pop()
        return value

    def _item(self, key: Node, path: KeyPath, value: Node) -> Any:
        self.lines[path] = _line(key)
        return self.read(value, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                # The first of several wins, and the mapping's own keys win over all of them.
                for source in reversed(value.value if isinstance(value, SequenceNode) else [value]):
                    if not isinstance(source, MappingNode):
                        raise YamlError(_line(key), "`<<` takes a mapping or a list of mappings, such as an alias")
                    merged |= self.read(source, path)
        own: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            if not isinstance(key, ScalarNode) or key.tag != f"{_TAG}str":
                shown = key.value if isinstance(key, ScalarNode) else "a list or mapping"
                raise YamlError(_line(key), f"keys must be text, got {shown}: quote it if it is meant as a name")
            _check_text(key)
            if key.value in own:
                raise YamlError(_line(key), f"{key.value}: duplicate key, first set on line {own[key.value]}")
            own[key.value] = _line(key)
            merged[key.value] = self._item(key, (*path, key.value), value)
        return merged

    def _scalar(self, node: Node) -> Any:
        if str(node.tag) not in _NO_TEXT:  # a date, for example, stays as it was written
            _check_text(node)
            return str(node.value)
        try:
            value = self.yaml.constructor.construct_object(node)
        except ValueError:
            raise YamlError(_line(node), f"{render(node.value)} is no integer: quote it if text is meant") from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise YamlError(_line(node), "an integer that 64 bits do not hold: quote it if text is meant")
        if isinstance(value, float) and not math.isfinite(value):
            raise YamlError(_line(node), f"expected a finite number, got {value}")
        return value
