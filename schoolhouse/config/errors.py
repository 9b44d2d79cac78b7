"""Errors of recipes and flags, and their words: one line, exit status 2."""

import argparse
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn


KeyPath = tuple[str | int, ...]


class ConfigError(ValueError):
    """
    A wrong value in a recipe, a task file, a pipeline or a flag.

    `path` leads to the value, such as `("datasets", 1, "weight")`, and is empty for the whole file; `message` says on
    one line what is wrong, what is allowed, and the fix.
    """

    def __init__(self, path: KeyPath, message: str):
        super().__init__(message)
        self.path = path
        self.message = message


def key_label(path: KeyPath) -> str:
    """Return a path as messages show it, such as `datasets[1].weight`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def nearest(key: Any, known: Iterable[str]) -> str:
    """Return `did you mean X?`, or the known keys where nothing is near and they are few."""
    known = list(known)
    near = get_close_matches(str(key), known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known keys: {', '.join(known)}" if len(known) < 20 else "no known key is near; `--help all` lists all"


def render(value: Any) -> str:
    """Return a value as an error shows it: its kind and its text, on one line and short."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


class FlagParser(argparse.ArgumentParser):
    """
    [`argparse.ArgumentParser`] whose errors are one line; abbreviated flags are errors.

    Dashes and underscores within a flag are the same: `--dry-run` and `--dry_run`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._spell(text) for text in args], namespace)

    def _spell(self, text: str) -> str:
        """Spell a flag as it was declared, be it with dashes or underscores; leave every other text alone."""
        name, equals, value = text.partition("=")
        declared = {flag.replace("_", "-"): flag for flag in self._option_string_actions if flag.startswith("--")}
        return declared.get(name.replace("_", "-"), name) + equals + value

    def error(self, message: str) -> NoReturn:
        about_flag = message.removeprefix("argument ")
        exit_with(about_flag if about_flag != message else f"{message}; see --help")


def exit_with(error: str) -> NoReturn:
    """End the program with one line on stderr and status 2."""
    # A name in a file may hold what a terminal obeys.
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(error.split()))
    print(line, file=sys.stderr)
    raise SystemExit(2)
