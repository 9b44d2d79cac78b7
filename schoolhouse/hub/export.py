"""An adapter in the form that other programs take: one checkpoint, GGUF for llama.cpp, and a Modelfile for Ollama."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from schoolhouse.core.files import load_object, write_text
from schoolhouse.core.models import adapter_folder, load_tokenizer
from schoolhouse.hub.artifacts import unmerged_refusal
from schoolhouse.hub.merge import TOLERANCE, merge


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What llama.cpp calls ways of splitting text before BPE. Its converter knows a tokenizer by a hash of what it makes of
# one text, so it refuses a new vocabulary with a known way of splitting.
_SPLITTERS = {
    "smollm": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}],
    "gpt-2": [{"type": "ByteLevel", "add_prefix_space": False}],
}
_ROLES = {"s": "system", "u": "user", "a": "assistant"}
# Runs a script of llama.cpp, with the name of a splitter for tokenizers that it does not know.
_RUN_SCRIPT = """
import runpy, sys
from pathlib import Path
script, splitter, *sys.argv[1:] = sys.argv[1:]
folder, sys.argv[0] = Path(script).parent, script
sys.path[:0] = [str(folder), str(folder / "gguf-py")]
if splitter:
    from conversion.base import TextModel
    known = TextModel.get_vocab_base_pre
    def get_vocab_base_pre(self, tokenizer):
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            return splitter
    TextModel.get_vocab_base_pre = get_vocab_base_pre
runpy.run_path(script, run_name="__main__")
"""


def export(
    source: str,
    folder: Path,
    form: str,
    base: str | None = None,
    dtype: str = "float32",
    outtype: str = "f16",
    llama_cpp: str | None = None,
) -> Iterator[str]:
    """
    Write an adapter in the form of another program, and yield one line for each thing that was written or was not.

    Args:
        source (`str`):
            Hub id or folder of the adapter, or its run folder.
        folder (`Path`):
            Where to; must not exist. Appears complete or not at all.
        form (`str`):
            `"merged"`: a checkpoint of adapter and base. `"gguf"`: that as `model.gguf`, and the adapter alone as
            `adapter.gguf` where llama.cpp takes it. `"ollama"`: `model.gguf` with a `Modelfile`.
        base (`str`, *optional*):
            Hub id or folder of the base, instead of the one that the adapter names.
        dtype (`str`, *optional*, defaults to `"float32"`), outtype (`str`, *optional*, defaults to `"f16"`):
            Of the weights of a checkpoint, and of a GGUF.
        llama_cpp (`str`, *optional*):
            Folder with llama.cpp's converters; by default that of the environment variable `LLAMA_CPP`.

    Raises:
        ValueError: if the folder exists, the adapter is no language model's, or the converter is missing or fails.
    """
    run = Path(source) / "adapter"
    adapter = str(run) if (run / "adapter_config.json").is_file() else source
    if form == "merged":
        difference = merge(base, adapter, folder, dtype)
        yield (
            f"{folder}: {dtype}; logits differ from base + adapter by {difference:.1e} of the largest "
            f"(allowed {TOLERANCE[dtype]:.0e})"
        )
        return
    if folder.exists():
        raise ValueError(f"{folder} exists: name another --output_dir")
    converters = find_converters(llama_cpp)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        merged, written = Path(scratch, "merged"), Path(scratch, "written")
        written.mkdir()
        merge(base, adapter, merged)
        splitter = find_splitter(merged / "tokenizer.json")
        options = ["--outfile", str(written / "model.gguf"), "--outtype", outtype]
        _convert(converters / "convert_hf_to_gguf.py", splitter, [str(merged), *options])
        lines = [f"{folder / 'model.gguf'}: adapter and base, {outtype}: llama-server -m {folder / 'model.gguf'}"]
        if form == "gguf":
            lines.append(_export_lora(adapter, merged, written, folder, splitter, converters))
        else:
            template = ollama_template(load_tokenizer(str(merged)))
            write_text(written / "Modelfile", modelfile(template))
            told = (
                "" if template else ", without TEMPLATE: this chat template is no sequence of turns, so write it there"
            )
            lines.append(f"{folder / 'Modelfile'}: ollama create NAME -f {folder / 'Modelfile'}{told}")
        shutil.move(written, folder)
    yield from lines


def _export_lora(adapter: str, merged: Path, written: Path, folder: Path, splitter: str, converters: Path) -> str:
    """Write an adapter alone as `adapter.gguf`, or say in one line why only the merged model has it."""
    config = load_object(adapter_folder(adapter) / "adapter_config.json")
    if refused := unmerged_refusal(config):
        return f"no adapter.gguf: {refused}"
    options = ["--base", str(merged), "--outfile", str(written / "adapter.gguf"), "--outtype", "f32"]
    _convert(converters / "convert_lora_to_gguf.py", splitter, [*options, str(adapter_folder(adapter))])
    path = folder / "adapter.gguf"
    return f"{path}: the adapter alone, for a GGUF of its base: llama-server -m BASE.gguf --lora {path}"


def find_converters(llama_cpp: str | None = None) -> Path:
    """Return the folder of llama.cpp's converters; `ValueError` where it is not."""
    place = llama_cpp or os.environ.get("LLAMA_CPP")
    if place and (Path(place) / "convert_hf_to_gguf.py").is_file():
        return Path(place).resolve()
    told = f"{place} has no convert_hf_to_gguf.py" if place else "GGUF is written by llama.cpp's converter"
    raise ValueError(
        f"{told}: `git clone --depth 1 https://github.com/ggml-org/llama.cpp`, and name that folder with --llama_cpp "
        "or in LLAMA_CPP"
    )


