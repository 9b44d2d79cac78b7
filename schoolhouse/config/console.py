"""The one configuration of messages: ours are shown, what other libraries print about themselves is not."""

import logging
import os
import sys
import warnings
from functools import partialmethod


def set_up_console() -> None:
    """
    Show the messages of this package on stderr, those of one process where several train.

    Hide progress bars of work that takes less than two seconds, and other libraries' warnings about their own code.

    Warnings about a recipe stay. `python -W default` shows all of them.
    """
    from tqdm import tqdm

    ours = logging.getLogger("schoolhouse")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    if "delay" not in getattr(vars(tqdm)["__init__"], "keywords", {}):  # tqdm itself fills them from TQDM_DELAY
        tqdm.__init__ = partialmethod(tqdm.__init__, delay=2)
    if not sys.warnoptions:
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings(
                "ignore", category=category, module=r"(accelerate|datasets|peft|torch|transformers|trl)\."
            )
        warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accelerator")
