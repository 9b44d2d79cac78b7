"""Quiet for the terminal: what other libraries print about themselves is no message for the user of a script."""

import sys
import warnings
from functools import partialmethod


def quiet_libraries() -> None:
    """
    Hide progress bars of work that takes less than two seconds, and other libraries' warnings about their own code.

    Warnings about a recipe stay. `python -W default` shows all of them.
    """
    from tqdm import tqdm

    if "delay" not in getattr(vars(tqdm)["__init__"], "keywords", {}):  # tqdm itself fills them from TQDM_DELAY
        tqdm.__init__ = partialmethod(tqdm.__init__, delay=2)
    if not sys.warnoptions:
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings(
                "ignore", category=category, module=r"(accelerate|datasets|peft|torch|transformers|trl)\."
            )
        warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accelerator")
