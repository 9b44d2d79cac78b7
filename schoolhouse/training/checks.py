"""Checks of a recipe against its data, before weights load: settings under which nothing would be trained."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from schoolhouse.config.errors import ConfigError
from schoolhouse.core.chat_templates import has_own_template, training_chat_template
from schoolhouse.data.forms import in_turns


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainingArguments
    from trl import GRPOConfig, RewardConfig, SFTConfig

    from schoolhouse.config.arguments import RecipeParser
    from schoolhouse.data.mixture import LoadedData
    from schoolhouse.rewards import Reward
    from schoolhouse.training.pairs import Pairs

logger = logging.getLogger(__name__)

RENDERED_ROWS = 20_000  # at most as many rows, evenly spaced, are rendered before weights load


@contextlib.contextmanager
def config_errors(parser: RecipeParser, *keys: str) -> Iterator[None]:
    """
    Report an error of loading the user's data or model as one of the recipe: one line, status 2. It names the key of a
    [`ConfigError`], else the first of `keys` that the recipe sets.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        path = error.path if isinstance(error, ConfigError) else ()
        parser.error(path or next((key for key in keys if key in parser.resolved), None), str(error))


def in_chat_template(
    parser: RecipeParser, data: LoadedData, tokenizer: PreTrainedTokenizerBase, conversational: bool | None
) -> LoadedData:
    """
    Put texts into turns where the model has a chat template of its own or `conversational` asks for it, and refuse
    rows that the template does not render.
    """
    from trl import is_conversational

    columns = {"prompt", "completion", "chosen", "rejected"}
    has_texts = any(isinstance(data.train[0].get(column), str) for column in columns)
    if has_texts and (has_own_template(tokenizer) if conversational is None else conversational):
        logger.info("texts become turns of the chat template; `conversational: false` keeps them plain")
        test = data.test.map(in_turns) if data.test is not None else None
        data = replace(data, train=data.train.map(in_turns), test=test)
    if is_conversational(data.train[0]):
        _validate_rendering(parser, data.train, tokenizer)
    return data


