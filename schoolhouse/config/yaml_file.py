"""A YAML file with the line of each key; duplicate keys, tags and more that stock loaders let pass are errors."""

import re
from typing import Any

import yaml

from schoolhouse.config.errors import ConfigError, KeyPath, render


class YamlError(ConfigError):
    """A file that is not one YAML mapping with unique text keys; `line` counts from 1."""

    def __init__(self, line: int, message: str):
        super().__init__((), message)
        self.line = line


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
        `YamlError`: not UTF-8, a syntax error, a duplicate or non-text key, or no mapping.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YamlError(line, "not a UTF-8 text file: is this a recipe, or a model or archive?") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is not None:
            _walk(loader, node, (), lines, ())
        values = None if node is None else loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"character {chr(error.character)!r} may not stand in YAML") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(text, error) from None
    if values is None:
        raise YamlError(1, "the file is empty: write `key: value` lines, such as `model_name_or_path: ...`")
    if not isinstance(values, dict):
        line = node.start_mark.line + 1
        raise YamlError(line, f"expected `key: value` lines, got {render(values)} as the whole file")
    return values, lines


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> YamlError:
    mark = error.problem_mark or error.context_mark
    rows = text.split("\n")
    if mark.index < len(text) and text[mark.index] == "\t":
        return YamlError(mark.line + 1, "a tab where YAML wants spaces: indent with spaces")
    # An unclosed bracket or quote and a key without colon are noticed lines later than they were written.
    if error.context_mark and re.search(r"flow|quoted|simple key", error.context or ""):
        mark = error.context_mark
    shown = rows[mark.line].strip() if mark.line < len(rows) else ""
    problem = error.problem
    if (error.context or "").startswith("expected"):
        problem = f"{error.context}, {problem}"
    elif problem.startswith("mapping values"):
        problem = "a stray indent, a second `: ` on one line, or a line above without its colon,"
    return YamlError(mark.line + 1, f"YAML syntax: {problem} in {render(shown)}")


def _walk(
    loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], above: tuple[yaml.Node, ...]
) -> None:
    """Records the line of every path below `node` and refuses duplicate and non-text keys, tags and cycles."""
    if node in above:
        raise YamlError(node.start_mark.line + 1, "an anchor that contains itself")
    above = (*above, node)
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if node.tag != loader.resolve(type(node), node.value, (plain, not plain)):
        raise YamlError(node.start_mark.line + 1, "recipes use no YAML tags (`!name`): write the plain value")
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
                raise YamlError(line, f"keys must be text, got {shown}: quote it if it is meant as a name")
            if key.value in written:
                raise YamlError(line, f"{key.value}: duplicate key, first set on line {written[key.value]}")
            written[key.value] = line
            lines[(*path, key.value)] = line
            _walk(loader, value, (*path, key.value), lines, above)
