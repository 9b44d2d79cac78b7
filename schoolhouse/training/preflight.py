"""Preflight of GRPO: rewards of the untrained policy, groups without variance, and strings that fool the rewards."""

from __future__ import annotations

import math
import random
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from schoolhouse.data.columns import prompt_text
from schoolhouse.rewards import Code, Cosine, Format, Math, total
from schoolhouse.rewards.columns import grade_answers, grade_code
from schoolhouse.training.checks import steps_per_rollout


if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from schoolhouse.config.arguments import RecipeParser
    from schoolhouse.core.generation import Sample
    from schoolhouse.training.grpo import GRPOTrainer

LITTLE_SIGNAL = 0.75  # share of groups without variance above which there is a warning
EMPTY_ANSWERS = {"hash": "####", "boxed": r"\boxed{}", "think-answer": "<think></think><answer></answer>"}


@dataclass
class Preflight:
    """Findings of a preflight."""

    prompts: int
    samples_per_prompt: int  # the size of a group
    mean_reward: float  # of the valid completions
    left_out: float  # share of completions whose grader failed or to which no reward applies
    zero_variance: float  # share of groups whose completions all have the same reward: every advantage is 0
    pass_at_k: dict[int, float]  # for 1, 2, 4, ... and the group's size; empty where nothing is graded
    truncated: float  # share of completions that reach `max_completion_length`
    unparsable: float | None  # share of graded completions without a readable answer or with a syntax error
    degenerate: dict[str, float]  # mean reward of strings that answer nothing
    seconds_per_step: float  # estimated from these samples and one backward pass over some of them

    @property
    def fooled_by(self) -> list[str]:
        """Degenerate strings with a higher reward than the policy's mean."""
        return [name for name, reward in self.degenerate.items() if reward > self.mean_reward]


def preflight(parser: RecipeParser, trainer: GRPOTrainer, rows: Dataset, prompts: int) -> dict[str, Any] | None:
    """
    Sample the untrained policy, report on the console, and stop a run that has nothing to learn. The trainer's random
    numbers are left as they were.

    Return the fields of [`Preflight`] for the manifest; `None` where the weights are sharded and cannot be sampled
    here. If no group has any variance, or every completion reaches the limit, the run ends with one line and status 2.
    """
    is_main = trainer.is_world_process_zero()
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        if is_main:
            print("preflight  left out: the weights are sharded")
        return None
    # At random: data sets list levels in turn, so an even stride might see only some of them.
    chosen = random.Random(trainer.args.seed).sample(range(len(rows)), min(prompts, len(rows)))
    found = measure(trainer, rows.select(chosen).to_list())
    if is_main:
        for label, text in describe(found):
            print(f"{label:<11}{text}", flush=True)
    escape = "preflight_prompts: 0 trains all the same"
    if found.truncated == 1:
        parser.error(
            "max_completion_length",
            f"all {found.prompts * found.samples_per_prompt} sampled completions reach the limit of "
            f"{trainer.max_completion_length} tokens: raise it, or see that the policy knows how to end; {escape}",
        )
    if found.zero_variance == 1:
        parser.error(
            "rewards",
            f"within each of the {found.prompts} sampled groups all completions have the same reward (mean "
            f"{found.mean_reward:.3f}), so no advantage differs from 0 and nothing would be learned: take prompts "
            f"that the policy sometimes answers, a reward that tells answers apart, more num_generations; {escape}",
        )
    return asdict(found) | {"fooled_by": found.fooled_by}


