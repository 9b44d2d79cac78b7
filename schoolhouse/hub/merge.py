"""An adapter and its base as one checkpoint, written only if it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schoolhouse.core.files import load_object
from schoolhouse.core.models import adapter_folder, load_model, load_tokenizer


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Largest difference of a logit, as a share of the largest logit. fp32 carries rounding of some layers; bf16 keeps 8
# bits of each merged weight.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
PROBE = (
    "Tom has 3 apples and buys 4 more. How many apples does he have?",
    "def add(a, b):\n    return a + b\n",
    "Once upon a time there was a small house by the sea.",
)


def merge(base: str | None, adapter: str, folder: Path, dtype: str = "float32") -> float:
    """
    Merge an adapter into its base, compare the logits of the two, and save the result.

    The reference is base + adapter in fp32. The merged weights are computed in fp32 and then rounded to `dtype`.

    Args:
        base (`str` or `None`):
            Hub id or folder of the base; `None` for the one that the adapter names.
        adapter (`str`):
            Hub id or folder of the adapter, of a language model.
        folder (`Path`):
            Where to; must not exist. Appears complete or not at all.
        dtype (`str`, *optional*, defaults to `"float32"`):
            `"float32"` or `"bfloat16"`.

    Returns:
        `float`: the largest difference of a logit, as a share of the largest logit.

    Raises:
        ValueError: if the folder exists, the adapter is no language model's, or the difference is above `TOLERANCE`.
    """
    import torch

    from schoolhouse.training.policy import save_adapter

    if dtype not in TOLERANCE:
        raise ValueError(f"--dtype {dtype!r}: choose one of {', '.join(TOLERANCE)}")
    if folder.exists():
        raise ValueError(f"{folder} exists: name another --output_dir")
    config = load_object(adapter_folder(adapter) / "adapter_config.json")
    if config.get("task_type") == "SEQ_CLS":
        raise ValueError(f"{adapter} is a reward adapter: it is used on its base, and not merged")
    base = base or config.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{adapter} names no base: --base_model, a folder or a Hub id")
    tokenizer = load_tokenizer(base, adapter)
    model = load_model(base, adapter, dtype="float32")
    rows = [torch.tensor([tokenizer(text)["input_ids"]], device=model.device) for text in PROBE]
    wanted = probe_logits(model, rows)
    merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))  # type: ignore[operator]
    difference = largest_difference(wanted, probe_logits(merged, rows))
    if not difference <= TOLERANCE[dtype]:
        raise ValueError(
            f"the merged model computes something else: its logits differ by {difference:.2e} of the largest, allowed "
            f"is {TOLERANCE[dtype]:.0e} in {dtype}; nothing was written"
        )
    save_adapter(merged, folder, tokenizer)
    return difference


def probe_logits(model: PreTrainedModel, rows: list[Tensor]) -> list[Tensor]:
    """Return the logits `(1, T, V)` for rows of token ids `(1, T)`, in fp32 on the CPU."""
    import torch

    with torch.no_grad():
        return [model(input_ids=row).logits.float().cpu() for row in rows]


def largest_difference(wanted: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest absolute difference of logits, divided by the largest absolute logit of `wanted`."""
    scale = max(float(part.abs().max()) for part in wanted)
    return max(float((a - b).abs().max()) for a, b in zip(wanted, found, strict=True)) / scale
