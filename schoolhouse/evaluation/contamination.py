"""Contamination: items of a task that overlap the training data."""

from collections.abc import Sequence

from schoolhouse.evaluation.tasks.items import Item


def contaminated_items(items: Sequence[Item], trained_on: Sequence[str]) -> set[str]:
    """
    Return the ids of the items whose prompt shares 13 consecutive words with a training prompt (the rule of
    [`EvalIndex`]).

    `trained_on` has names of data sets or YAML files of the user's own, `NAME=PATH` for a local copy, or files in
    TRL's columns; a `ValueError` says which does not exist.
    """
    from schoolhouse.data import load_rows
    from schoolhouse.data.columns import prompt_text
    from schoolhouse.data.decontamination import EvalIndex
    from schoolhouse.data.loading import load_table
    from schoolhouse.data.specs import is_dataset_spec

    texts: list[str] = []
    for source in trained_on:
        name, _, path = source.partition("=")
        rows = load_rows(name, path=path or None) if is_dataset_spec(name) else load_table(source)
        texts += map(prompt_text, rows)
    index = EvalIndex({"items": [prompt_text({"prompt": item.prompt}) for item in items]})
    return {items[number].id for number in index.overlap(texts)["items"].eval_ids}
