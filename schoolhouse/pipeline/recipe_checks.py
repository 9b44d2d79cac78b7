"""Check of all due recipes before the first stage is trained: a typo in the last one costs nothing."""

import contextlib
import io
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from schoolhouse.config.user_code import load_function
from schoolhouse.pipeline.plan import Pipeline, Stage


def check_recipes(pipeline: Pipeline, stages: list[Stage]) -> None:
    """
    Check keys, types and bounds of recipes as their scripts will.

    A mistake is a `ValueError`, one line that names the stage, and file and line or the override.
    """
    jobs = []
    for stage in stages:
        # The parent's adapter may not be there yet.
        settings = stage.overrides | {
            "model_name_or_path": pipeline.base,
            "output_dir": str(stage.folder),
            "adapter_name_or_path": None,
        }
        flags = [part for key, value in settings.items() for part in (f"--{key}", _as_flag(value))]
        jobs.append((stage.name, str(stage.script), ["--config", stage.config_path, *flags]))
    if jobs:
        # In a process that ends: the arguments of a trainer initialize the accelerator.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_parse, jobs).result()


def _as_flag(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parse(jobs: list[tuple[str, str, list[str]]]) -> None:
    for name, script, flags in jobs:
        sys.path.insert(0, str(Path(script).parent))  # as for a script that is run: it may import its neighbors
        told = io.StringIO()
        try:
            parser = load_function(f"{script}:recipe_parser")()
            with contextlib.redirect_stderr(told):
                parser.parse_args(flags)
        except ValueError as error:
            raise ValueError(f"stage {name}: {error}") from None
        except SystemExit:
            raise ValueError(f"stage {name}: {told.getvalue().strip()}") from None
        finally:
            sys.path.pop(0)
