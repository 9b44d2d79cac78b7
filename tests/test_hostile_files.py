"""JSON that others may have written: nested without end, endless numbers, one key twice, another shape."""

import bz2
import gzip
import json
import lzma
import re
import struct
import time

import pyarrow
import pyarrow.parquet
import pytest

from schoolhouse.config.arguments import ModelArguments
from schoolhouse.config.errors import ConfigError
from schoolhouse.config.parser import RecipeParser
from schoolhouse.config.paths import adapter_settings
from schoolhouse.core.files import parse_json
from schoolhouse.core.manifest import read_manifest, read_pipeline_index
from schoolhouse.core.models import adapter_hash
from schoolhouse.core.reward_models import load_statistics
from schoolhouse.core.run import last_checkpoint
from schoolhouse.data.files import check_size
from schoolhouse.data.loading import LoadReport, load_table, open_table
from schoolhouse.evaluation.results import load_results, load_samples
from schoolhouse.hub.lineage import check_lineage
from schoolhouse.hub.secret_scan import find_secrets
from schoolhouse.hub.verify import read_claims
from schoolhouse.report.reading import read_stages


HOSTILE = {
    "nested 100,000 deep": ("[" * 100_000, "nested more than 100 deep"),
    "nested 500 deep": ('{"a":' * 500 + "1" + "}" * 500, "nested more than 100 deep"),
    "5,000 digits": ('{"schema": ' + "9" * 5_000 + "}", "4300 digits"),
    "21 digits": ('{"schema": ' + "9" * 21 + "}", "an integer that 64 bits do not hold"),
    "one key twice": ('{"schema": 2, "schema": 1}', "the key 'schema' twice in one object"),
    "a list": ("[1]", ""),
    "text": ('"x"', ""),
    "no UTF-8": (b'{"a": "\xff"}', "not UTF-8 text"),
    "half a file": ('{"schema": 2, "st', "Unterminated string"),
}


# File -> what reads it, given its folder.
READERS = {
    "run.json": read_manifest,
    "pipeline.json": read_pipeline_index,
    "results.json": load_results,
    "lineage.json": check_lineage,
    "reward_statistics.json": lambda folder: load_statistics(str(folder)),
}


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_json_file_is_one_line_with_its_name(tmp_path, file, kind):
    text, reason = HOSTILE[kind]
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "config.json").write_text("{}")
    before = time.process_time()
    with pytest.raises(ValueError, match=file) as error:
        READERS[file](tmp_path)
    assert time.process_time() - before < 2
    assert reason in str(error.value) and len(str(error.value)) < 500 and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_adapter_to_continue_with_a_hostile_configuration_is_one_line(tmp_path, kind):
    text, _ = HOSTILE[kind]
    (tmp_path / "adapter_config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    values = {"adapter_name_or_path": str(tmp_path), "model_name_or_path": "data/tiny/base"}
    with pytest.raises(ConfigError) as error:
        adapter_settings(values, set())
    assert error.value.path == ("adapter_name_or_path",) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "values", [{"r": [[1]]}, {"lora_alpha": "x"}, {"target_modules": [[1]]}, {"base_model_name_or_path": [1]}]
)
def test_settings_of_an_adapter_to_continue_are_checked_like_the_recipes(tmp_path, capsys, values):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | values))
    with pytest.raises(SystemExit):
        RecipeParser((ModelArguments,)).parse_args(["--adapter_name_or_path", str(tmp_path), "--lora_r", "4"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", sorted(HOSTILE.keys() - {"a list", "text"}))
def test_other_readers_of_json_survive_it(tmp_path, kind):
    text, reason = HOSTILE[kind]
    raw = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "adapter_config.json").write_bytes(raw)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        adapter_hash(str(tmp_path))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/t.jsonl").write_bytes(b"\n" + raw)
    with pytest.raises(ValueError, match=r"t\.jsonl:2 is not valid JSON") as error:
        load_samples(tmp_path, "t")
    assert kind == "half a file" or reason in str(error.value)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3/trainer_state.json").write_bytes(raw)
    (tmp_path / "checkpoint-²").mkdir()
    assert last_checkpoint(tmp_path) is None
    find_secrets("config.json", raw)
    with pytest.raises(ValueError, match="no safetensors file"):
        find_secrets("a.safetensors", struct.pack("<Q", len(raw)) + raw)
    (tmp_path / "train.jsonl").write_bytes(raw)
    (row,) = open_table(str(tmp_path / "train.jsonl"), None).rows
    assert row == "not JSON: Unterminated string starting at at column 15" if kind == "half a file" else reason in row


def _write(path, rows, writer=open):
    with writer(path, "wb") as file:
        for row in rows:
            file.write(row)


def _parquet(path, column):
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, compression="zstd")


