"""
The keys that every recipe shares, and the strict parser: a flat YAML file and flags in, dataclasses out.

```python
parser = RecipeParser((DataArguments, SFTConfig, ModelArguments), required=("model_name_or_path", "output_dir"))
data_args, training_args, model_args = parser.parse_args()
```
"""

from dataclasses import dataclass, field
from typing import Any

from trl import ModelConfig
from typing_extensions import TypedDict

from schoolhouse.config.parser import RecipeParser


__all__ = ["DataArguments", "DatasetEntry", "ModelArguments", "RecipeParser", "RewardArguments"]


class DatasetEntry(TypedDict, total=False):
    """One entry of a mixture: the keys of [`DataArguments`] without their prefix, and its weight."""

    name: str
    path: str
    config: str
    revision: str
    split: str
    weight: float
    columns: dict[str, str]
    max_rows: int
    drop_overlap: bool


@dataclass
class DataArguments:
    """
    Where a recipe's rows come from.

    Args:
        dataset_name (`str`, *optional*):
            A data set's name in `data/`, a Hub id, a data file or folder, or a YAML file that describes a data set.
        dataset_path (`str`, *optional*):
            Local file or folder with the rows, instead of the Hub.
        dataset_config (`str`, *optional*):
            Configuration of the Hub data set.
        dataset_revision (`str`, *optional*):
            Branch, tag or commit of the Hub data set.
        dataset_train_split (`str`, *optional*, defaults to `"train"`):
            Split to train on.
        dataset_test_split (`str`, *optional*, defaults to `"test"`):
            Split to evaluate on; `None` where there is none.
        dataset_columns (`dict[str, str]`, *optional*):
            TRL's column names to the data set's own: `{prompt: question, completion: answer}`.
        datasets (`list[DatasetEntry]`, *optional*):
            A weighted mixture, instead of `dataset_name`.
        max_train_rows (`int`, *optional*):
            Rows of the train split to use at most.
        max_eval_rows (`int`, *optional*):
            Rows of the test split to use at most.
        drop_overlap (`bool`, *optional*, defaults to `False`):
            Leave out training rows whose prompt is one of the test split's; in a mixture each entry says so.
    """

    dataset_name: str | None = field(
        default=None, metadata={"help": "A name in data/, a Hub id, a data file or folder, or a data set's YAML file."}
    )
    dataset_path: str | None = field(
        default=None, metadata={"help": "Local file or folder with the rows, instead of the Hub."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the Hub data set."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str | None = field(default="test", metadata={"help": "Split to evaluate on, or null."})
    dataset_columns: dict[str, str] | None = field(
        default=None, metadata={"help": "TRL's column names to theirs: '{prompt: question, completion: answer}'."}
    )
    datasets: list[DatasetEntry] | None = field(
        default=None,
        metadata={
            "help": "A weighted mixture instead of dataset_name; keys of an entry: "
            f"{', '.join(DatasetEntry.__annotations__)}."
        },
    )
    max_train_rows: int | None = field(default=None, metadata={"help": "Rows of the train split to use at most."})
    max_eval_rows: int | None = field(default=None, metadata={"help": "Rows of the test split to use at most."})
    drop_overlap: bool = field(
        default=False, metadata={"help": "Leave out training rows whose prompt is one of the test split's."}
    )


@dataclass
class RewardArguments:
    """
    How answers are paid.

    Args:
        rewards (`list[dict[str, Any]]`, *optional*):
            `{name, weight, and the reward's own parameters}`: a name in `schoolhouse.rewards.REWARDS` or
            `file.py:function`. With weight 0 a reward is only logged.
    """

    rewards: list[dict[str, Any]] | None = field(
        default=None, metadata={"help": "Entries {name, weight, parameters}; a name or file.py:function."}
    )


@dataclass
class ModelArguments(ModelConfig):
    """
    [`~trl.ModelConfig`] with the house's defaults: LoRA on all linear layers, precision left to the hardware.

    Args:
        use_peft (`bool`, *optional*, defaults to `True`):
            Train a LoRA adapter rather than all weights.
        lora_target_modules (`str` or `list[str]`, *optional*, defaults to `"all-linear"`):
            Modules that get an adapter.
        lora_target_parameters (`str` or `list[str]`, *optional*):
            Parameters that get an adapter.
        dtype (`str`, *optional*):
            Precision of the base weights; `None` leaves it to the hardware.
        adapter_name_or_path (`str`, *optional*):
            Adapter of a previous stage to continue, on the same base; it brings its own LoRA settings.
        trainable_new_tokens (`bool`, *optional*, defaults to `False`):
            Also train the embedding rows of tokens that the base never read (peft's `trainable_token_indices`).
    """

    adapter_name_or_path: str | None = field(
        default=None, metadata={"help": "Adapter of a previous stage to continue, on the same base."}
    )
    trainable_new_tokens: bool = field(
        default=False, metadata={"help": "Also train the embedding rows of tokens that the base never read."}
    )
    use_peft: bool = field(default=True, metadata={"help": "Train a LoRA adapter rather than all weights."})
    lora_target_modules: str | list[str] | None = field(  # type: ignore[assignment]  # wider than TRL's, which takes text too
        default="all-linear", metadata={"help": "Modules that get an adapter."}
    )
    lora_target_parameters: str | list[str] | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Parameters that get an adapter."}
    )
    dtype: str | None = field(
        default=None,
        metadata={
            "help": "Precision of the base weights; the hardware decides where it is not set.",
            "choices": ["auto", "bfloat16", "float16", "float32"],
        },
    )
