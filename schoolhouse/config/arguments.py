"""
Keys that every recipe shares, and the parser: a flat YAML file and flags in, dataclasses out.

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
    """Entry of a mixture: the keys of [`DataArguments`] without their prefix, and its weight."""

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
    Data of a recipe.

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
            Split to evaluate on; null where there is none.
        dataset_columns (`dict[str, str]`, *optional*):
            TRL's column names to the data set's own: `{prompt: question, completion: answer}`.
        datasets (`list[DatasetEntry]`, *optional*):
            A weighted mixture, instead of `dataset_name`. Keys of an entry: name, path, config, revision, split,
            weight, columns, max_rows, drop_overlap.
        max_train_rows (`int`, *optional*):
            Rows of the train split to use at most.
        max_eval_rows (`int`, *optional*):
            Rows of the test split to use at most.
        drop_overlap (`bool`, *optional*, defaults to `False`):
            Leave out training rows whose prompt is one of the test split's; in a mixture each entry says so.
        validation_split (`float` or `int`, *optional*):
            Share or number of the training rows that are held out, and take the place of the test split. A hash of
            the prompt decides, so the same rows are held out every time, and no prompt is on both sides.
        conversational (`bool`, *optional*):
            Put prompts and answers that are text into turns of the chat template; by default where the model has a
            template of its own.
    """

    dataset_name: str | None = None
    dataset_path: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    dataset_train_split: str = "train"
    dataset_test_split: str | None = "test"
    dataset_columns: dict[str, str] | None = None
    datasets: list[DatasetEntry] | None = None
    max_train_rows: int | None = None
    max_eval_rows: int | None = None
    drop_overlap: bool = False
    validation_split: float | int | None = None
    conversational: bool | None = None


@dataclass
class RewardArguments:
    """
    Rewards of a recipe.

    Args:
        rewards (`list[dict[str, Any] | str]`, *optional*):
            Names, or `{name, weight, and the reward's own parameters}`: a name in `schoolhouse.rewards.REWARDS`,
            `file.py:function` or `trl.rewards.NAME`. With weight 0 a reward is only logged.
    """

    rewards: list[dict[str, Any] | str] | None = None


@dataclass
class ModelArguments(ModelConfig):
    """
    [`~trl.ModelConfig`] with other defaults: LoRA on all linear layers, precision left to the hardware.

    Args:
        use_peft (`bool`, *optional*, defaults to `True`):
            Train a LoRA adapter rather than all weights.
        lora_target_modules (`str` or `list[str]`, *optional*, defaults to `"all-linear"`):
            Modules that get an adapter.
        lora_target_parameters (`str` or `list[str]`, *optional*):
            Parameters that get an adapter.
        dtype (`str`, *optional*):
            Precision of the base weights; the hardware decides where it is not set.
        adapter_name_or_path (`str`, *optional*):
            Adapter of a previous stage to continue, on the same base; it brings its own LoRA settings.
        trainable_new_tokens (`bool`, *optional*, defaults to `False`):
            Also train the embedding rows of tokens that the base never read (peft's `trainable_token_indices`).
    """

    adapter_name_or_path: str | None = None
    trainable_new_tokens: bool = False
    use_peft: bool = True
    # TRL takes text too, and makes a list of it.
    lora_target_modules: str | list[str] | None = "all-linear"  # type: ignore[assignment]
    lora_target_parameters: str | list[str] | None = None  # type: ignore[assignment]
    dtype: str | None = field(default=None, metadata={"choices": ["auto", "bfloat16", "float16", "float32"]})
