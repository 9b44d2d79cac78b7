"""Loading of models, adapters and tokenizers, and the hashes that identify them."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schoolhouse.core.escape import one_line
from schoolhouse.core.files import load_object


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

    from schoolhouse.config.arguments import ModelArguments

# Settings that say nothing about the function that a model computes. The stored dtype is one of them: the dtype that a
# model runs in is a sampling parameter.
_IRRELEVANT = {
    "_name_or_path",
    "architectures",
    "auto_mapping",
    "base_model_name_or_path",
    "dtype",
    "inference_mode",
    "peft_version",
    "revision",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def load_tokenizer(
    model_name_or_path: str, adapter_name_or_path: str | None = None, revision: str | None = None
) -> "PreTrainedTokenizerBase":
    """
    Load the tokenizer for batched generation: padded on the left, with a chat template and a pad token.

    The tokenizer in an adapter's folder comes first: the stage that trained the adapter chose its template. A missing
    pad token becomes EOS (sequences are masked by their length, never by token id), so embeddings are never resized.

    Args:
        model_name_or_path (`str`):
            Hub id or folder of the base model.
        adapter_name_or_path (`str`, *optional*):
            Hub id or folder of a LoRA adapter.
        revision (`str`, *optional*):
            Branch, tag or commit of the base model on the Hub.

    Returns:
        [`~transformers.PreTrainedTokenizerBase`]: the tokenizer.
    """
    from transformers import AutoTokenizer

    from schoolhouse.core.chat_templates import ensure_chat_template

    source = model_name_or_path
    if adapter_name_or_path:
        folder = adapter_folder(adapter_name_or_path)
        if (folder / "tokenizer_config.json").exists():
            source, revision = str(folder), None
    # Asked for code in the folder, transformers would offer to run it.
    options: dict[str, Any] = {"revision": revision, "padding_side": "left", "trust_remote_code": False}
    if source == model_name_or_path:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    else:
        from schoolhouse.core.adapter_checks import check_chat_template  # here, as a run without adapters needs it not

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
        except Exception as error:  # whatever it is, it comes from files that others may have written
            raise ValueError(f"{source}: its tokenizer cannot be loaded: {one_line(repr(error))}") from None
        check_chat_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return ensure_chat_template(tokenizer)


def load_model(
    model_name_or_path: str,
    adapter_name_or_path: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
) -> "PreTrainedModel":
    """
    Load a causal language model, with its adapter if there is one, ready for inference.

    Only safetensors are read, and no code from the model's repository is run.

    Args:
        model_name_or_path (`str`):
            Hub id or folder of the base model.
        adapter_name_or_path (`str`, *optional*):
            Hub id or folder of a LoRA adapter, loaded by plain `PeftModel.from_pretrained`.
        dtype (`str`, *optional*):
            `"float32"`, `"bfloat16"` or `"float16"`; by default that of [`native_dtype`].
        device (`str`, *optional*):
            A torch device; by default CUDA, MPS or the CPU, the first that exists.
        revision (`str`, *optional*):
            Branch, tag or commit of the base model on the Hub.

    Returns:
        [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]: the model, in evaluation mode, on its device.

    Raises:
        ValueError: If the base is itself an adapter, or the adapter has no safetensors weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if (Path(model_name_or_path) / "adapter_config.json").exists():
        raise ValueError(
            f"model_name_or_path {model_name_or_path} holds a LoRA adapter: name its base model there and the folder "
            "itself as adapter_name_or_path"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(
        model_name_or_path,
        revision=revision,
        dtype=getattr(torch, dtype) if dtype else native_dtype(device),
        use_safetensors=True,
        trust_remote_code=False,
    )
    if adapter_name_or_path:
        from peft import PeftModel

        from schoolhouse.core.adapter_checks import check_adapter

        folder = adapter_folder(adapter_name_or_path)
        check_adapter(folder, model)
        model = PeftModel.from_pretrained(model, str(folder))
    return model.to(device).eval()


def native_dtype(device: str) -> "torch.dtype":
    """
    Return the dtype in which a device computes fast, with the range that models need.

    This is bf16 on a GPU that has it natively, otherwise fp32: CPUs without AMX emulate bf16 five times slower than
    fp32, and fp16 overflows in models trained in bf16.
    """
    import torch

    is_native = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if is_native else torch.float32


def weights_dtype(model_args: "ModelArguments", training_args: "TrainingArguments") -> str:
    """
    Return the precision of the base weights: the `dtype` of the YAML, else the hardware's.

    By default it is `"bfloat16"` for frozen weights where the device computes in it (`bf16`), else `"float32"`:
    weights that are trained themselves would lose small updates in bf16.
    """
    if model_args.dtype == "auto":
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(str(model_args.model_name_or_path), revision=model_args.model_revision)
        return str(config.dtype or "float32").removeprefix("torch.")
    is_frozen = model_args.use_peft or model_args.adapter_name_or_path is not None
    return model_args.dtype or ("bfloat16" if training_args.bf16 and is_frozen else "float32")


def adapter_folder(adapter_name_or_path: str) -> Path:
    """
    Return the local folder of an adapter. One on the Hub is downloaded, without any pickled file.

    Raises:
        ValueError: If there is no such adapter, or it lacks `adapter_config.json` or `adapter_model.safetensors`.
    """
    folder = Path(adapter_name_or_path)
    if not folder.is_dir() and not _is_local(adapter_name_or_path):
        from huggingface_hub import snapshot_download

        patterns = ["adapter_config.json", "adapter_model*.safetensors", "*token*.json", "tokenizer.model"]
        patterns += ["vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "reward_statistics.json"]
        try:
            folder = Path(snapshot_download(adapter_name_or_path, allow_patterns=patterns, ignore_patterns=["*.bin"]))
        except OSError as error:
            raise ValueError(f"adapter {adapter_name_or_path} is neither a folder nor on the Hub: {error}") from error
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).exists():
            raise ValueError(f"adapter {adapter_name_or_path} has no {name}: name a folder saved by save_pretrained")
    return folder


def model_hash(model_name_or_path: str, revision: str | None = None) -> str:
    """
    Hash of a base model, which depends on the function that it computes and not on its place.

    Returns:
        `str`: the SHA-256 of a folder's safetensors and the relevant part of its `config.json`; the commit of a Hub id
        and its `revision`.

    Raises:
        ValueError: If the folder does not exist, or holds no config or no safetensors weights.
    """
    folder = Path(model_name_or_path)
    if folder.is_dir():
        return _folder_hash(folder, "config.json", "model*.safetensors")
    if _is_local(model_name_or_path):
        raise ValueError(f"model folder {model_name_or_path} does not exist")
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_name_or_path, revision=revision)
        commit = getattr(config, "_commit_hash", None) or _cached_commit(model_name_or_path, revision)
    except OSError as error:
        raise ValueError(f"model {model_name_or_path} is neither a folder nor on the Hub: {error}") from error
    if commit is None:  # without it, two models would share their samples
        raise ValueError(f"model {model_name_or_path}: the Hub gives no commit; download it and name the folder")
    return commit


