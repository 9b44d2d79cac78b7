"""Score of an answer, and the base of all scorers."""

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

from pydantic import BaseModel, ConfigDict

from schoolhouse.evaluation.results import Metric
from schoolhouse.evaluation.tasks.items import Item, Row


class Score(TypedDict, total=False):
    """
    Score of one answer; keys that the task does not measure are missing.

    Args:
        correct (`bool` or `None`):
            `None` where there is no verdict: such samples are counted as `ungraded`, and in the results as wrong.
        extracted (`str` or `None`):
            The answer that was read.
        format_ok (`bool`):
            Whether the answer has the form asked for.
        right_in_any_form (`bool` or `None`):
            Whether the answer is right, or wrong in form only.
        metrics (`dict[str, Metric]`):
            Numbers and booleans are averaged over the samples, lists of them pooled over all samples. Of `status`, a
            text, the share of each value is reported.
    """

    correct: bool | None
    extracted: str | None
    format_ok: bool
    right_in_any_form: bool | None
    metrics: dict[str, Metric]


class Scorer(BaseModel):
    """Base of all scorers; its fields are the parameters that a task file can set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    runs_programs: ClassVar[bool] = False  # that a model wrote: on Linux only
    paths: ClassVar[tuple[str, ...]] = ()  # parameters that may be paths, from the folder of the task file

    def prepare(self) -> None:
        """Raise `ValueError` if this machine cannot score: before hours of generation, not after them."""

    def check_row(self, row: Row, reference: str) -> str | None:
        """Return the reason why answers to a row with this reference could not be scored, or `None`."""
        return None

    def template_values(self, row: Row) -> Row:
        """Return what a prompt can name in braces beside the row's columns."""
        return {}

    def reference_of(self, value: Any, text: str, row: Row) -> str:
        """Return the right answer as items have it, from the value in the data and its text."""
        return text

    def unsupported(self, items: Sequence[Item]) -> list[str]:
        """Return for each item why no answer to it can be scored, `""` where one can."""
        return [""] * len(items)

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        """
        Score answers, all at once for graders that work in parallel.

        Args:
            completions (`Sequence[str]`), items (`Sequence[Item]`):
                Texts that the model generated, thoughts included, and for each its item.

        Returns:
            `list[Score]`: in order.
        """
        raise NotImplementedError
