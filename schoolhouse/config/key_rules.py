"""Rules of single keys: the names that they had elsewhere, their bounds, and which of them exclude each other."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from schoolhouse.config.errors import ConfigError, KeyPath


# Names that older TRL and transformers versions, and other tools, gave to a key. The first of the new names that the
# recipe knows is suggested, so one table serves all stages.
RENAMED: dict[str, tuple[str, ...]] = {
    # transformers
    "evaluation_strategy": ("eval_strategy",),
    "no_cuda": ("use_cpu",),
    "torch_dtype": ("dtype",),
    "per_gpu_train_batch_size": ("per_device_train_batch_size",),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size",),
    "push_to_hub_token": ("hub_token",),
    "push_to_hub_model_id": ("hub_model_id",),
    "include_inputs_for_metrics": ("include_for_metrics",),
    "label_smoothing": ("label_smoothing_factor",),
    # TRL
    "max_seq_length": ("max_length",),
    "use_liger": ("use_liger_kernel",),
    "response_length": ("max_completion_length",),
    "max_new_tokens": ("max_completion_length",),
    "tokenizer_name_or_path": ("model_name_or_path",),
    "sft_model_path": ("model_name_or_path",),
    "init_kl_coef": ("kl_coef", "beta"),
    "kl_coef": ("beta",),
    "cliprange": ("epsilon",),
    "ppo_epochs": ("num_iterations",),
    "num_ppo_epochs": ("num_iterations",),
    "mini_batch_size": ("per_device_train_batch_size",),
    # peft, and tools whose configs look alike
    "r": ("lora_r",),
    "lora_rank": ("lora_r",),
    "lora_target": ("lora_target_modules",),
    "target_modules": ("lora_target_modules",),
    "target_parameters": ("lora_target_parameters",),
    "modules_to_save": ("lora_modules_to_save",),
    "task_type": ("lora_task_type",),
    "adapter": ("adapter_name_or_path",),
    "lora_model_dir": ("adapter_name_or_path",),
    "base_model": ("model_name_or_path",),
    "model": ("model_name_or_path",),
    "model_name": ("model_name_or_path",),
    "dataset": ("dataset_name",),
    "dataset_mixer": ("datasets",),
    "dataset_mixture": ("datasets",),
    "batch_size": ("per_device_train_batch_size",),
    "micro_batch_size": ("per_device_train_batch_size",),
    "lr": ("learning_rate",),
    "lr_scheduler": ("lr_scheduler_type",),
    "optimizer": ("optim",),
    "epochs": ("num_train_epochs",),
    "num_epochs": ("num_train_epochs",),
    "cutoff_len": ("max_length",),
    "sequence_len": ("max_length",),
    "sample_packing": ("packing",),
    "train_on_inputs": ("completion_only_loss",),
}

# Keys without a successor: what to do instead.
REMOVED: dict[str, str] = {
    "warmup_ratio": "transformers removed it: set warmup_steps to a value below 1, a share of all steps",
    "group_by_length": "transformers removed it: set train_sampling_strategy: group_by_length",
    "adafactor": "transformers removed it: set optim: adafactor",
    "dispatch_batches": "it belongs inside accelerator_config",
    "split_batches": "it belongs inside accelerator_config",
    "tokenizer": "TRL's Python calls it processing_class; a recipe takes the tokenizer of model_name_or_path",
    "processing_class": "Python only; a recipe takes the tokenizer of model_name_or_path",
    "max_prompt_length": "TRL removed it: prompts are no longer cut, so filter long ones out of the data",
    "reward_model_path": "a reward model is an entry of rewards: {name: reward_model, model: FOLDER}",
    "num_sample_generations": "TRL removed it; log_completions shows samples during GRPO",
    "overwrite_output_dir": "transformers removed it: delete the folder or choose another output_dir",
    "save_safetensors": "transformers removed it: weights are always saved as safetensors",
    "logging_dir": "transformers removed it: set TENSORBOARD_LOGGING_DIR in the environment",
    "use_mps_device": "transformers removed it: MPS is used where it is there; use_cpu: true avoids it",
    "dataset_batch_size": "TRL removed it: data sets are always mapped in batches of the library's own size",
    "num_processes": "accelerate's: accelerate launch --num_processes N, or its --config_file",
    "mixed_precision": "accelerate's: set bf16 or fp16 here",
    "distributed_type": "accelerate's: it belongs in the file of accelerate launch --config_file",
    "env": "a recipe sets no environment variables: export them in the shell",
    "config": "--config names this file on the command line; a recipe includes no other",
}


# Keys of the first version of Schoolhouse, which work for one more version with a warning: the kind of mapping that
# holds them -> old name -> new name.
FORMER_KEYS: dict[str, dict[str, str]] = {
    "recipe": {},
    "stages": {"after": "parent"},
    "rewards.code": {"pays": "credit"},
    "rewards.cosine": {
        "right_short": "max_value_correct",
        "right_long": "min_value_correct",
        "wrong_short": "min_value_wrong",
        "wrong_long": "max_value_wrong",
        "cut_off": "exceed_penalty",
        "max_length": "max_len",
    },
    "rewards.overlong": {"soft": "soft_punish_cache", "max_length": "max_completion_len"},
    "rewards.repetition": {"ngram": "ngram_size"},
    "rewards.reward_model": {"lam": "uncertainty_coef"},
}

# Bounds that neither TRL nor transformers checks before the model is loaded: in words, as a test, and of which keys.
# The metadata of a field may name other ones: `field(metadata={"bounds": "0 or more"})`.
BOUNDS: dict[str, tuple[Callable[[float], bool], frozenset[str]]] = {
    "at least 1": (
        lambda value: value >= 1,
        frozenset(
            "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps lora_r lora_alpha "
            "max_length max_completion_length max_train_rows max_eval_rows max_rows num_iterations save_total_limit "
            "steps_per_generation dataset_num_proc dataloader_prefetch_factor eval_accumulation_steps limit "
            "num_samples max_new_tokens batch_size tokens_per_batch".split()
        ),
    ),
    "above 0": (
        lambda value: value > 0,
        frozenset("num_train_epochs temperature weight logging_steps save_steps epsilon adam_epsilon".split()),
    ),
    "0 or more": (
        lambda value: value >= 0,
        frozenset(
            "learning_rate head_learning_rate weight_decay warmup_steps max_grad_norm beta neftune_noise_alpha "
            "eval_steps eval_delay dataloader_num_workers".split()
        ),
    ),
    "from 0 to below 2**32": (lambda value: 0 <= value < 2**32, frozenset({"seed", "data_seed"})),
    "-1 (no limit) or at least 1": (lambda value: value == -1 or value >= 1, frozenset({"max_steps"})),
    "from 0 to below 1": (lambda value: 0 <= value < 1, frozenset("lora_dropout adam_beta1 adam_beta2".split())),
    "between 0 and 1": (lambda value: 0 <= value <= 1, frozenset({"label_smoothing_factor", "min_p"})),
    "above 0 and at most 1": (lambda value: 0 < value <= 1, frozenset({"top_p"})),
}

# A key with the keys that it makes meaningless, and why. Both count as set only where a value is not null or false.
EXCLUSIVE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("load_in_4bit", ("load_in_8bit",), "the base is quantized one way"),
    ("bf16", ("fp16",), "training uses one precision"),
    ("bf16_full_eval", ("fp16_full_eval",), "evaluation uses one precision"),
    (
        "datasets",
        tuple(
            "dataset_name dataset_path dataset_config dataset_revision dataset_train_split dataset_columns "
            "drop_overlap".split()
        ),
        "each entry of datasets says this for itself",
    ),
)

# Our LoRA keys and their names in an adapter's `adapter_config.json`. (`lora_modules_to_save` and `lora_task_type` are
# missing on purpose: a reward model that starts from an SFT adapter changes them.)
LORA_KEYS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
# Keys without any effect when `use_peft` is false.
NEEDS_LORA = ("adapter_name_or_path", "trainable_new_tokens", "load_in_4bit", "load_in_8bit")


def apply_renames(
    where: str, values: Mapping[str, Any], place: Callable[[str], tuple[str, int]] = lambda key: ("command line", 1)
) -> dict[str, Any]:
    """
    Give keys of the first version their new names, in the same order, with a warning for each.

    `where` is the kind of the mapping, a key of [`FORMER_KEYS`]: `"recipe"`, `"stages"` for an entry of a pipeline, or
    `"rewards.NAME"` for an entry of `rewards`. A kind that is not listed has no renamed keys. A key that is given by
    both names is a [`ConfigError`]. `place` gives file and line of a key, at which the warning points.
    """
    former = FORMER_KEYS.get(where, {})
    for old in filter(former.__contains__, values):
        if former[old] in values:
            raise ConfigError((old,), f"is the former name of {former[old]}, which is set too: remove it")
        text = f"{where}: {old} is now called {former[old]}; the old name works for one more version"
        file, line = place(old)
        warnings.warn_explicit(text, FutureWarning, file, line)
    return {former.get(key, key): value for key, value in values.items()}


def check_bounds(value: Any, path: KeyPath, bounds: str | None = None) -> None:
    """
    Raise a [`ConfigError`] for a number out of bounds: a recipe's own, or one of the entries in its `datasets`.

    `bounds`, a key of [`BOUNDS`], replaces the one which lists this key.
    """
    if path == ("datasets",):
        for index, entry in enumerate(value or ()):
            for key, item in entry.items():
                check_bounds(item, (*path, index, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for words, (admits, keys) in BOUNDS.items():
            if (words == bounds if bounds else path[-1] in keys) and not admits(value):
                raise ConfigError(path, f"must be {words}, got {value}")


def refuse_conflicts(in_file: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """
    Raise a [`ConfigError`] for keys that exclude each other, and for a key that has no effect without another.

    `in_file` has what the file sets and no flag overrides, in the file's order.
    """
    values = {**in_file, **flags}
    given = [key for key, value in values.items() if value not in (None, False)]

    # The later key is the one to blame: it was added to something that stood alone.
    for key, others, reason in EXCLUSIVE:
        for other in others:
            if key in given and other in given:
                first, last = sorted((key, other), key=given.index)
                raise ConfigError((last,), f"excludes {first}, which is set too: {reason}; keep one of them")
    for source in (in_file, flags):
        # Across file and flags these are ordinary overrides: `--max_steps 5` on a recipe that counts in epochs.
        if source.get("max_steps", -1) > 0 and "num_train_epochs" in source:
            last = max("max_steps", "num_train_epochs", key=given.index)
            raise ConfigError((last,), "max_steps and num_train_epochs exclude each other: only max_steps would count")
        for key in (*LORA_KEYS, "lora_modules_to_save"):
            if source.get("use_peft") is False and source.get(key):
                raise ConfigError((key,), "has no effect with use_peft: false; remove it, or train an adapter")
    for key in NEEDS_LORA:
        if values.get("use_peft") is False and key in given:
            raise ConfigError((key,), "needs use_peft: true")
    targets = values.get("lora_target_modules") or []
    if "lm_head" in ([targets] if isinstance(targets, str) else targets):
        raise ConfigError(("lora_target_modules",), "TRL trains no adapter on lm_head: leave it out")
    if "padding_free" in given and "packing" not in given and values.get("max_length", 1) is not None:
        raise ConfigError(("padding_free",), "without packing nothing is cut: set packing: true or max_length: null")
    entries: Sequence[Mapping[str, Any]] = values.get("datasets") or ()
    for index, entry in enumerate(entries):
        if ("weight" in entry) != ("weight" in entries[0]):
            raise ConfigError(("datasets", index), "give every entry a weight, or none (then every row is taken)")
        if not entry.get("name") and not entry.get("path"):
            raise ConfigError(("datasets", index), "an entry needs a name (of a data set, or a Hub id) or a path")
    for key in ("load_in_4bit", "load_in_8bit"):
        if key in given and find_spec("bitsandbytes") is None:
            raise ConfigError((key,), "needs bitsandbytes: pip install bitsandbytes")
    if "report_to" in given:
        _check_trackers(values["report_to"])


def _check_trackers(report_to: str | list[str]) -> None:
    from transformers.integrations import integration_utils

    known, installed = (
        integration_utils.INTEGRATION_TO_CALLBACK,
        integration_utils.get_available_reporting_integrations(),
    )
    for name in [report_to] if isinstance(report_to, str) else report_to:
        if name not in (*known, "all", "none"):
            raise ConfigError(("report_to",), f"{name!r} is not one of none, all, {', '.join(known)}")
        if name not in (*installed, "all", "none"):
            raise ConfigError(("report_to",), f"{name} is not installed: pip install {name}")
