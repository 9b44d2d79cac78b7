"""Find and read task files."""

from pathlib import Path

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.paths import shipped
from schoolhouse.config.yaml_file import read_yaml
from schoolhouse.evaluation.tasks.kinds import KINDS
from schoolhouse.evaluation.tasks.spec import Task


def task_names() -> list[str]:
    """Return the names of the built-in tasks."""
    return sorted(path.stem for path in shipped("eval/tasks").glob("*.yaml"))


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
            (), f"unknown task {name!r}; {nearest(name, names)}; one of your own is a path to its YAML file"
        )
    file = read_yaml(shipped(f"eval/tasks/{name}.yaml") if name in names else name)
    kind = file.values.get("kind", "generate")
    if kind not in KINDS:
        raise file.error(("kind",), f"{kind!r} is no kind of task; {nearest(kind, KINDS)}")
    task = file.parse(KINDS[kind])
    task.attach(file)
    task.check_keys()
    return task