def measure(trainer: GRPOTrainer, rows: list[dict[str, Any]]) -> Preflight:
    """Sample the policy on some rows of the data, a group of completions each, and measure."""
    import torch

    from schoolhouse.evaluation.statistics.sampling import pass_at_k

    tokenizer, group, limit = trainer.processing_class, trainer.num_generations, trainer.max_completion_length
    asked = [row for row in rows for _ in range(group)]  # (B,), the completions of a row follow each other
    with torch.random.fork_rng():
        began = time.monotonic()
        samples = _sample(trainer, rows, group)
        texts = [sample.text for sample in samples]
        ids = [_token_ids(tokenizer, sample.text, sample.tokens) for sample in samples]
        rewards = _rewards(trainer, asked, texts, ids)
        rollout_seconds = time.monotonic() - began
        update_seconds = _time_update(trainer, asked, ids)
    right, readable = _grade(trainer, texts, asked)
    counts = [sum(right[start : start + group]) for start in range(0, len(right), group)]
    ks = [k for k in (2**power for power in range(group.bit_length())) if k < group] + [group]
    groups = [values[~values.isnan()] for values in rewards.view(-1, group)]
    degenerate = {}
    for name, strings in _degenerate_strings(trainer, rows, max(texts, key=len)).items():
        string_ids = [_token_ids(tokenizer, string)[:limit] for string in strings]
        degenerate[name] = _rewards(trainer, rows, strings, string_ids).nanmean().item()
    scale = trainer.args.generation_batch_size / trainer.args.world_size / len(samples)
    return Preflight(
        prompts=len(rows),
        samples_per_prompt=group,
        mean_reward=rewards.nanmean().item(),
        left_out=rewards.isnan().float().mean().item(),
        zero_variance=sum(bool((values == values[:1]).all()) for values in groups) / len(rows),
        pass_at_k={k: float(pass_at_k(group, counts, k).mean()) for k in ks} if counts else {},
        truncated=sum(sample.finish_reason == "length" for sample in samples) / len(samples),
        unparsable=1 - sum(readable) / len(readable) if readable else None,
        degenerate=degenerate,
        seconds_per_step=rollout_seconds * scale / steps_per_rollout(trainer.args)
        + update_seconds * trainer.args.gradient_accumulation_steps,
    )


def describe(found: Preflight) -> list[tuple[str, str]]:
    """Lines of the report, as pairs of label and text."""
    passes = ", ".join(f"pass@{k} {value:.1%}" for k, value in found.pass_at_k.items())
    unparsable = "" if found.unparsable is None else f", {found.unparsable:.1%} without a readable answer"
    lines = [
        ("preflight", f"{found.prompts} prompts, {found.samples_per_prompt} completions each, policy before training"),
        ("reward", f"mean {found.mean_reward:.3f}; {found.zero_variance:.1%} of groups without variance"),
        ("", f"{found.truncated:.1%} truncated{unparsable}, {found.left_out:.1%} without a valid reward"),
        *([("right", passes)] if passes else []),
        *(("rewarded", f"{reward:+.3f}  {name}") for name, reward in found.degenerate.items()),
        ("time", f"about {found.seconds_per_step:.1f} s a step"),
    ]
    if found.zero_variance > LITTLE_SIGNAL:
        lines.append(("WARNING", f"!!! only {1 - found.zero_variance:.1%} of groups give a signal; on so little a "
                                 "policy drifts: take harder (or easier) prompts, or a lower learning_rate "
                                 "!!!"))  # fmt: skip
    for name in found.fooled_by:
        lines.append(("WARNING", f"!!! {name} is rewarded with {found.degenerate[name]:+.3f}, more than the policy's "
                                 f"{found.mean_reward:+.3f}: training will go there unless the rewards change "
                                 "!!!"))  # fmt: skip
    return lines


def _degenerate_strings(trainer: GRPOTrainer, rows: list[dict[str, Any]], longest: str) -> dict[str, list[str]]:
    """Strings that answer nothing, one for each row."""
    from schoolhouse.graders.examples import copied_program

    formats = [reward.function for reward in trainer.reward_funcs if isinstance(reward.function, Format)]
    styles = sorted({function.style for function in formats} or EMPTY_ANSWERS)
    alike = {
        "'the the the'": "the " * trainer.max_completion_length,
        "nothing at all": "",
        "the longest output": longest,
        **{f"an empty {style} answer": EMPTY_ANSWERS[style] for style in styles},
    }
    strings = {name: [string] * len(rows) for name, string in alike.items()}
    prompts = [row["prompt"] for row in rows]
    strings["the prompt echoed"] = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
    if any(row.get("entry_point") for row in rows):
        strings["an empty function"] = [f"def {row.get('entry_point')}(*args):\n    pass" for row in rows]
        copied = [copied_program(prompt_text(row), row.get("entry_point") or "") for row in rows]
        if any(copied):
            strings["a table of the tests in the prompt"] = copied
    return strings


