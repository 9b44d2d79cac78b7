"""Recipes beside the ecosystem's own tools."""

from pathlib import Path

import pytest
import yaml
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser


CONFIGS = Path(__file__).parents[1] / "recipes/configs"


@pytest.mark.parametrize("name", ["tiny/sft.yaml", "smollm2-135m/sft.yaml"])
def test_the_keys_of_an_sft_recipe_mean_the_same_to_trl(name):
    # The parser of `trl sft --config`. That command passes over the keys it does not know.
    kinds = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)
    values = yaml.safe_load((CONFIGS / name).read_text())
    parser = TrlParser(kinds)
    # TRL turns bf16 on unasked, which the trainer's arguments refuse on a CPU; we ask the hardware.
    *parsed, unknown = parser.parse_args_and_config(
        args=["--config", str(CONFIGS / name), "--bf16", "false"], return_remaining_strings=True
    )
    theirs = {key: value for key, value in values.items() if any(key in kind.__dataclass_fields__ for kind in kinds)}
    assert {"model_name_or_path", "learning_rate", "output_dir", "lora_r"} <= set(theirs)
    for key, value in theirs.items():
        (holder,) = [part for part in parsed if hasattr(part, key)][:1]
        got = getattr(holder, key)
        if key == "report_to":
            assert got in ([], value, [value])
        elif key == "lora_target_modules":
            assert got in (value, [value])
        elif key != "datasets":
            assert got == value, key
    assert {text.removeprefix("--") for text in unknown if text.startswith("--")} == set(values) - set(theirs)
