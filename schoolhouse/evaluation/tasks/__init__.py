"""Tasks as YAML files: those of `eval/tasks/`, known by name, and the user's own, known by path."""

from schoolhouse.evaluation.tasks.items import Item
from schoolhouse.evaluation.tasks.loading import load_task, load_tasks, task_names
from schoolhouse.evaluation.tasks.spec import Task


__all__ = ["Item", "Task", "load_task", "load_tasks", "task_names"]
