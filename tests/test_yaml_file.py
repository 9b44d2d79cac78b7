"""YAML files: lines, YAML 1.2, hostile text, types, former keys and shipped paths."""

import json
import time
from dataclasses import dataclass, field
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from schoolhouse.config.errors import ConfigError
from schoolhouse.config.key_rules import FORMER_KEYS, apply_renames
from schoolhouse.config.parser import RecipeParser
from schoolhouse.config.paths import find_file, shipped
from schoolhouse.config.yaml_file import YamlError, load_mapping, parse_value, read_yaml


def read(tmp_path, text):
    (tmp_path / "file.yaml").write_text(text)
    return read_yaml(tmp_path / "file.yaml")


# Reading


def test_values_are_those_of_yaml_1_2_and_dates_stay_text():
    text = "a: no\nb: 1e-4\nc: 2024-01-01\nd: 1:30\ne: 010\nf: 0x1F\ng: 1_000\nh: '1'\ni: ~\nj: True\nk: -.5\nl: =\n"
    values = {"a": "no", "b": 1e-4, "c": "2024-01-01", "d": "1:30", "e": 10, "f": 31, "g": 1000, "h": "1", "i": None}
    assert load_mapping(text.encode())[0] == values | {"j": True, "k": -0.5, "l": "="}


def test_a_merge_keeps_own_keys_and_the_first_of_several_sources():
    text = "a: &a {x: 1, y: 2}\nb: &b {x: 3, z: 4}\nc:\n  q: 1\n  <<: [*a, *b]\n  y: 9\n"
    values, lines = load_mapping(text.encode())
    assert values["c"] == {"x": 1, "z": 4, "q": 1, "y": 9}
    assert [lines["c", key] for key in "xzqy"] == [1, 2, 4, 6]


def _aliases(first, form, count):
    lines = [f"a0: &a0 {first}", *(f"a{i}: &a{i} {form.replace('*', f'*a{i - 1}')}" for i in range(1, count))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 10_000, "values nested more than 100 deep"),
        ("a: " + "{" * 10_000, "values nested more than 100 deep"),
        ("- " * 10_000, "values nested more than 100 deep"),
        (_aliases("[x, x]", "[*, *]", 30), "aliases that stand for more than 50000 values"),
        (_aliases("{x: 1}", "{<<: [*, *]}", 30), "aliases that stand for more than 50000 values"),
        (_aliases("[x]", "[*]", 1_000), "aliases that stand for more than 50000 values, or nest too deeply"),
        ("a: &a [*a]", "an anchor that contains itself"),
        ("a: &a {b: {c: *a}}", "an anchor that contains itself"),
        ("a: &a {<<: *a}", "an anchor that contains itself"),
        ("a: {<<: 3}", "`<<` takes a mapping"),
        ("a: " + "9" * 5_000, "is no integer: quote it if text is meant"),
        ("a: 0x" + "f" * 5_000, "an integer that 64 bits do not hold"),
        ("a: 0o" + "7" * 9_000, "an integer that 64 bits do not hold"),
        ("a: 9223372036854775808", "an integer that 64 bits do not hold"),
        ("%YAML " + "9" * 5_000 + ".1\n---\na: 1", "a number in a directive"),
        (r'a: "\UFFFFFFFF"', "or in an escape is out of range"),
        ("%YAML 1.9\n---\na: 1", "a number in a directive"),
        (r'a: "\ud800"', "holds half a surrogate pair"),
        (r'"\ud800": 1', "holds half a surrogate pair"),
        ("a: [" + "x," * 500_000 + "]", "1000005 characters, and at most 250000 are read"),
        ("a: -_", "'-_' is no integer"),
        ("a: .inf", "expected a finite number"),
        ("a: !!int '3'", "no YAML tags"),
    ],
    ids=lambda value: value[:12],
)
def test_hostile_yaml_is_one_line_at_once(text, message):
    before = time.process_time()
    with pytest.raises(YamlError, match=message.replace("`", ".").replace("<", ".")) as error:
        load_mapping(text.encode())
    # Under a second on an idle machine; without the limits these take minutes or all memory.
    assert time.process_time() - before < 5
    assert "\n" not in error.value.message and len(error.value.message) < 200
    with pytest.raises(YamlError):
        parse_value(text)


