"""Find and read task files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.paths import find_file, shipped
from schoolhouse.config.yaml_file import read_yaml
from schoolhouse.core.manifest import RUN_FILE
from schoolhouse.evaluation.tasks.kinds import KINDS
from schoolhouse.evaluation.tasks.own import OWN, own_tasks
from schoolhouse.evaluation.tasks.spec import Task


def task_names() -> list[str]:
    """Return the names of the built-in tasks."""
    return sorted(path.stem for path in shipped("eval/tasks").glob("*.yaml"))


def load_tasks(names: Sequence[str], run: Path | None = None, own_scorer: str | None = None) -> dict[str, Task]:
    """
    Return tasks by the names in `--tasks`, or by their own where a name stands for the rows that a run held out.

    Args:
        names (`Sequence[str]`):
            As in [`load_task`]; a run folder, for the rows that it held out; or `own`, for those of `run`.
        run (`Path`, *optional*):
            Run folder of the model.
        own_scorer (`str`, *optional*):
            Scorer of held-out rows, instead of the one that follows from them.

    Raises:
        ConfigError: what [`load_task`] raises; or two tasks of one name.
        ValueError: rows that were held out cannot be read.
    """
    runs = {name: run if name == OWN else find_file(name) for name in names if name == OWN or _is_run(name)}
    tasks = {name: load_task(name) for name in names if name not in runs}
    for folder in runs.values():
        if folder is None:
            raise ConfigError(
                ("tasks",),
                f"{OWN} is the rows that a run held out: name a run's adapter or model, or its folder as task",
            )
        taken = [*task_names(), *(task.name for task in tasks.values())]
        tasks |= {task.name: task for task in own_tasks(folder, own_scorer, taken)}
    if twice := [name for name, count in Counter(task.name for task in tasks.values()).items() if count > 1]:
        raise ConfigError(
            ("tasks",), f"two tasks are called {twice[0]}, and results have one by a name: rename a file"
        )
    return tasks


def _is_run(name: str) -> bool:
    return (find_file(name) / RUN_FILE).is_file()


def load_task(name_or_path: str | Path) -> Task:
    """
    Read a task file.

    Args:
        name_or_path (`str` or `Path`):
            One of [`task_names`], or the path of a YAML file.

    Returns:
        [`Task`]: of the type that its `kind` names.

    Raises:
        ConfigError: for an unknown task; or with file, line and key of a mistake in the file.
    """
    name, names = str(name_or_path), task_names()
    if name not in names and not name.endswith((".yaml", ".yml")):
        raise ConfigError(
            (),
            f"unknown task {name!r}; {nearest(name, names)}; one of your own is a path to its YAML file, "
            f"the rows that a run held out are {OWN!r} or the run's folder",
        )
    file = read_yaml(shipped(f"eval/tasks/{name}.yaml") if name in names else name)
    kind = file.values.get("kind", "generate")
    if kind not in KINDS:
        raise file.error(("kind",), f"{kind!r} is no kind of task; {nearest(kind, KINDS)}")
    task = file.parse(KINDS[kind])
    task.attach(file)
    task.check_keys()
    return task