def find_splitter(tokenizer: Path) -> str:
    """Return llama.cpp's name for the way in which a tokenizer.json splits text; empty where none is known."""
    values = load_object(tokenizer) if tokenizer.is_file() else {}
    own = values.get("pre_tokenizer") or {}
    if values.get("normalizer") or not isinstance(own, dict):
        return ""
    parts = own.get("pretokenizers", [own])
    # `trim_offsets` says nothing about the tokens; `use_regex` is on where it is not named.
    parts = [{k: v for k, v in part.items() if k not in ("trim_offsets", "use_regex")} for part in parts]
    uses_regex = all(part.get("use_regex", True) for part in own.get("pretokenizers", [own]))
    return next((name for name, splitter in _SPLITTERS.items() if uses_regex and parts == splitter), "")


def _convert(script: Path, splitter: str, arguments: list[str]) -> None:
    command = [sys.executable, "-c", _RUN_SCRIPT, str(script), splitter, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        missing = last.partition("No module named ")[2].strip("'")
        raise ValueError(f"{script.name}: {last}" + (f": pip install {missing.split('.')[0]}" if missing else ""))


def modelfile(template: str | None) -> str:
    """Return Ollama's Modelfile for the `model.gguf` beside it."""
    # Answers end with the model's EOS, which the GGUF names.
    return "FROM ./model.gguf\n" + (f'TEMPLATE """{template}"""\n' if template else "")


def ollama_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """
    Write a chat template in the language of Ollama, which is Go's; `None` if that cannot be done.

    The template is taken apart by rendering: a turn is the text around its content. The parts must make up a longer
    chat again, so a template that treats turns by their place or changes their content is not translated.
    """
    from jinja2.exceptions import TemplateError

    def render(roles: str, **options: bool) -> str:
        chat = [{"role": _ROLES[letter], "content": f"<{number}>"} for number, letter in enumerate(roles)]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, **options))  # type: ignore[arg-type]

    one, two, three = render("u"), render("ua"), render("uau")
    if not (two.startswith(one) and three.startswith(two)):
        return None
    turns = {"user": three[len(two) :].split("<2>"), "assistant": two[len(one) :].split("<1>")}
    user = "<0>".join(turns["user"])
    opening = one.removesuffix(user)
    prompt = render("u", add_generation_prompt=True).removeprefix(one)
    try:
        system = render("su").removesuffix(user.replace("<0>", "<1>"))
    except TemplateError:  # a template may refuse the role
        system = ""
    bos = tokenizer.bos_token
    if bos and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id:  # llama.cpp adds it itself
        opening, system = opening.removeprefix(bos), system.removeprefix(bos)
    else:
        bos = ""
    if system:
        turns = {"system": system.split("<0>")} | turns
    probes = ["u", "uauau", *(["su", "suau"] if system else [])]
    for probe in probes:
        texts = [f"<{number}>".join(turns[_ROLES[letter]]) for number, letter in enumerate(probe)]
        start = "" if probe.startswith("s") else opening
        if bos + start + "".join(texts) + prompt != render(probe, add_generation_prompt=True):
            return None
    if any(len(parts) != 2 for parts in turns.values()) or any(mark in one + two + system for mark in ("{{", '"""')):
        return None
    start = f"{{{{ if not .System }}}}{opening}{{{{ end }}}}" if opening else ""
    branches = [
        f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}' for role, (before, after) in turns.items()
    ]
    return f"{start}{{{{ range .Messages }}}}{{{{ {'{{ else '.join(branches)}{{{{ end }}}}{{{{ end }}}}{prompt}"
