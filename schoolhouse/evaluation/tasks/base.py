"""What a task is: items to ask, and how an answer is scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Item:
    """
    One question of a task.

    Args:
        id (`str`):
            Name of the item, unique in its task and the same in every run: comparisons are paired by it.
        prompt (`list[dict[str, str]]` or `str`):
            Messages, rendered with the model's chat template, or a text to be continued as it is. For a task of kind
            `"bits_per_byte"` the document itself.
        reference (`str`):
            The answer key, as the task's grader reads it.
        meta (`dict[str, Any]`, *optional*):
            `level` (results are broken down by it), `choices` (the continuations of a `"loglikelihood"` task) and
            whatever else the scorer reads.
    """

    id: str
    prompt: list[dict[str, str]] | str
    reference: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """
    A named set of items with its scorer.

    A scorer returns a dict with `correct` (`bool`, or `None` where nothing could be judged; such samples are counted
    as ungraded, never as wrong). `extracted` (the answer that was read) and `format_ok` are optional, and so is
    `right_in_any_form` (right, or wrong in form only), from which the format share of a gain is told. Every other
    entry is a metric: numbers and booleans are averaged over the samples, lists of them pooled over all samples. Of
    `status`, a text, the share of each kind is reported (`status/timeout`).

    Args:
        name (`str`):
            Its name in `TASKS` and in the results.
        version (`int`):
            Raised with every change of items, prompt or scorer; results of different versions are not compared.
        build (`Callable[[int | None, str | None], list[Item]]`):
            `build(limit, path)` returns the first `limit` items (all for `None`), read from a local file or folder
            instead of the Hub where `path` is given.
        score (`Callable[[Any, Item], dict]`):
            Scores one answer: a completion (`str`) for kind `"generate"`, the log-likelihoods (`list[float]`, nats) of
            `item.meta["choices"]` for `"loglikelihood"`. Kinds `"bits_per_byte"` and `"preference"` have none.
        kind (`str`, *optional*, defaults to `"generate"`):
            What the model is asked to do: `"generate"`, `"loglikelihood"` or `"bits_per_byte"`; of a reward model,
            `"preference"`: to score `item.meta["chosen"]` above `item.meta["rejected"]`.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Length at which a completion is cut.
        stop (`tuple[str, ...]`, *optional*, defaults to `()`):
            Texts that end a completion, beside the end-of-sequence token; cut off with all that follows.
        num_samples (`int`, *optional*, defaults to `1`):
            Completions per item, unless the user asks for another number.
        temperature (`float`, *optional*, defaults to `0.0`):
            Temperature at which they are drawn, unless the user names another; 0 is greedy.
        score_many (`Callable[[list, list[Item]], list[dict]]`, *optional*):
            Scores many answers at once, for graders that work in parallel; without it each is scored alone.
    """

    name: str
    version: int
    build: Callable[[int | None, str | None], list[Item]]
    score: Callable[[Any, Item], dict[str, Any]] | None = None
    kind: Literal["generate", "loglikelihood", "bits_per_byte", "preference"] = "generate"
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    num_samples: int = 1
    temperature: float = 0.0
    score_many: Callable[[Sequence[Any], Sequence[Item]], list[dict[str, Any]]] | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.kind != "bits_per_byte"
