"""Functions of the user's own, which YAML names as `file.py:function`."""

import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def load_function(name: str, folder: str | Path = ".") -> Callable[..., Any]:
    """
    Load the function that `file.py:function` names. The file is run, as an import would run it.

    Args:
        name (`str`):
            Python file and name of a function in it, with a colon between them.
        folder (`str` or `Path`, *optional*, defaults to the working folder):
            Folder from which a relative path starts.

    Returns:
        `Callable`: the function.

    Raises:
        ValueError: if the file does not exist, cannot be run or has no such function.
    """
    file, _, function = name.rpartition(":")
    path = Path(folder) / Path(file).expanduser()
    if path.suffix != ".py":
        raise ValueError(f"{name!r} names no function of a Python file: write file.py:function")
    if not path.is_file():
        raise ValueError(f"{path} does not exist, seen from {Path.cwd()}")
    loaded = getattr(_load_module(path), function, None)
    if not callable(loaded):
        raise ValueError(f"{path} has no function {function!r}")
    return loaded


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # as the path ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        # The innermost line of the user's own file is where they can do something about it.
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise ValueError(f"{path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}") from error
    return module
