"""Functions of the user's own that YAML names as `file.py:function`."""

import pytest

from schoolhouse.config.user_code import load_function


def test_a_function_is_loaded_by_file_and_name(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def double(x):\n    return 2 * x\n")
    assert load_function("mine.py:double", tmp_path)(4) == load_function(f"{tmp_path}/mine.py:double")(4) == 8
    monkeypatch.chdir(tmp_path)
    assert load_function("mine.py:double")(4) == 8


def test_a_function_of_an_installed_package_is_loaded_too():
    assert load_function("schoolhouse.config.user_code:load_function") is load_function


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "mine.py:f", "mine.py does not exist, seen from"),
        ("f = 3\n", "mine.py:f", "mine.py has no function 'f'"),
        ("def f(): pass\n", "mine.py:g", "mine.py has no function 'g'"),
        ("def f(): pass\n", "mine.py", "write file.py:function"),
        (None, "no.such_module:f", "a function of your own is named file.py:function"),
        (None, "schoolhouse:f", "schoolhouse has no function 'f'"),
        ("x = 1\n\ndef f(:\n", "mine.py:f", r"mine\.py:3: invalid syntax"),
        ("x = 1\nimport no_such_package\n", "mine.py:f", r"mine\.py:2: ModuleNotFoundError: No module"),
        ("import sys\nsys.exit(0)\n", "mine.py:f", r"mine\.py:2: SystemExit: 0"),
        ("import math\ndef g():\n    math.sqrt(-1)\ng()\n", "mine.py:f", r"mine\.py:3: ValueError: "),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(tmp_path, text, name, message):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_function(name, tmp_path)


def test_a_file_may_define_dataclasses_with_annotations_as_text(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n"
        "@dataclass\nclass Point:\n    x: int = 1\n\n\ndef make():\n    return Point().x\n"
    )
    assert load_function("mine.py:make", tmp_path)() == 1
