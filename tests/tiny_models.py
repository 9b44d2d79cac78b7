"""A random Llama and a byte-level BPE tokenizer in a folder, made in well under a second."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


CORPUS = [
    "User: How many apples are left?\nAssistant: There are 3 + 4 = 7 apples.\n#### 7\n",
    "System: Answer in one word.\nUser: Where does Tom live?\nAssistant: Paris.\n",
    "The quick brown fox jumps over the lazy dog while 12 - 5 = 7 and 6 * 7 = 42.",
]


def make_tiny_tokenizer(
    eos_token: str = "<|endoftext|>", pad_token: str | None = None, special_tokens: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer without chat template; padding is EOS unless a pad token is named."""
    specials = list(dict.fromkeys([eos_token, *special_tokens, *([pad_token] if pad_token else [])]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos_token, pad_token=pad_token or eos_token)


def make_tiny_model(
    folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, tied: bool = True, seed: int = 0
) -> Path:
    """
    Save a random two-layer Llama of some 40,000 parameters, and its tokenizer, in `folder`.

    Args:
        folder (`Path`):
            Where to.
        tokenizer ([`~transformers.PreTrainedTokenizerFast`], *optional*):
            By default that of [`make_tiny_tokenizer`].
        tied (`bool`, *optional*, defaults to `True`):
            Whether the head shares the embeddings' weights.
        seed (`int`, *optional*, defaults to `0`):
            Of the weights.

    Returns:
        `Path`: the folder.
    """
    tokenizer = tokenizer or make_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
