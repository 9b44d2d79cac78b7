"""Flags of scripts: every mistake is one line on stderr and exit status 2."""

import argparse
import sys
from typing import Any, NoReturn


class FlagParser(argparse.ArgumentParser):
    """[`argparse.ArgumentParser`] whose errors are one line; abbreviated flags are errors."""

    def __init__(self, **kwargs: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        about_flag = message.removeprefix("argument ")
        exit_with(about_flag if about_flag != message else f"{message}; see --help")


def exit_with(error: str) -> NoReturn:
    """End the program with one line on stderr and status 2."""
    print(" ".join(error.split()), file=sys.stderr)
    raise SystemExit(2)
