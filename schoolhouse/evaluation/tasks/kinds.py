"""Kinds of tasks: how each is asked and scored, and the keys that it adds to a task file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schoolhouse.config.errors import ConfigError
from schoolhouse.core.chat_templates import opened_thought
from schoolhouse.evaluation.results import EvalSample, PreferenceReport
from schoolhouse.evaluation.scorers import Scorer, UserScorer, build_scorer
from schoolhouse.evaluation.tasks.items import Item, Messages, Row, prompt_of, text_of
from schoolhouse.evaluation.tasks.spec import GenerationPlan, LoadedModel, Task


class FewShot(BaseModel):
    """
    Worked examples before each question.

    Args:
        count (`int`):
            Number of examples: the first rows of their split.
        split (`str`, *optional*, defaults to `"train"`):
            Split that they come from.
        before_answer (`str`, *optional*), after_answer (`str`, *optional*):
            Texts around an example's reference, where prompts are text: by default a blank and an empty line. Examples
            of messages are turns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    count: int = Field(ge=1)
    split: str = "train"
    before_answer: str = " "
    after_answer: str = "\n\n"


class GenerateTask(Task):
    """
    The model writes an answer, and a scorer reads it.

    Args:
        prompt (`str` or `list[dict[str, str]]`):
            Column of messages or text; a text with `{column}` in it, to be continued as it is; or messages with such
            contents, rendered with the chat template.
        reference (`str`, *optional*, defaults to `""`):
            Expression of the right answer.
        few_shot ([`FewShot`], *optional*):
            Worked examples before each question.
        scorer (`str` or `dict[str, Any]`):
            Name of a scorer, or a mapping with `name` and its parameters.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Length at which a completion is cut.
        stop (`list[str]`, *optional*):
            Texts that end a completion, beside the end-of-sequence token; cut off with all that follows.
        num_samples (`int`, *optional*, defaults to `1`), temperature (`float`, *optional*, defaults to `0.0`):
            Completions per item, and the temperature at which they are drawn (0 is greedy).
    """

    kind: Literal["generate"] = "generate"
    prompt: str | list[dict[str, str]] = "prompt"
    reference: str = ""
    few_shot: FewShot | None = None
    scorer: str | dict[str, Any]
    max_new_tokens: int = Field(default=256, ge=1)
    stop: list[str] = Field(default_factory=list)
    num_samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)

    @cached_property
    def scorer_with_parameters(self) -> Scorer:
        """Scorer that the file names."""
        return build_scorer(self.scorer, self.folder)

    @property
    def runs_programs(self) -> bool:
        return self.scorer_with_parameters.runs_programs

    def prepare(self) -> None:
        self.scorer_with_parameters.prepare()

    def check_keys(self) -> None:
        super().check_keys()
        try:
            self.scorer_with_parameters  # noqa: B018  built here, so that a mistake is told with its line
        except ConfigError as error:
            raise self._file.error(error.path, error.message) if self._file else error from None

    def build(self, limit: int | None = None, path: str | None = None) -> list[Item]:
        items = super().build(limit, path)
        if isinstance(self.scorer_with_parameters, UserScorer):
            # Try the user's function once, so that a mistake in it shows before hours of generation.
            try:
                self.score([items[0].reference], items[:1])
            except ValueError as error:
                raise self.error_at("scorer", str(error)) from error
        return items

    def functions(self) -> list[str]:
        name = self.scorer if isinstance(self.scorer, str) else str(self.scorer.get("name"))
        return super().functions() + ([name] if ":" in name else [])

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        prompt, reference = prompt_of(self.prompt, row), text_of(self.reference, row) if self.reference else ""
        if not prompt:
            raise ValueError("the prompt is empty")
        if wrong := self.scorer_with_parameters.check_row(row, reference):
            raise ValueError(wrong)
        return prompt, reference

    def few_shot_prompt(self, path: str | None) -> Any:
        if self.few_shot is None:
            return None
        shots: Any = []
        for row in self._read(self.few_shot.split, self.few_shot.count, path):
            prompt, reference = self.make_item(row)
            if isinstance(prompt, str):
                shots.append(f"{prompt}{self.few_shot.before_answer}{reference}{self.few_shot.after_answer}")
            else:
                shots += [*prompt, {"role": "assistant", "content": reference}]
        return "".join(shots) if shots and isinstance(shots[0], str) else shots

    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        assert plan is not None  # `prepare` makes one for this kind
        repeated = [item for item in items for _ in range(plan.num_samples)]
        opened = [opened_thought(loaded.tokenizer, ids) for ids in plan.prompts for _ in range(plan.num_samples)]
        answers = [
            replace(answer, text=start + answer.text) for start, answer in zip(opened, loaded.draw(plan), strict=True)
        ]
        scores = self.score([answer.text for answer in answers], repeated)
        return [
            self._sample(
                item,
                number % plan.num_samples,
                completion=answer.text,
                tokens=answer.tokens,
                finish_reason=answer.finish_reason,
                **score,
            )
            for number, (item, answer, score) in enumerate(zip(repeated, answers, scores, strict=True))
        ]

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Any]:
        """Return a [`Score`] for each completion."""
        return [{"metrics": {}} | score for score in self.scorer_with_parameters.score(completions, items)]


