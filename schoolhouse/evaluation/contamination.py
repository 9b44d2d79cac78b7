"""Which items of a task a model may have seen in training: the others make the clean score."""

from collections.abc import Sequence

from schoolhouse.evaluation.tasks.base import Item


def contaminated_items(items: Sequence[Item], trained_on: Sequence[str]) -> set[str]:
    """
    Items whose prompt shares 13 consecutive words with a training prompt (the rule of [`EvalIndex`]).

    Args:
        items (`Sequence[Item]`):
            Items of a task.
        trained_on (`Sequence[str]`):
            Training data: names of `DATASETS`, `NAME=PATH` for a local copy of one, or a file in TRL's columns.

    Returns:
        `set[str]`: ids of the items.

    Raises:
        ValueError: if there is no such data.
    """
    from schoolhouse.data import DATASETS
    from schoolhouse.data.columns import prompt_text
    from schoolhouse.data.decontamination import EvalIndex
    from schoolhouse.data.loading import load_table

    texts: list[str] = []
    for source in trained_on:
        name, _, path = source.partition("=")
        rows = DATASETS[name]("train", path=path or None) if name in DATASETS else load_table(source)
        texts += map(prompt_text, rows)
    index = EvalIndex({"items": [prompt_text({"prompt": item.prompt}) for item in items]})
    return {items[number].id for number in index.overlap(texts)["items"]["eval_ids"]}
