"""Kinds of tasks: how each is asked and scored, and the keys that it adds to a task file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schoolhouse.config.errors import ConfigError
from schoolhouse.core.chat_templates import opened_thought
from schoolhouse.data.specs import is_dataset_spec
from schoolhouse.evaluation.choices import LETTERS, choices_of, right_choice
from schoolhouse.evaluation.results import EvalSample, PreferenceReport
from schoolhouse.evaluation.scorers import Scorer, UserScorer, build_scorer
from schoolhouse.evaluation.tasks.items import Item, Messages, Row, columns_in, fill, prompt_of, text_of
from schoolhouse.evaluation.tasks.spec import GenerationPlan, LoadedModel, Task


class FewShot(BaseModel):
    """
    Worked examples before each question.

    Args:
        count (`int`):
            Number of examples: the first rows of their split.
        split (`str`, *optional*, defaults to `"train"`):
            Split that they come from. Of a single file, and of the split that is asked, the examples are the first
            rows, which are then not asked.
        by (`str`, *optional*):
            Column whose value the examples share with the question.
        introduction (`str`, *optional*):
            Text before the examples, with `{column}` in it, where prompts are text.
        before_answer (`str`, *optional*), after_answer (`str`, *optional*):
            Texts around an example's reference, where prompts are text: by default a blank and an empty line. Examples
            of messages are turns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    count: int = Field(ge=1)
    split: str = "train"
    by: str | None = None
    introduction: str = ""
    before_answer: str = " "
    after_answer: str = "\n\n"


class QuestionTask(Task):
    """
    A task whose items are questions, with worked examples before them or without.

    Args:
        prompt (`str` or `list[dict[str, str]]`):
            Column of messages or text; a text with `{column}` in it, to be continued as it is; or messages with such
            contents, rendered with the chat template.
        few_shot ([`FewShot`], *optional*):
            Worked examples before each question.
    """

    prompt: str | list[dict[str, str]] = "prompt"
    few_shot: FewShot | None = None

    def columns(self) -> list[tuple[str, str]]:
        texts = [self.prompt] if isinstance(self.prompt, str) else [message["content"] for message in self.prompt]
        named = [column for text in texts for column in columns_in(text)]
        named += [self.prompt] if isinstance(self.prompt, str) and not named else []
        by = [("few_shot", self.few_shot.by)] if self.few_shot and self.few_shot.by else []
        return super().columns() + [("prompt", column) for column in named if column != "choices"] + by

    def examples(self, path: str | None) -> Callable[[Row], Any] | None:
        shots = self.few_shot
        if shots is None:
            return None
        shared = self._in_one_place(path)
        if shared and shots.by:
            raise self.error_at("few_shot", "by needs examples of another split than the questions")
        rows = self._read(self.split if shared else shots.split, None if shots.by else shots.count, path)

        def before(row: Row) -> Any:
            same = [other for other in rows if not shots.by or other.get(shots.by) == row.get(shots.by)]
            if len(same) < shots.count:
                near = f" with {shots.by} {row.get(shots.by)!r}" if shots.by else ""
                raise self.error_at(
                    "few_shot", f"{shots.count} examples, but split {shots.split} has {len(same)}{near}"
                )
            given: Any = []
            for prompt, reference in map(self.make_item, same[: shots.count]):
                if isinstance(prompt, str):
                    given.append(f"{prompt}{shots.before_answer}{reference}{shots.after_answer}")
                else:
                    given += [*prompt, {"role": "assistant", "content": reference}]
            return fill(shots.introduction, row) + "".join(given) if isinstance(given[0], str) else given

        return before

    def asked_rows(self, limit: int | None, path: str | None) -> Sequence[Row]:
        if self.few_shot is None or not self._in_one_place(path):
            return super().asked_rows(limit, path)
        skipped = self.few_shot.count
        rows = super().asked_rows(limit and limit + skipped, path)
        if len(rows) <= skipped:
            raise self.error_at("few_shot", f"{skipped} examples leave none of the {len(rows)} rows to ask")
        return rows[skipped:]

    def _in_one_place(self, path: str | None) -> bool:
        """Whether examples and questions are the same rows, of which the first ones are the examples."""
        assert self.few_shot is not None
        is_file = bool(self.rows) or Path(path or self._beside(self.dataset or "")).is_file()
        return self.few_shot.split == self.split or (is_file and not is_dataset_spec(path or self.dataset or ""))


