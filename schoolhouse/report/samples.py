"""Choose the samples that the page shows: the same prompts answered by every stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schoolhouse.evaluation.results import EvalSample
from schoolhouse.report.reading import StageReport
from schoolhouse.report.text import visible


PER_TASK = 120  # prompts
WITHOUT_SCRIPT = 6  # prompts of a page without JavaScript
PROMPT, COMPLETION = 1000, 1500  # characters


@dataclass(frozen=True)
class Answer:
    """Answer of one stage: its text, its verdict, and how the verdict differs from that of the parent's answer."""

    stage: str
    text: str
    verdict: Literal["right", "wrong", "ungraded"]
    change: Literal["", "fixed", "broken"]


@dataclass(frozen=True)
class Prompt:
    """A prompt with the answers of all stages; `is_short` tells that the reference answer fits on a line."""

    task: str
    id: str
    text: str
    reference: str
    is_short: bool
    answers: list[Answer]


def choose_prompts(stages: Sequence[StageReport]) -> list[Prompt]:
    """
    Choose up to 120 prompts of each task, first those whose verdict a stage changed; of each stage its first sample.

    Args:
        stages (`Sequence[StageReport]`):
            The stages.

    Returns:
        `list[Prompt]`: all texts are cut to a readable length, with unseen characters written out.
    """
    chosen = []
    for task in dict.fromkeys(task for stage in stages for task in stage.samples):
        firsts = {stage.name: _first_completions(stage.samples.get(task, [])) for stage in stages}
        items = dict.fromkeys(item for samples in firsts.values() for item in samples)
        prompts = [_prompt(task, item, stages, firsts) for item in items]
        prompts.sort(key=lambda prompt: not any(answer.change for answer in prompt.answers))
        chosen += prompts[:PER_TASK]
    return chosen


def without_script(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the first prompts of each task, for a page without JavaScript."""
    by_task: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_task.setdefault(prompt.task, []).append(prompt)
    each = max(1, WITHOUT_SCRIPT // max(1, len(by_task)))
    return [prompt for group in by_task.values() for prompt in group[:each]]


def _first_completions(samples: Sequence[EvalSample]) -> dict[str, EvalSample]:
    first: dict[str, EvalSample] = {}
    for sample in samples:
        if sample.has("completion"):
            first.setdefault(sample.id, sample)
    return first


def _prompt(task: str, item: str, stages: Sequence[StageReport], firsts: dict[str, dict[str, EvalSample]]) -> Prompt:
    answers = []
    for stage in stages:
        sample = firsts[stage.name].get(item)
        if sample is None:
            continue
        before = firsts[stage.parent].get(item) if stage.parent else None
        old, new = before and before.correct, sample.correct
        has_changed = old is not None and new is not None and old != new
        answers.append(
            Answer(
                stage=visible(stage.name, 60),
                text=visible(sample.completion, COMPLETION),
                verdict="ungraded" if new is None else "right" if new else "wrong",
                change="" if not has_changed else "fixed" if new else "broken",
            )
        )
    asked = next(samples[item] for samples in firsts.values() if item in samples)
    text = asked.prompt
    if not isinstance(text, str):
        text = "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in text)
    reference = visible(asked.reference, PROMPT)
    return Prompt(
        task=visible(task, 60),
        id=visible(item, 80),
        text=visible(text, PROMPT),
        reference=reference,
        is_short=len(reference) <= 60 and "\n" not in reference,
        answers=answers,
    )
