"""Tokens that a base model never read, found in its embeddings without loading the model."""

from __future__ import annotations

from pathlib import Path

from schoolhouse.core.files import load_object


# Distance to the nearest other row over the row's own norm, below which a token counts as never read. Measured: 0.00
# to 0.04 for unread tokens of stories260k and SmolLM2 and 0.05 to 0.07 in a model pretrained on 2 M tokens; 0.12 for
# the least trained token that SmolLM2 uses (`<|im_start|>`) and 0.2 to 1.2 for ordinary words.
UNREAD_DISTANCE = 0.1

_INPUT_ROWS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_OUTPUT_ROWS = ("lm_head.weight", "embed_out.weight")


class EmbeddingRows:
    """
    Rows of a checkpoint's embeddings, read from its safetensors files without loading the model.

    A token that pretraining never read was never a target either. The softmax pushes the output rows of all such
    tokens in one common direction, so they become near copies of one another. No two tokens in use are that close.
    (Land and Bartolo, 2024, arXiv:2405.05417, find under-trained tokens by their closeness to known unused rows.)
    Norms are no sign: unread rows of stories260k have the *largest* norms, those of SmolLM2 average ones.
    """

    def __init__(self, files: dict[str, Path]):
        self.files = files  # safetensors file of each tensor, by name
        self.names = [
            name
            for suffixes in (_INPUT_ROWS, _OUTPUT_ROWS)
            for name in [next((name for name in files if name.endswith(suffixes)), None)]
            if name is not None
        ]

    @classmethod
    def find(cls, model_name_or_path: str, revision: str = "main") -> EmbeddingRows | None:
        """
        Find the checkpoint on this machine, without a download; `None` where there are no safetensors weights here
        (yet).
        """
        from safetensors import safe_open
        from transformers.utils import cached_file

        def local(name: str) -> Path | None:
            path = cached_file(
                model_name_or_path,
                name,
                revision=revision,
                local_files_only=True,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            return Path(path) if path is not None else None

        if index := local("model.safetensors.index.json"):
            shards = load_object(index)["weight_map"]
            rows = cls({name: index.parent / file for name, file in shards.items()})
        elif single := local("model.safetensors"):
            with safe_open(single, "pt") as weights:
                rows = cls(dict.fromkeys(weights.keys(), single))
        else:
            return None
        return rows if rows.names and all(rows.files[name].is_file() for name in rows.names) else None

    @property
    def modules(self) -> list[str]:
        """peft's names of the embedding modules: the input's, and the head's if it has weights of its own."""
        return [name.removesuffix(".weight").rpartition(".")[2] for name in self.names]

    def untrained(self, token_ids: list[int]) -> list[int]:
        """Return those of the given tokens that the base never read, by their output rows, in the order given."""
        import torch
        from safetensors import safe_open

        name = self.names[-1]
        with safe_open(self.files[name], "pt") as weights:
            table = weights.get_slice(name)
            rows = torch.cat([table[i : i + 1] for i in token_ids]).float()
            nearest = torch.full((len(token_ids),), torch.inf)
            ids = torch.tensor(token_ids)[:, None]
            for start in range(0, table.get_shape()[0], 16384):
                block = table[start : start + 16384].float()
                distance = torch.cdist(rows, block, compute_mode="donot_use_mm_for_euclid_dist")
                distance[ids == torch.arange(start, start + len(block))] = torch.inf
                nearest = torch.minimum(nearest, distance.min(dim=1).values)
        norms = rows.norm(dim=1)
        unread = nearest <= UNREAD_DISTANCE * norms  # a row of zeros counts where another is zero too
        return [token_id for token_id, flag in zip(token_ids, unread.tolist(), strict=True) if flag]