class LoglikelihoodTask(Task):
    """
    Multiple choice by likelihood: the model writes nothing; the choice that it finds likeliest is its answer.

    Likelihoods are divided by the choice's length in UTF-8 bytes, since a longer choice has more to predict, and bytes
    are the same for every tokenizer. The metric `unnormalised` is the verdict without that. Of equals the first wins.

    Args:
        prompt (`str` or `list[dict[str, str]]`):
            As in [`GenerateTask`]; each choice continues it after a blank.
        choices (`str`, *optional*, defaults to `"choices"`):
            Column of the choices, a list of texts.
        answer (`str`, *optional*, defaults to `"answer"`):
            Column of the right choice: its text, or its number from 0.
    """

    kind: Literal["loglikelihood"] = "loglikelihood"
    prompt: str | list[dict[str, str]]
    choices: str = "choices"
    answer: str = "answer"

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        choices, answer = row.get(self.choices), row.get(self.answer)
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(x, str) and x for x in choices):
            raise ValueError(f"column {self.choices!r} is no list of two or more texts")
        if len(set(choices)) < len(choices):
            raise ValueError(f"column {self.choices!r} has the same choice twice")
        # Numbers from 0 come as floats from a table that lacks some; `True` is no number of a choice.
        is_number = type(answer) is int or (isinstance(answer, float) and answer.is_integer())
        by_number = dict(enumerate(choices)) if is_number else {choice: choice for choice in choices}
        if not isinstance(answer, str | int | float) or answer not in by_number:
            raise ValueError(f"column {self.answer!r} is {answer!r}, neither a choice nor its number from 0")
        return prompt_of(self.prompt, row), by_number[answer]

    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        from schoolhouse.core.generation import loglikelihood

        # One sequence for every choice; the values are dealt back to the items.
        pairs = [(item.prompt, f" {choice}") for item in items for choice in item.row[self.choices]]
        prompts, continuations = [prompt for prompt, _ in pairs], [choice for _, choice in pairs]
        values = iter(loglikelihood(loaded.model, loaded.tokenizer, prompts, continuations, loaded.batch_size))
        answers = [list(itertools.islice(values, len(item.row[self.choices]))) for item in items]
        return [
            self._sample(item, loglikelihoods=answer, **self.score(answer, item))
            for item, answer in zip(items, answers, strict=True)
        ]

    def score(self, likelihoods: Sequence[float], item: Item) -> dict[str, Any]:
        """Return the [`Score`] of the likeliest choice, from the log-likelihood of each in nats."""
        choices = item.row[self.choices]
        rates = [value / len(choice.encode()) for value, choice in zip(likelihoods, choices, strict=True)]
        chosen, likeliest = (choices[values.index(max(values))] for values in (rates, list(likelihoods)))
        right = item.reference
        return {"correct": chosen == right, "extracted": chosen, "metrics": {"unnormalised": likeliest == right}}


class BitsPerByteTask(Task):
    """
    Bits per byte of held-out text: how well the model predicts it.

    Args:
        text (`str`, *optional*, defaults to `"text"`):
            Column of the documents; empty ones are left out.
    """

    kind: Literal["bits_per_byte"] = "bits_per_byte"
    text: str = "text"

    higher_is_better: ClassVar[bool] = False

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        text = row.get(self.text)
        if not isinstance(text, str):
            raise ValueError(f"column {self.text!r} is missing or no text")
        return text, ""

    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        from schoolhouse.core.generation import bits_per_byte

        texts = [str(item.prompt) for item in items]
        measured = bits_per_byte(loaded.model, loaded.tokenizer, texts, loaded.batch_size)
        return [self._sample(item, bits=bits, bytes=size) for item, (bits, size) in zip(items, measured, strict=True)]


class PreferenceTask(Task):
    """
    Pairs of answers for a reward model, which should score the chosen one higher.

    Args:
        prompt (`str`, *optional*, defaults to `"prompt"`):
            Column of the prompt.
        chosen (`str`, *optional*), rejected (`str`, *optional*):
            Columns of the answers, messages or texts; by default of these names.
    """

    kind: Literal["preference"] = "preference"
    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"

    model_type: ClassVar[Literal["CAUSAL_LM", "SEQ_CLS"]] = "SEQ_CLS"

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        for column in (self.chosen, self.rejected):
            if not row.get(column):
                raise ValueError(f"column {column!r} is missing")
        return prompt_of(self.prompt, row), "chosen"

    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        from schoolhouse.evaluation.preference import rate_pairs

        rated = rate_pairs(loaded.model, loaded.tokenizer, self._pairs(items), loaded.batch_size)
        return [self._sample(item, **fields) for item, fields in zip(items, rated, strict=True)]

    def report(
        self, loaded: LoadedModel, items: Sequence[Item], samples: Sequence[EvalSample]
    ) -> PreferenceReport | None:
        from schoolhouse.evaluation.preference import describe_preferences

        return describe_preferences(loaded.model, loaded.tokenizer, self._pairs(items), samples)

    def _pairs(self, items: Sequence[Item]) -> list[Any]:
        from schoolhouse.evaluation.preference import Pair

        return [
            Pair(
                prompt=item.prompt,
                chosen=item.row[self.chosen],
                rejected=item.row[self.rejected],
                margin=item.row.get("margin"),
                label_is_right=item.row.get("label_is_right"),
            )
            for item in items
        ]


KINDS: dict[str, type[Task]] = {
    "generate": GenerateTask,
    "loglikelihood": LoglikelihoodTask,
    "bits_per_byte": BitsPerByteTask,
    "preference": PreferenceTask,
}