def adapter_hash(adapter_name_or_path: str) -> str:
    """
    Hash of an adapter, the same for every copy of it: the SHA-256 of its safetensors and the relevant part of
    `adapter_config.json`. `ValueError` if there is no such adapter.
    """
    return _folder_hash(adapter_folder(adapter_name_or_path), "adapter_config.json", "adapter_model*.safetensors")


def template_hash(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """SHA-256 of a tokenizer's chat template, `None` without one."""
    if tokenizer.chat_template is None:
        return None
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()


def _cached_commit(model: str, revision: str | None) -> str | None:
    # The cache keeps the files of a commit in a folder with its name.
    from transformers.utils import cached_file

    commit = Path(str(cached_file(model, "config.json", revision=revision))).parent.name
    return commit if len(commit) == 40 else None


def _is_local(name: str) -> bool:
    # A Hub id is `name` or `owner/name`. Anything else can only be a folder, and so is `owner/name` if `owner` is one.
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and Path(name).parent.is_dir())


def _folder_hash(folder: Path, config: str, weights: str) -> str:
    files = sorted(folder.glob(weights))
    for name, exists in ((config, (folder / config).exists()), (weights, bool(files))):
        if not exists:
            raise ValueError(f"{folder} has no {name} (pickled weights are refused: save the model as safetensors)")

    def digest(file: Path) -> bytes:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").digest()

    return folder_digest(load_object(folder / config), [digest(file) for file in files])


def folder_digest(settings: dict[str, Any], weights: list[bytes]) -> str:
    """
    Hash of a model or an adapter from its parts, on disk or on the Hub.

    Args:
        settings (`dict[str, Any]`):
            Its `config.json` or `adapter_config.json`.
        weights (`list[bytes]`):
            SHA-256 of each file of weights, in the order of the names.
    """
    settings = dict(settings)
    for key, value in settings.items():
        # peft writes sets of module names in random order.
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            settings[key] = sorted(value)
    digest = hashlib.sha256(
        json.dumps({key: settings[key] for key in settings.keys() - _IRRELEVANT}, sort_keys=True).encode()
    )
    for part in weights:
        digest.update(part)
    return digest.hexdigest()