LONG = "x" * 2**20
BOMBS = {
    "train.jsonl.gz": lambda path: _write(path, [b'{"text": "a"}\n' * 2**16] * 20, gzip.open),
    "a line/train.jsonl.gz": lambda path: _write(path, [b" " * 2**20] * 16, gzip.open),
    "train.json.gz": lambda path: _write(path, [b'[{"text": "a"}'] + [b"  " * 2**20] * 8 + [b"]"], gzip.open),
    "train.csv.gz": lambda path: _write(path, [b"text\n" * 2**20] * 3, gzip.open),
    "gzip by another name/train.csv": lambda path: _write(path, [b"text\n" * 2**20] * 3, gzip.open),
    "one text in every row/train.parquet": lambda path: _parquet(
        path, pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100, pyarrow.int32()), [LONG])
    ),
    "in lists/train.parquet": lambda path: _parquet(path, pyarrow.array([[{"a": "b", "content": LONG}] * 10] * 10)),
    "different texts/train.parquet": lambda path: _parquet(path, [f"{i}{LONG}" for i in range(12)]),
    "nothing at all/train.parquet": lambda path: _parquet(path, pyarrow.nulls(2_000_000, pyarrow.string())),
    "in one list/train.parquet": lambda path: _parquet(
        path, pyarrow.ListArray.from_arrays([0, 2_000_000], pyarrow.nulls(2_000_000, pyarrow.string()))
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_unpacks_without_end_is_refused_unless_the_user_raises_the_limit(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    BOMBS[name](path)
    assert path.stat().st_size < 150_000
    monkeypatch.setenv("SCHOOLHOUSE_MAX_UNPACKED_GB", str(10 / 1024))
    told = rf"{re.escape(str(path))} unpacks to more than 0.00976562 GiB .*set SCHOOLHOUSE_MAX_UNPACKED_GB to a larger"
    with pytest.raises(ValueError, match=told):
        open_table(str(path), None)
    monkeypatch.setenv("SCHOOLHOUSE_MAX_UNPACKED_GB", "0.25")
    if path.suffix == ".parquet":
        check_size(path)
    elif "line" not in name:
        assert open_table(str(path), None).rows


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.csv", lzma.compress(b"text\na\n"), "is packed in a way that is not read"),
        ("train.csv", bz2.compress(b"text\na\n"), "is packed in a way that is not read"),
        ("train.csv.gz", b"PK\x03\x04....", "is packed in a way that is not read"),
        ("train.csv", b'text\n"a', "cannot be read as csv"),
        ("train.csv", b"text\n\xff", "cannot be read as csv"),
        ("train.parquet", b"PAR1....", "cannot be read as Parquet"),
        ("train.jsonl.gz", b"text", "is no whole gzip file"),
        ("train.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-9], "is no whole gzip file"),
        ("train.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0) + b"more", "is no whole gzip file"),
        ("train.json", b"[" * 100_000, "nested more than 100 deep"),
        ("train.json", b'[{"text": ' + b"[" * 500 + b"]" * 500 + b"}]", "nested more than 100 deep"),
        ("train.json", b"[" + b"9" * 5000 + b"]", "4300 digits"),
    ],
)
def test_a_damaged_data_file_is_one_line_with_its_name(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} .*{told}") as error:
        open_table(str(tmp_path / name), None)
    assert "\n" not in str(error.value)


def test_a_hostile_row_is_left_out_by_its_line_and_the_others_are_read(tmp_path):
    hostile = ["[" * 99_999, '{"a": ' * 500 + "1" + "}" * 500, "9" * 5000, "9" * 30, '1, "text": "b"']
    rows = [f'{{"text": "a", "x": {value}}}' for value in ["1"] * 600 + hostile]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    report = LoadReport()
    assert len(load_table(str(tmp_path / "train.jsonl"), report=report)) == 600
    assert [line.partition(": ")[0][-3:] for line in report.malformed] == ["601", "602", "603", "604", "605"]


@pytest.mark.parametrize("file", ["overoptimization.json", "log.json"])
def test_the_report_lists_hostile_files_as_missing_data(tmp_path, file):
    frame = {"schema": 2, "hashes": {"model": "m"}, "sampling": {}, "tasks": {}}
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/results.json").write_text(json.dumps(frame))
    (tmp_path / "run.json").write_text('{"schema": 2, "status": "done", "recipe": "sft"}')
    (tmp_path / file).write_text("[" * 100_000)
    _, (stage,) = read_stages([f"sft={tmp_path / 'eval'}"])
    assert any(file in line and "nested more than 100 deep" in line for line in stage.missing)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000,
        "- value: " + "9" * 5_000,
        "- &a [x, x]\n" + "\n".join(f"- &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(24)),
        "- {value: [1], value: 2}",
        "- value: !!python/object/apply:os.getcwd []",
        "plain",
    ],
)
def test_hostile_claims_are_one_line(tmp_path, text):
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results/t.yaml").write_text(text)
    with pytest.raises(ValueError, match="not of the form that is pushed") as error:
        read_claims(tmp_path)
    assert len(str(error.value)) < 400


def test_ordinary_json_is_read_as_python_reads_it():
    text = '\ufeff{"a": [1, 2.5, -9223372036854775808, 9223372036854775807, null, NaN, "9999999999999999999999"]}'
    assert repr(parse_json(text.encode())) == repr(json.loads(text[1:]))
    wide = json.dumps([{"x": [i]} for i in range(1_000)])
    assert parse_json(wide) == json.loads(wide)
    deep = "[" * 100 + "]" * 100
    assert parse_json(deep) == json.loads(deep)
    for text in ("NaN", "-Infinity", "[Infinity]"):
        parse_json(text)
        with pytest.raises(ValueError, match="is no JSON number"):
            parse_json(text, finite=True)