def _validate_rendering(parser: RecipeParser, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse the first row that the chat template refuses, or whose tool calls it leaves out."""
    from jinja2 import TemplateError

    from schoolhouse.data.columns import TRL_COLUMNS

    data = next((key for key in ("dataset_name", "datasets", "dataset_path") if key in parser.resolved), None)
    columns = [column for column in TRL_COLUMNS if column in rows.column_names]
    for index in range(0, len(rows), max(1, len(rows) // RENDERED_ROWS)):
        row = rows[index]
        sides = [row[column] for column in columns if column not in ("prompt", "text")]
        for side in sides or [[]]:
            messages = [*(row.get("prompt") or []), *side]
            try:
                text = str(tokenizer.apply_chat_template(messages, tools=row.get("tools"), tokenize=False))
            except (TemplateError, TypeError) as error:
                parser.error(data, f"row {index} of the training data: the chat template refuses it: {error}")
            calls = [call for message in messages for call in message.get("tool_calls") or ()]
            for name in (str((call.get("function") or call).get("name")) for call in calls):
                if name not in text:
                    parser.error(
                        "chat_template_path" if "chat_template_path" in parser.fields else None,
                        f"row {index} of the training data calls the tool {name!r}, but the chat template leaves tool "
                        "calls out, so an empty turn would be trained: use a template that renders them",
                    )


def default_to_assistant_loss(
    parser: RecipeParser, training_args: SFTConfig, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Train the assistant's turns alone in conversations, where the recipe does not say otherwise."""
    if "assistant_only_loss" in parser.resolved or "messages" not in rows.column_names:
        return
    try:
        training_chat_template(tokenizer)
    except ValueError:
        logger.warning("all turns are trained, the user's too: no marked version of this chat template is known")
        return
    training_args.assistant_only_loss = parser.resolved["assistant_only_loss"] = True
    logger.info("only the assistant's turns are trained; `assistant_only_loss: false` trains all")


def validate_evaluation(parser: RecipeParser, training_args: TrainingArguments, data: LoadedData) -> None:
    """Refuse an evaluation during training without rows to evaluate on."""
    if training_args.eval_strategy != "no" and data.test is None:
        parser.error(
            "eval_strategy",
            "the data has no test split to evaluate on: hold out a share with `validation_split: 0.05`, or set "
            "`eval_strategy: 'no'`",
        )


def validate_sft(parser: RecipeParser, training_args: SFTConfig, rows: Dataset) -> None:
    """Refuse loss masks that the data has no place for, and a run that ends before its first step."""
    from trl import is_conversational

    if training_args.assistant_only_loss and not is_conversational(rows[0]):
        parser.error("assistant_only_loss", "the training data is text without turns: leave it out, or use messages")
    if training_args.completion_only_loss and "completion" not in rows.column_names:
        parser.error(
            "completion_only_loss",
            "the training data has no column 'completion', so everything would be trained; for messages set "
            "assistant_only_loss",
        )
    if not training_args.packing:  # packing makes fewer, longer sequences; their number is not known yet
        _validate_full_batch(parser, training_args, len(rows), "training rows")


def validate_pairs(parser: RecipeParser, training_args: RewardConfig, pairs: Pairs, num_members: int) -> None:
    """Refuse members without adapters, and a reward model without pairs to train on."""
    if num_members < 1:
        parser.error("num_members", f"must be at least 1, got {num_members}")
    if num_members > 1 and parser.resolved.get("use_peft") is False:
        parser.error("num_members", "the members of an ensemble are adapters on one base: needs use_peft: true")
    if num_members > 1 and training_args.push_to_hub:
        parser.error("push_to_hub", "only one adapter can be pushed: leave it out, or set num_members to 1")
    if not pairs.counts["used"]:
        parser.error("max_length" if pairs.counts["too_long"] else None, f"no pair is left to train on: {pairs}")
    _validate_full_batch(parser, training_args, pairs.counts["used"], "pairs")


def _validate_full_batch(parser: RecipeParser, training_args: Any, rows: int, unit: str) -> None:
    batch = training_args.world_size * training_args.per_device_train_batch_size
    if training_args.dataloader_drop_last and rows < batch:
        parser.error("dataloader_drop_last", f"{rows} {unit} do not fill one batch of {batch}: set it to false")


def load_rewards(parser: RecipeParser, entries: list[dict[str, Any] | str], training_args: GRPOConfig) -> list[Reward]:
    """Build a recipe's rewards, in its order, and set their weights in `training_args.reward_weights`."""
    from schoolhouse.rewards import build_rewards

    if training_args.reward_weights is not None:
        parser.error("reward_weights", "the weight of a reward stands in its entry of `rewards`: {name, weight}")
    if training_args.remove_unused_columns:
        parser.error("remove_unused_columns", "rewards read the data's columns: leave it out")
    with config_errors(parser, "rewards"):
        rewards = build_rewards(entries, training_args.max_completion_length)
    training_args.reward_weights = [reward.weight for reward in rewards]
    return rewards


def prompts_per_rollout(training_args: GRPOConfig) -> int:
    """Number of distinct prompts whose completions are sampled at once, by one policy."""
    return training_args.generation_batch_size // training_args.num_generations


def steps_per_rollout(training_args: GRPOConfig) -> float:
    """Number of optimizer steps on the same samples."""
    passes = training_args.steps_per_generation * training_args.num_iterations
    return passes / training_args.gradient_accumulation_steps


MAX_TRIED = 1000  # rows whose tests are tried before training: seconds on two cores


@dataclass(frozen=True)
class UnsupportedRows:
    """
    Rows that a reward applies to and can never reward.

    Args:
        reasons (`dict[int, str]`): Row number -> why.
        tried (`int`), applies_to (`int`): Rows looked at, evenly spaced, of those that the reward applies to.
    """

    reasons: dict[int, str]
    tried: int
    applies_to: int

    def __str__(self) -> str:
        whole = "" if self.tried == self.applies_to else f", {self.tried:,} of them tried"
        examples: dict[str, list[int]] = {}
        for row, reason in self.reasons.items():
            examples.setdefault(reason, []).append(row)
        first = sorted(examples.items(), key=lambda pair: -len(pair[1]))[:3]
        why = "; ".join(
            f"{reason} (row {', '.join(map(str, rows[:3]))}{', …' * (len(rows) > 3)})" for reason, rows in first
        )
        return f"{len(self.reasons):,} of {self.applies_to:,} rows{whole}: {why}"


def find_unsupported(reward: Reward, rows: Dataset) -> UnsupportedRows | None:
    """Find rows that a reward applies to and can never reward, such as by tests that no program can be run on."""
    every = rows.to_list()
    applies = [number for number, row in enumerate(every) if reward.function.applies(row)]
    chosen = applies[:: math.ceil(len(applies) / MAX_TRIED) or 1]
    reasons = reward.function.unsupported([every[number] for number in chosen])
    found = {number: reason for number, reason in zip(chosen, reasons, strict=True) if reason}
    return UnsupportedRows(found, len(chosen), len(applies)) if found else None


def validate_grpo(parser: RecipeParser, training_args: GRPOConfig, rows: Dataset, rewards: Sequence[Reward]) -> None:
    """
    Refuse a run without one whole batch of prompts, rewards that apply to no row, cannot run here or reward no row,
    and rows that a reward cannot score. Warn of rows that cannot be rewarded, of tests that are graded and shown, and
    of checkpoints in the middle of a rollout.
    """
    from schoolhouse.rewards import Code, Cosine
    from schoolhouse.rewards.build import UserFunction

    prompts = prompts_per_rollout(training_args)
    if len(rows) < prompts:
        parser.error(
            "num_generations",
            f"{len(rows)} training rows do not fill one batch of {prompts} prompts (generation_batch_size "
            f"{training_args.generation_batch_size} / num_generations {training_args.num_generations}), so not one "
            "step would be taken: use more rows or a smaller batch",
        )
    for index, reward in enumerate(rewards):
        if reward.weight and not any(reward.function.applies(row) for row in rows):
            parser.error(
                ("rewards", index),
                f"{reward.__name__} applies to no row of the training data, whose columns are "
                f"{', '.join(sorted(rows.column_names))}: it needs {reward.function.reads}",
            )
        try:
            reward.function.validate()
            if isinstance(reward.function, UserFunction):
                reward.function.try_on(rows.select(range(min(2, len(rows)))).to_list())
        except ValueError as error:
            parser.error(("rewards", index), str(error))
        if reward.weight and (unsupported := find_unsupported(reward, rows)):
            if len(unsupported.reasons) == unsupported.tried:
                parser.error(("rewards", index), f"{reward.__name__} can reward no row: {unsupported}")
            warnings.warn(f"{reward.__name__} can never reward {unsupported}; leave them out", stacklevel=1)
    errors: dict[int, list[str]] = {}  # of each reward
    for number, row in enumerate(rows):
        for index, reward in enumerate(rewards):
            if error := reward.function.check_row(row):
                errors.setdefault(index, []).append(f"row {number}: {error}")
    for index, found in errors.items():
        parser.error(
            ("rewards", index),
            f"{rewards[index].__name__} cannot score {len(found)} of {len(rows)} training rows: "
            f"{'; '.join(found[:3])}{'; ...' * (len(found) > 3)}: correct these rows or leave them out",
        )
    if any(reward.weight and isinstance(reward.function, Code | Cosine) for reward in rewards):
        _warn_of_shown_tests(rows)
    period = steps_per_rollout(training_args)
    saves_by_step = training_args.save_strategy == "steps" and training_args.save_steps >= 1
    if saves_by_step and training_args.save_steps % period:
        warnings.warn(
            f"save_steps {training_args.save_steps} is no multiple of the {period:g} steps taken on the same samples: "
            "a run resumed between would draw new ones",
            stacklevel=1,
        )


def _warn_of_shown_tests(rows: Dataset) -> None:
    """Warn where prompts show tests that are graded; up to 256 rows with tests, evenly spaced, are looked at."""
    from schoolhouse.data.columns import prompt_text
    from schoolhouse.graders.examples import examples, shown_examples, tested_function
    from schoolhouse.rewards.columns import has_tests
    from schoolhouse.training.loss_mask import evenly_spaced

    shown: dict[int, str] = {}
    chosen = [(index, rows[index]) for index in evenly_spaced(rows)]
    chosen = [(index, row) for index, row in chosen if has_tests(row)]
    for index, row in chosen:
        entry_point = row.get("entry_point") or tested_function(row["tests"])
        told = set(shown_examples(prompt_text(row), entry_point))
        if graded := [example for example in examples(row["tests"], entry_point) if example in told]:
            shown[index] = f"{entry_point}({graded[0].source[0]}) is {graded[0].source[1]}"
    if shown:
        index, first = next(iter(shown.items()))
        warnings.warn(
            f"in {len(shown)} of {len(chosen)} rows looked at the prompt shows tests that are graded (row {index}: "
            f"{first[:200]}), so a program that only repeats them is rewarded: put other tests into `tests`, or let "
            "shown_tests in the data's YAML file divide them (docs/add_a_data_set.md)",
            stacklevel=1,
        )