class GenerateTask(QuestionTask):
    """
    The model writes an answer, and a scorer reads it.

    Args:
        reference (`str`, *optional*, defaults to `""`):
            Expression of the right answer.
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
    reference: str = ""
    scorer: str | dict[str, Any]
    max_new_tokens: int = Field(default=256, ge=1)
    stop: list[str] = Field(default_factory=list)
    num_samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)

    @property
    def asked_as(self) -> str:
        return str(self.scorer if isinstance(self.scorer, str) else self.scorer.get("name"))

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

    def columns(self) -> list[tuple[str, str]]:
        named = columns_in(self.reference) or ([self.reference] if self.reference else [])
        return super().columns() + [("reference", column) for column in named]

    def functions(self) -> list[str]:
        name = self.scorer if isinstance(self.scorer, str) else str(self.scorer.get("name"))
        return super().functions() + ([name] if ":" in name else [])

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        scorer = self.scorer_with_parameters
        prompt = prompt_of(self.prompt, {**row, **scorer.template_values(row)})
        if not prompt:
            raise ValueError("the prompt is empty")
        reference = text_of(self.reference, row) if self.reference else ""
        reference = scorer.reference_of(row.get(self.reference, reference), reference, row)
        if wrong := scorer.check_row(row, reference):
            raise ValueError(wrong)
        return prompt, reference

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


class LoglikelihoodTask(QuestionTask):
    """
    Multiple choice by likelihood: the model writes nothing; the choice that it finds likeliest is its answer.

    Likelihoods are divided by the choice's length in UTF-8 bytes, since a longer choice has more to predict, and bytes
    are the same for every tokenizer. The metric `unnormalised` is the verdict without that. Of equals the first wins.
    Each choice continues the prompt after a blank; `{choices}` in it stands for the choices as lines with letters.

    Args:
        choices (`str` or `list[str]`, *optional*, defaults to `"choices"`):
            Column of the choices, a list of texts; or several columns with a choice each.
        answer (`str`, *optional*, defaults to `"answer"`):
            Column of the right choice: its text, its letter, or its number from 0.
        letters (`bool`, *optional*, defaults to `False`):
            Compare the likelihoods of the letters `A`, `B`, ... instead of the texts.
    """

    kind: Literal["loglikelihood"] = "loglikelihood"
    prompt: str | list[dict[str, str]]
    choices: str | list[str] = "choices"
    answer: str = "answer"
    letters: bool = False

    def columns(self) -> list[tuple[str, str]]:
        named = self.choices if isinstance(self.choices, list) else [self.choices]
        return super().columns() + [("choices", column) for column in named] + [("answer", self.answer)]

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        choices = choices_of(row, self.choices, distinct=not self.letters)
        right = right_choice(row.get(self.answer), choices)
        return prompt_of(self.prompt, {**row, "choices": choices}), self._answers(row)[right]

    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        from schoolhouse.core.generation import loglikelihood

        # One sequence for every choice; the values are dealt back to the items.
        pairs = [(item.prompt, f" {choice}") for item in items for choice in self._answers(item.row)]
        prompts, continuations = [prompt for prompt, _ in pairs], [choice for _, choice in pairs]
        values = iter(loglikelihood(loaded.model, loaded.tokenizer, prompts, continuations, loaded.batch_size))
        answers = [list(itertools.islice(values, len(self._answers(item.row)))) for item in items]
        return [
            self._sample(item, loglikelihoods=answer, **self.score(answer, item))
            for item, answer in zip(items, answers, strict=True)
        ]

    def score(self, likelihoods: Sequence[float], item: Item) -> dict[str, Any]:
        """Return the [`Score`] of the likeliest choice, from the log-likelihood of each in nats."""
        choices = self._answers(item.row)
        rates = [value / len(choice.encode()) for value, choice in zip(likelihoods, choices, strict=True)]
        chosen, likeliest = (choices[values.index(max(values))] for values in (rates, list(likelihoods)))
        right = item.reference
        return {"correct": chosen == right, "extracted": chosen, "metrics": {"unnormalised": likeliest == right}}

    def _answers(self, row: Row) -> list[str]:
        """Texts whose likelihoods are compared."""
        choices = choices_of(row, self.choices, distinct=not self.letters)
        return list(LETTERS[: len(choices)]) if self.letters else choices


class BitsPerByteTask(Task):
    """
    Bits per byte of held-out text: how well the model predicts it.

    Args:
        text (`str`, *optional*, defaults to `"text"`):
            Column of the documents; empty ones are left out.
        prompt (`str` or `list[dict[str, str]]`, *optional*):
            As in [`QuestionTask`], to predict the text after a prompt: only the bits of the text count.
    """

    kind: Literal["bits_per_byte"] = "bits_per_byte"
    text: str = "text"
    prompt: str | list[dict[str, str]] | None = None

    higher_is_better: ClassVar[bool] = False
    metric: ClassVar[str] = "bits per byte"

    def columns(self) -> list[tuple[str, str]]:
        return [*super().columns(), ("text", self.text)]

    def make_item(self, row: Row) -> tuple[Messages | str, str]:
        text = row.get(self.text)
        if not isinstance(text, str):
            raise ValueError(f"column {self.text!r} is missing or no text")
        # An item's prompt is what stands before its text, and the text alone where nothing does.
        return (text, "") if self.prompt is None else (prompt_of(self.prompt, row), text)

    def ask(self, loaded: LoadedModel, items: Sequence[Item], plan: GenerationPlan | None) -> list[EvalSample]:
        from schoolhouse.core.generation import bits_per_byte, loglikelihood

        if self.prompt is not None:
            prompts, texts = [item.prompt for item in items], [item.reference for item in items]
            values = loglikelihood(loaded.model, loaded.tokenizer, prompts, texts, loaded.batch_size)
            return [
                self._sample(item, bits=-value / math.log(2), bytes=len(item.reference.encode()))
                for item, value in zip(items, values, strict=True)
            ]
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

    def columns(self) -> list[tuple[str, str]]:
        return [*super().columns(), ("chosen", self.chosen), ("rejected", self.rejected)]

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
