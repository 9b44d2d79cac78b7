"""Functions that YAML names: `file.py:function` of the user, `package.module.function` of an installed package."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


class UserCodeError(ValueError):
    """A function of the user's raised an error or returned what it must not; one line that says where."""


def error_in(function: str, error: BaseException) -> UserCodeError:
    """Return the error for an exception in a function, with the innermost line of the function's own file."""
    frames = traceback.extract_tb(error.__traceback__)
    file = Path(function.rpartition(":")[0]).name
    own = [frame for frame in frames if Path(frame.filename).name == file] or frames[-1:]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return UserCodeError(f"{function} raised {type(error).__name__}: {' '.join(str(error).split())}{place}")


def load_function(name: str, folder: str | Path = ".") -> Callable[..., Any]:
    """
    Load the function that `file.py:function` or `package.module:function` names. The file is run, as an import would.

    A relative path starts from `folder`. If the file or module does not exist, cannot be run or has no such function,
    that is a `ValueError` with its line where there is one.
    """
    place, mark, function = name.rpartition(":") if ":" in name else name.rpartition(".")
    if not mark or name.endswith(".py"):
        raise ValueError(f"{name!r} names no function: write file.py:function or package.module:function")
    if place.endswith(".py"):
        path = Path(folder) / Path(place).expanduser()
        module, where = _run_file(path), str(path)
    else:
        try:
            module, where = importlib.import_module(place), place
        except ImportError as error:
            raise ValueError(f"{name!r}: {error}; a function of your own is named file.py:function") from None
    loaded: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(loaded):
        raise ValueError(f"{where} has no function {function!r}")
    return loaded


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{path} does not exist, seen from {Path.cwd()}")
    # The name clashes with no module that is imported by its own name.
    spec = importlib.util.spec_from_file_location(f"user_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # as the path ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        # The innermost line of the user's own file is where they can do something about it.
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise ValueError(f"{path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}") from error
    return module