def test_a_path_that_no_file_can_have_is_one_line(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("output_dir: x\n")
    for flags in (
        ["--config", "a" * 5_000],
        ["--config", str(tmp_path / "recipe.yaml"), "--parent", "\udcff"],
        ["--config", str(tmp_path / "recipe.yaml"), "--dataset_path", "./" + "a" * 5_000],
    ):
        with pytest.raises(SystemExit):
            RecipeParser((NewKeys,)).parse_args(flags)
        assert capsys.readouterr().err.count("\n") == 1


# Types


class Split(BaseModel):
    by_hash_of: str
    share: float = Field(0.1, gt=0, lt=1)


@dataclass
class Task:
    name: str
    kind: Literal["generate", "rank"] = "generate"
    split: Split | None = None
    shots: list[int] = field(default_factory=list)


def test_a_file_becomes_a_dataclass(tmp_path):
    task = read(tmp_path, "name: sums\nsplit: {by_hash_of: question, share: 0.2}\nshots: [1, 2]\n").parse(Task)
    assert task == Task("sums", "generate", Split(by_hash_of="question", share=0.2), [1, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: rank\n", "1: name is missing"),
        ("name: 3\n", "1: name: expected text, got 3: quote it if text is meant"),
        ("name: x\nkind: rnk\n", "2: kind: 'rnk' is not a choice; did you mean 'rank'? choices: generate or rank"),
        ("name: x\nkidn: rank\n", "2: kidn: unknown key; did you mean kind?"),
        ("name: x\nsplit:\n  by_hash: y\n", "3: split.by_hash: unknown key; did you mean by_hash_of?"),
        ("name: x\nsplit: {share: 0.5}\n", "2: split: by_hash_of is missing"),
        ("name: x\nsplit: {by_hash_of: y, share: 2}\n", "2: split.share: must be less than 1, got 2"),
        ("name: x\nshots:\n- 1\n- '2'\n", "4: shots[1]: expected an integer, got '2': remove the quotes"),
        ("name: x\nshots: 3\n", "2: shots: expected a list, got 3"),
    ],
)
def test_a_value_of_another_type_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text).parse(Task)
    assert str(error.value) == f"{tmp_path / 'file.yaml'}:{message}"


# Former keys


@dataclass
class NewKeys:
    output_dir: str = ""
    parent: str = ""
    dataset_path: str = ""


@pytest.fixture
def renamed(monkeypatch):
    monkeypatch.setitem(FORMER_KEYS, "recipe", {"after": "parent"})


@pytest.mark.parametrize("argv", [["--after", "sft"], ["--after=sft"], ["--config", "recipe.yaml"]])
def test_a_former_key_works_and_warns(tmp_path, monkeypatch, renamed, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("output_dir: x\n# its parent\nafter: sft\n")
    parser = RecipeParser((NewKeys,))
    with pytest.warns(FutureWarning, match="recipe: after is now called parent; the old name works for one more"):
        (arguments,) = parser.parse_args(argv)
    assert arguments.parent == parser.resolved["parent"] == "sft"


def test_the_warning_of_a_former_key_points_at_the_users_line(tmp_path, renamed):
    (tmp_path / "recipe.yaml").write_text("output_dir: x\n# its parent\nafter: sft\n")
    with pytest.warns(FutureWarning) as warned:
        RecipeParser((NewKeys,)).parse_args(["--config", str(tmp_path / "recipe.yaml")])
    assert (warned[0].filename, warned[0].lineno) == (str(tmp_path / "recipe.yaml"), 3)


def test_an_error_in_a_former_key_keeps_its_line(tmp_path, capsys, renamed):
    (tmp_path / "recipe.yaml").write_text("output_dir: x\n# its parent\nafter: 3\n")
    with pytest.raises(SystemExit), pytest.warns(FutureWarning):
        RecipeParser((NewKeys,)).parse_args(["--config", str(tmp_path / "recipe.yaml")])
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'recipe.yaml'}:3: parent: expected text, got 3")


def test_a_key_by_both_names_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is the former name of credit, which is set too: remove it"):
        apply_renames("rewards.code", {"pays": "all", "credit": "all"})
    file = read(tmp_path, "stages:\n  - name: b\n    parent: a\n    after: a\n")
    with pytest.raises(ConfigError, match=r"file.yaml:4: stages\[0\].after: is the former name of parent"):
        file.rename("stages", ("stages", 0))


# Shipped files


def test_shipped_files_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_file("data/tiny/base") == shipped("data/tiny/base")
    assert find_file("recipes/configs/tiny/sft.yaml").is_file()
    assert read_yaml("recipes/configs/tiny/sft.yaml").values["output_dir"] == "outputs/tiny/sft"
    for name in ("data/none", "gpt2", "org/model", "outputs/tiny", "data/../README.md", "schoolhouse/config"):
        assert str(find_file(name)) == name
    (tmp_path / "data/tiny/base").mkdir(parents=True)
    assert str(find_file("data/tiny/base")) == "data/tiny/base"


def test_a_recipe_runs_from_any_folder(tmp_path, monkeypatch):
    from recipes.sft import recipe_parser

    monkeypatch.chdir(tmp_path)
    parser = recipe_parser()
    *_, model_args = parser.parse_args(["--config", "recipes/configs/tiny/sft.yaml"])
    assert model_args.model_name_or_path == parser.resolved["model_name_or_path"] == str(shipped("data/tiny/base"))
    assert parser.config_path == shipped("recipes/configs/tiny/sft.yaml")
    assert json.dumps(parser.resolved)
