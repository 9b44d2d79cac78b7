"""A pulled file is what its name says, whatever the lineage of its author says about it."""

import io
import json
import pickle
import struct
import zipfile

import pytest

from schoolhouse.hub import pull
from schoolhouse.hub.pull import check_content


def weights(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps([1]))
    return file.getvalue()


TENSOR = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
GOOD = {
    "adapter_model.safetensors": weights(TENSOR, b"x"),
    "sft/adapter_model.safetensors": weights(TENSOR, b"x"),
    "adapter_config.json": b'{"r": 8}',
    "merges.txt": "a b\u00e4\n".encode(),
    "chat_template.jinja": b"{{ x }}",
    "tokenizer.model": b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00",
    ".eval_results/svamp.yaml": b"- value: 1",
    "README.md": b"# x",
}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_files_of_an_adapter_pass(tmp_path):
    check_content(write(tmp_path, GOOD), GOOD)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("adapter_model.safetensors", pickle.dumps({"a": 1}), "no safetensors file"),
        ("adapter_model.safetensors", archive(), "no safetensors file"),
        ("adapter_model.safetensors", weights(TENSOR, b"x") + archive(), "holds more than its tensors"),
        ("adapter_model.safetensors", b"", "no safetensors file"),
        ("adapter_config.json", pickle.dumps({"r": 8}), "no JSON"),
        ("adapter_config.json", b"{'r': 8}", "no JSON"),
        ("adapter_config.json", b"7", "no JSON"),
        ("tokenizer.json", b"[" * 100_000, "no JSON"),
        ("sft/run.json", archive(), "no JSON"),
        ("chat_template.jinja", b"\x7fELF\0\0", "no text"),
        ("merges.txt", b"\xff\xfe", "no text"),
        ("README.md", archive(), "no text"),
        ("tokenizer.model", archive(), "is an archive or pickled"),
        ("tokenizer.model", pickle.dumps([1]), "is an archive or pickled"),
        ("modeling.py", b"import os", "no file of an adapter"),
        ("adapter_model.bin", pickle.dumps([1]), "no file of an adapter"),
        ("training_args.bin", archive(), "no file of an adapter"),
        ("sft/custom.py", b"", "no file of an adapter"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_by_name(tmp_path, name, content, told):
    files = GOOD | {name: content}
    with pytest.raises(ValueError, match=told) as refused:
        check_content(write(tmp_path, files), files)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_text_without_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pull, "_LARGEST_TEXT", 100)
    with pytest.raises(ValueError, match=r"tokenizer\.json has 101 bytes; without weights at most 100"):
        check_content(write(tmp_path, {"tokenizer.json": b" " * 101}), ["tokenizer.json"])