def _sample(trainer: GRPOTrainer, rows: list[dict[str, Any]], group: int) -> list[Sample]:
    """Draw `group` completions of each row, with random numbers of their own."""
    from schoolhouse.core.generation import Sampling, generate, render

    tokenizer, args = trainer.processing_class, trainer.args
    sampling = Sampling(args.temperature, args.top_p, args.max_completion_length, seed=args.seed)
    prompts = [render(tokenizer, row["prompt"]) for row in rows for _ in range(group)]
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.eval()
    batches = generate(model, tokenizer, prompts, [*range(group)] * len(rows), sampling, args.generation_batch_size)
    samples = dict(pair for batch in batches for pair in batch)
    model.train()
    return [samples[position] for position in range(len(prompts))]


def _token_ids(tokenizer: PreTrainedTokenizerBase, text: str, length: int | None = None) -> list[int]:
    """Token ids of a completion, of the given length: a text is not always tokenized as it was generated."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if length is None:
        return [*ids, tokenizer.eos_token_id]
    return [*ids, *[tokenizer.eos_token_id] * (length - len(ids))][:length]


def _rewards(trainer: GRPOTrainer, rows: list[dict[str, Any]], texts: list[str], ids: list[list[int]]) -> Tensor:
    """Weighted sum of each text's rewards (B,), NaN where none is valid."""
    import torch

    prompts = [row["prompt"] for row in rows]
    completions = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", "completion")}
    columns |= {"trainer_state": trainer.state, "log_extra": lambda *_: None, "log_metric": lambda *_: None}
    values = [
        reward(prompts=prompts, completions=completions, completion_ids=ids, **columns)
        for reward in trainer.reward_funcs
    ]
    matrix = torch.tensor([[math.nan if value is None else value for value in column] for column in values]).T
    return total(matrix.float(), trainer.reward_weights)


def _grade(trainer: GRPOTrainer, texts: list[str], rows: list[dict[str, Any]]) -> tuple[list[bool], list[bool]]:
    """Flags of right and of readable texts; empty where no reward grades answers or programs."""
    if not any(isinstance(reward.function, Math | Code | Cosine) for reward in trainer.reward_funcs):
        return [], []
    grades = list(zip(grade_answers(texts, rows), grade_code(texts, rows), strict=True))
    right = [bool((answer and answer.correct) or (program and program.passed)) for answer, program in grades]
    readable = [
        answer.extracted is not None if answer else program.status != "syntax"
        for answer, program in grades
        if answer or program
    ]
    return right, readable


def _time_update(trainer: GRPOTrainer, rows: list[dict[str, Any]], ids: list[list[int]]) -> float:
    """Seconds of one forward and backward pass over a device's batch."""
    import torch

    from schoolhouse.core.generation import render

    tokenizer, size = trainer.processing_class, trainer.args.per_device_train_batch_size
    texts = [render(tokenizer, row["prompt"]) + own for row, own in zip(rows[:size], ids[:size], strict=True)]
    width, keep = max(map(len, texts)), max(map(len, ids[:size]))
    tokens = torch.tensor([[tokenizer.pad_token_id] * (width - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
    device, began = trainer.accelerator.device, time.monotonic()
    with trainer.compute_loss_context_manager():
        logits = trainer.model(tokens.to(device), attention_mask=mask.to(device), logits_to_keep=keep + 1).logits
    logits.float().logsumexp(-1).mean().backward()
    trainer.model.zero_grad(set_to_none=True)
    return (time.monotonic() - began) * size / len(texts)
