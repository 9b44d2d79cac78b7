"""Conditions of vLLM for an adapter that it serves, from `vllm/lora` (its `PEFTHelper` and its loader)."""

import json
from pathlib import Path

from safetensors import safe_open


MAX_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
# Layers of Llama-like models for which it takes adapters; packed layers are named by their parts.
TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head", "embed_tokens"}


def refusals(adapter: Path, max_lora_rank: int = 16) -> list[str]:
    """Reasons for which `vllm serve --enable-lora --max-lora-rank N` would refuse an adapter."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    found = []
    if max_lora_rank not in MAX_LORA_RANKS:
        found.append(f"max_lora_rank {max_lora_rank}")
    if config["r"] > max_lora_rank:
        found.append(f"rank {config['r']}")
    if config.get("modules_to_save"):
        found.append("modules_to_save")
    if config.get("use_dora"):
        found.append("DoRA")
    if config.get("bias", "none") != "none":
        found.append("bias")
    targets = config["target_modules"]
    if isinstance(targets, str) or {name.rpartition(".")[2] for name in targets} - TARGETS:
        found.append(f"target_modules {targets}")
    with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
        for name in weights.keys():  # noqa: SIM118
            if not (name.startswith("base_model.model.") and name.endswith((".lora_A.weight", ".lora_B.weight"))):
                found.append(f"weight {name}")
    return found
