"""Held-out text: how many bits per byte a model needs to tell what comes next."""

from schoolhouse.evaluation.tasks.base import Item, Task


def text_items(texts: list[str], limit: int | None = None) -> list[Item]:
    """
    Items from documents; empty ones, which no model could tell apart, are left out.

    Args:
        texts (`list[str]`):
            The documents.
        limit (`int`, *optional*):
            Number of documents to take, from the top.

    Returns:
        `list[Item]`: one per document.
    """
    return [Item(id=str(number), prompt=text, reference="") for number, text in enumerate(texts[:limit]) if text]


def _build(limit: int | None, path: str | None) -> list[Item]:
    from schoolhouse.data.loading import read_rows

    if path is None:
        raise ValueError("task heldout_bpb has no text of its own: --task_paths '{heldout_bpb: FILE}'")
    rows = read_rows(
        path, None, lambda row: None if isinstance(row.get("text"), str) else "column 'text' is missing or no text"
    )
    return text_items([row["text"] for row in rows], limit)


HELDOUT_BPB = Task("heldout_bpb", 1, _build, kind="bits_per_byte")
