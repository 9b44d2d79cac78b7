"""Reading rows, the mixture and its record."""

import gzip
import json
import logging
import math
import subprocess
import sys
from collections import Counter

import pytest
from datasets import Dataset, DatasetDict

from schoolhouse.config.arguments import DataArguments
from schoolhouse.core.fingerprint import fingerprint
from schoolhouse.data import load_training_data
from schoolhouse.data.loading import LoadReport, load_table


def say(role, content):
    return {"role": role, "content": content}


def chat(number):
    return {"messages": [say("user", f"question {number}"), say("assistant", f"answer {number}")]}


def turn(number):
    return {"prompt": [say("user", f"question {number}")], "completion": [say("assistant", f"answer {number}")]}


def pair(number):
    return {**turn(number), "chosen": [say("assistant", "yes")], "rejected": [say("assistant", f"no {number}")]}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


MALFORMED = {
    "cut off": (chat, '{"messages": [{"role": "user"', "not JSON"),
    "not an object": (chat, "[1, 2]", "not an object but list"),
    "half a surrogate": (chat, '{"messages": [{"role": "assistant", "content": "\\ud83d"}]}', "not UTF-8"),
    "nested too deep": (chat, "[" * 100_000, "nested more than 100 deep"),
    "missing column": (chat, {"other": 1}, "column 'messages' is missing"),
    "null column": (chat, {"messages": None}, "column 'messages' is missing"),
    "empty messages": (chat, {"messages": []}, "is empty"),
    "text as messages": (chat, {"messages": "hello"}, "holds str, not a list of messages"),
    "messages of text": (chat, {"messages": ["hello"]}, "no role in message 1"),
    "no role": (chat, {"messages": [{"content": "hello"}]}, "no role in message 1"),
    "other keys": (chat, {"messages": [{"from": "gpt", "value": "hello"}]}, "no role in message 1"),
    "no content": (chat, {"messages": [say("user", "hello"), {"role": "assistant"}]}, "no content in message 2"),
    "unknown role": (chat, {"messages": [say("bot", "hello")]}, "unknown role 'bot' in message 1"),
    "number as content": (chat, {"messages": [say("assistant", 5)]}, "int as content of message 1"),
    "no answer": (chat, {"messages": [say("user", "hello")]}, "no assistant message"),
    "empty answer": (chat, {"messages": [say("user", "hello"), say("assistant", " ")]}, "is empty in message 2"),
    "empty completion": (turn, {**turn(0), "completion": [say("assistant", "")]}, "column 'completion' is empty in"),
    "no completion": (turn, {"prompt": turn(0)["prompt"]}, "column 'completion' is missing"),
    "empty prompt": (turn, {**turn(0), "prompt": []}, "column 'prompt' is empty"),
    "number as completion": (turn, {**turn(0), "completion": 5}, "column 'completion' holds int"),
    "text and messages": (turn, {**turn(0), "completion": "hello"}, "mix text with messages"),
    "text among messages": (turn, {"prompt": "hello", "completion": "hello"}, "is standard where most"),
    "no rejected": (pair, {**pair(0), "rejected": None}, "column 'rejected' is missing"),
    "empty chosen": (pair, {**pair(0), "chosen": [say("assistant", "")]}, "column 'chosen' is empty in"),
    "empty text": (lambda number: {"text": f"text {number}"}, {"text": "\n"}, "column 'text' is empty"),
    "no text": (lambda number: {"text": f"text {number}"}, {"text": ["a"]}, "column 'text' holds list, not text"),
}


@pytest.mark.parametrize("make, row, reason", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_row_is_named_by_file_and_line_and_counted(tmp_path, caplog, make, row, reason):
    path = write(tmp_path / "mine.jsonl", [*map(make, range(1, 151)), row, *map(make, range(151, 200))])
    report = LoadReport()
    assert len(load_table(path, report=report)) == 199
    assert len(report.malformed) == 1
    assert report.malformed[0].startswith(f"{path}:151: ") and reason in report.malformed[0]
    assert "1 of 200 rows" in caplog.text and f"{path}:151: " in caplog.text


@pytest.mark.parametrize("bad, total, passes", [(1, 100, True), (1, 99, False), (2, 200, True), (3, 200, False)])
def test_more_than_one_percent_malformed_is_an_error(tmp_path, bad, total, passes):
    path = write(tmp_path / "mine.jsonl", [*map(chat, range(total - bad)), *["{"] * bad])
    if passes:
        assert len(load_table(path)) == total - bad
    else:
        with pytest.raises(ValueError, match=rf"{bad} of {total} rows are malformed.*mine.jsonl:{total - bad + 1}: "):
            load_table(path)


def test_only_the_first_offenders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"9 of 9 rows.*jsonl:5: [^;]*; \.\.\.$"):
        load_table(write(tmp_path / "mine.jsonl", ["{"] * 9))


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_a_file_without_rows_says_so(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ValueError, match="holds no rows"):
        load_table(str(tmp_path / "mine.json"))


def test_bom_crlf_blank_lines_and_unicode_line_ends_are_read(tmp_path):
    row = {"prompt": "a\u2028b", "completion": "c\x85d"}
    lines = [json.dumps(row, ensure_ascii=False).encode()] * 100 + [b"{"]
    data = b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines)
    (tmp_path / "plain.jsonl").write_bytes(data)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("plain.jsonl", "packed.jsonl.gz"):
        report = LoadReport()
        assert load_table(str(tmp_path / name), report=report).to_list() == [row] * 100
        assert [place.split(": ")[0] for place in report.malformed] == [f"{tmp_path / name}:201"]


def test_a_json_array_is_read_and_its_rows_are_numbered(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([*map(chat, range(120)), 7], indent=1))
    report = LoadReport()
    assert load_table(str(path), report=report).to_list() == [chat(number) for number in range(120)]
    assert report.malformed == [f"{path} row 120: not an object but int"]
    path.write_text(path.read_text()[:-2])
    with pytest.raises(ValueError, match=r"mine.json is not valid JSON: .*line"):
        load_table(str(path))


def test_parquet_rows_are_checked_and_named_by_index(tmp_path):
    rows = [turn(number) for number in range(120)]
    rows[7]["completion"] = [say("assistant", "")]
    Dataset.from_list(rows).to_parquet(tmp_path / "mine.parquet")
    report = LoadReport()
    assert load_table(str(tmp_path / "mine.parquet"), report=report).to_list() == rows[:7] + rows[8:]
    (error,) = report.malformed
    assert error.startswith(f"{tmp_path / 'mine.parquet'} row 7: column 'completion' is empty")


def test_the_majority_of_rows_says_which_columns_a_file_has(tmp_path):
    with pytest.raises(ValueError, match=r"40 of 100 rows are malformed.*'completion' is missing"):
        rows = [turn(number) | {f"extra{number}": 1} for number in range(60)]
        load_table(write(tmp_path / "mine.jsonl", [{"prompt": "a"}] * 40 + rows))
    stray = [{"text": "a"}] * 199 + [{"text": "a", "messages": []}]
    assert load_table(write(tmp_path / "stray.jsonl", stray)).to_list() == [{"text": "a"}] * 200


def test_a_file_in_no_known_format_lists_its_columns(tmp_path):
    path = write(tmp_path / "mine.jsonl", [{"question": "a", "answer": "b"}])
    with pytest.raises(ValueError, match=r"\['answer', 'question'\].*prompt \+ completion.*dataset_columns"):
        load_table(path)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_columns_are_mapped_even_onto_names_that_are_taken(tmp_path, suffix):
    rows = [{"completion": f"q{number}", "prompt": f"a{number}", "text": "old"} for number in range(3)]
    path = tmp_path / f"mine.{suffix}"
    write(path, rows) if suffix == "jsonl" else Dataset.from_list(rows).to_parquet(path)
    swapped = load_table(str(path), columns={"prompt": "completion", "completion": "prompt"})
    assert [(row["prompt"], row["completion"]) for row in swapped] == [(f"q{n}", f"a{n}") for n in range(3)]
    taken = load_table(str(path), columns={"text": "prompt"}, kinds=["text"])
    assert taken.to_list() == [{"text": f"a{number}"} for number in range(3)]
    with pytest.raises(ValueError, match=r"no column 'answer'.*\['completion', 'prompt', 'text'\]"):
        load_table(str(path), columns={"completion": "answer"})
    with pytest.raises(ValueError, match="two columns are to be made of 'prompt'"):
        load_table(str(path), columns={"prompt": "prompt", "completion": "prompt"})


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_stage_chooses_among_the_kinds_a_file_offers(tmp_path, suffix):
    # As in ultrafeedback_binarized: a prompt, a conversation and a pair.
    rows = [{**chat(n), "prompt": f"q{n}", "chosen": f"yes{n}", "rejected": f"no{n}", "score": 0.5} for n in range(3)]
    path = tmp_path / f"mine.{suffix}"
    write(path, rows) if suffix == "jsonl" else Dataset.from_list(rows).to_parquet(path)
    columns = {
        kind: set(load_table(str(path), kinds=[kind]).column_names)
        for kind in ("messages", "preference", "prompt-only")
    }
    assert columns == {
        "messages": {"messages", "score"},
        "preference": {"prompt", "chosen", "rejected", "score"},
        "prompt-only": {"prompt", "score"},
    }
    with pytest.raises(ValueError, match=r"wanted: prompt \+ completion; text"):
        load_table(str(path), kinds=["prompt-completion", "text"])


def test_tool_calls_and_extra_columns_of_mixed_types_are_kept(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    rows = [{"messages": [say("user", "a"), call, say("tool", "1"), say("assistant", "b")], "answer": 5}]
    rows.append(chat(1) | {"answer": "five"})
    read = load_table(write(tmp_path / "mine.jsonl", rows)).to_list()
    assert [row["answer"] for row in read] == [5, "five"]
    assert read[0]["messages"][1]["tool_calls"] == call["tool_calls"] and read[1]["messages"] == rows[1]["messages"]


def test_max_rows_looks_at_the_first_rows_only(tmp_path):
    path = write(tmp_path / "mine.jsonl", [*map(chat, range(5)), "{", "{"])
    assert load_table(path, max_rows=5).to_list() == [chat(number) for number in range(5)]
    with pytest.raises(ValueError, match="1 of 6 rows"):
        load_table(path, max_rows=6)


LAYOUTS = {
    "names": ["train.jsonl", "test.jsonl"],
    "shards": ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"],
    "hub": ["data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"],
    "folders": ["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_files_of_a_split_are_found_in_a_folder(tmp_path, layout):
    for number, name in enumerate(layout):
        write(tmp_path / name, [{"text": f"{name} {number}"}])
    (tmp_path / "README.md").write_text("no data")
    for split in ("train", "test"):
        texts = load_table(str(tmp_path), split)["text"]
        assert list(texts) == [f"{name} {number}" for number, name in enumerate(layout) if split in name]
    with pytest.raises(ValueError, match=r"no file for split 'validation'.*\['test', 'train'\]"):
        load_table(str(tmp_path), "validation")


def test_one_file_never_serves_two_splits(tmp_path):
    mine, test = (write(tmp_path / name, [{"text": "a"}]) for name in ("mine.jsonl", "test.jsonl"))
    assert len(load_table(mine, "train")) == len(load_table(test, "test")) == 1
    with pytest.raises(ValueError, match="not read as split 'test'"):
        load_table(mine, "test")
    with pytest.raises(ValueError, match="not read as split 'train': set the split to 'test'"):
        load_table(test, "train")


def test_a_train_and_a_train_sft_split_are_two(tmp_path):
    write(tmp_path / "train_sft.jsonl", [{"text": "a"}])
    write(tmp_path / "train.jsonl", [{"text": "b"}])
    assert list(load_table(str(tmp_path), "train_sft")["text"]) == ["a"]
    assert list(load_table(str(tmp_path), "train")["text"]) == ["b"]


def test_what_is_no_data_is_refused(tmp_path):
    (tmp_path / "mine.xlsx").write_text("a,b")
    with pytest.raises(ValueError, match=r"mine.xlsx is no data file: wanted is \.jsonl"):
        load_table(str(tmp_path / "mine.xlsx"))
    with pytest.raises(ValueError, match=r"holds no data file: wanted is \.jsonl"):
        load_table(str(tmp_path))
    write(tmp_path / "train.jsonl", [{"text": "a"}])
    Dataset.from_list([{"text": "a"}]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="mix json with parquet"):
        load_table(str(tmp_path))


@pytest.fixture
def hub(monkeypatch):
    """A Hub of one data set that remembers what it was asked."""
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        splits = DatasetDict(train_sft=Dataset.from_list([turn(1)]), test_sft=Dataset.from_list([turn(2)]))
        return splits if kwargs["split"] is None else splits["train_sft"]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


def test_a_hub_data_set_is_read_by_split_config_and_revision(hub):
    given = {"dataset_name": "user/name", "dataset_config": "main", "dataset_revision": "v1"}
    given |= {"dataset_train_split": "train_sft", "dataset_test_split": "test_sft"}
    loaded = load_training_data(DataArguments(**given), seed=0)
    assert loaded.train.to_list() == [turn(1)] and loaded.test.to_list() == [turn(2)]
    assert {args for args, _ in hub} == {("user/name", "main")} and {kw["revision"] for _, kw in hub} == {"v1"}
    assert [(source.location, source.revision) for source in loaded.sources] == [("user/name", "v1")] * 2


def test_a_missing_hub_split_lists_those_there_are(hub):
    with pytest.raises(ValueError, match="user/name has no split 'train'; it has train_sft, test_sft"):
        load_training_data(DataArguments(dataset_name="user/name"), seed=0)
    assert load_table("user/name", "train_sft[:10%]").to_list() == [turn(1)]


def test_the_default_test_split_may_be_missing_but_a_chosen_one_may_not(tmp_path):
    path = write(tmp_path / "mine.jsonl", map(chat, range(3)))
    for given in ({"dataset_path": path}, {"dataset_name": path}, {"datasets": [{"path": path}]}):
        assert load_training_data(DataArguments(**given), seed=0).test is None
    assert load_training_data(DataArguments(dataset_path=path, dataset_test_split=None), seed=0).test is None
    with pytest.raises(ValueError, match="not read as split 'validation'"):
        load_training_data(DataArguments(dataset_path=path, dataset_test_split="validation"), seed=0)


@pytest.mark.parametrize(
    "name, message",
    [
        ("gsm8", "unknown data set 'gsm8', did you mean 'gsm8k'.*svamp.*user/name"),
        ("tiny/fact", "unknown data set 'tiny/fact', did you mean 'tiny/facts'"),
        ("some/long/path", "unknown data set 'some/long/path'"),
        ("data/mine.jsonl", "data/mine.jsonl: no such file"),
    ],
)
def test_an_unknown_name_lists_the_known_ones_and_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        load_training_data(DataArguments(dataset_name=name), seed=0)


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "none is given"),
        ({"dataset_name": "gsm8k", "datasets": [{"name": "svamp"}]}, "both are given"),
        ({"dataset_name": "gsm8k", "dataset_config": "socratic"}, "config does not apply to 'gsm8k'"),
        ({"dataset_name": "tulu_human_prefs"}, "not on the Hub: give dataset_path.*open-instruct"),
    ],
)
def test_a_contradictory_choice_of_data_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        load_training_data(DataArguments(**given), seed=0)


def test_the_record_is_json_and_counts_what_was_left_out(tmp_path):
    path = write(tmp_path / "train.jsonl", [*map(chat, range(120)), "{"])
    write(tmp_path / "test.jsonl", map(chat, range(110, 130)))
    loaded = load_training_data(DataArguments(dataset_path=str(tmp_path), max_eval_rows=15), seed=0)
    train, test = (json.loads(source.model_dump_json()) for source in loaded.sources)
    assert train["malformed"] == 1 and train["malformed_rows"][0].startswith(f"{path}:121: ")
    assert (train["rows"], test["rows"]) == (len(loaded.train), len(loaded.test)) == (120, 15)
    assert train["location"] == str(tmp_path) and train["kind"] == "messages" and train["revision"] is None
    assert train["sha256"] == fingerprint(loaded.train) != test["sha256"]
    assert train["overlap"][f"{tmp_path}:test"]["train_rows"] == 10


def test_overlap_with_eval_sets_is_reported_and_dropped_when_asked(tmp_path, caplog):
    path = write(tmp_path / "mine.jsonl", map(chat, range(10)))
    kept = load_training_data(DataArguments(dataset_path=path), 0, eval_sets={"mine": ["Question 3!", "question 33"]})
    assert len(kept.train) == 10 and kept.sources[0].overlap["mine"].train_rows == 1
    assert "1 of 10 training prompts" in caplog.text
    dropped = load_training_data(
        DataArguments(dataset_path=path, drop_overlap=True), 0, eval_sets={"mine": ["question 3"]}
    )
    assert dropped.train.to_list() == [chat(number) for number in range(10) if number != 3]
    assert dropped.sources[0].dropped_overlap == 1
    with pytest.raises(ValueError, match="drop_overlap leaves no training row"):
        everything = [f"question {number}" for number in range(10)]
        load_training_data(DataArguments(dataset_path=path, drop_overlap=True), 0, eval_sets={"mine": everything})


def mixture(tmp_path, sizes, weights, seed=0, **given):
    entries = []
    for name, size, weight in zip("abc", sizes, weights, strict=False):
        path = write(tmp_path / f"{name}.jsonl", [{"text": f"{name}{number}"} for number in range(size)])
        entries.append({"path": path} | ({} if weight is None else {"weight": weight}))
    return load_training_data(DataArguments(datasets=entries, **given), seed)


@pytest.mark.parametrize("limit", [None, 100])
def test_a_mixture_honours_its_weights_and_repeats_no_row(tmp_path, limit):
    loaded = mixture(tmp_path, (1000, 300, 500), (5, 3, 2), max_train_rows=limit)
    texts = list(loaded.train["text"])
    assert len(set(texts)) == len(texts) == (limit or 1000)  # the 300 rows of b are 3/10 of it
    counts = Counter(text[0] for text in texts)
    assert counts == {"a": len(texts) * 0.5, "b": len(texts) * 0.3, "c": len(texts) * 0.2}
    assert [source.used_rows for source in loaded.sources] == [counts[name] for name in "abc"]
    # Shuffled: the share of a in the first half is within 5 standard deviations of a fair draw.
    half = texts[: len(texts) // 2]
    share = sum(text[0] == "a" for text in half) / len(half)
    assert abs(share - 0.5) < 5 * math.sqrt(0.25 / len(half))
    assert [source.rsplit("/")[-1][0] for source in loaded.train["source"]] == [text[0] for text in texts]


def test_a_mixture_depends_on_its_seed_alone(tmp_path):
    first, again, other = (list(mixture(tmp_path, (50, 40), (1, 3), seed).train["text"]) for seed in (1, 1, 2))
    assert first == again != other and sorted(first) != sorted(other)
    first, other = (list(mixture(tmp_path, (5, 4), (None, None), seed).train["text"]) for seed in (1, 2))
    assert first != other and sorted(first) == sorted(other)


def test_without_weights_every_row_is_taken(tmp_path):
    loaded = mixture(tmp_path, (30, 5), (None, None))
    assert Counter(text[0] for text in loaded.train["text"]) == {"a": 30, "b": 5}
    limited = mixture(tmp_path, (30, 5), (None, None), max_train_rows=10)
    counts = Counter(text[0] for text in limited.train["text"])
    assert [source.used_rows for source in limited.sources] == [counts["a"], counts["b"]] and len(limited.train) == 10


@pytest.mark.parametrize(
    "sizes, weights", [((7, 11, 13), (1, 1, 1)), ((100, 3, 50), (0.1, 0.2, 0.7)), ((9, 9), (2, 1))]
)
def test_a_mixture_is_as_large_as_it_can_be_and_within_a_row_of_its_shares(tmp_path, sizes, weights):
    counts = [source.used_rows for source in mixture(tmp_path, sizes, weights).sources]
    total = sum(counts)
    for count, size, weight in zip(counts, sizes, weights, strict=True):
        assert count <= size and abs(count - total * weight / sum(weights)) < 1
    # One row more would ask some source for more than it has.
    assert any((total + 1) * weight / sum(weights) > size for size, weight in zip(sizes, weights, strict=True))


def test_a_weight_too_small_for_one_row_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"the weight of '.*b.jsonl' leaves it no row"):
        mixture(tmp_path, (5, 5), (1, 1e-9))


def test_data_sets_of_different_kinds_do_not_mix(tmp_path):
    first = write(tmp_path / "chats.jsonl", map(chat, range(3)))
    for name, row, columns in (
        ("turns", turn(1), r"prompt, completion \(conversational\)"),
        ("texts", {"text": "a"}, r"text \(standard\)"),
    ):
        second = write(tmp_path / f"{name}.jsonl", [row])
        message = rf"chats.jsonl' has messages \(conversational\), '.*{name}.jsonl' has {columns}"
        with pytest.raises(ValueError, match=message):
            load_training_data(DataArguments(datasets=[{"path": first}, {"path": second}]), seed=0)


def test_extra_columns_and_message_keys_may_differ_within_a_mixture(tmp_path, caplog):
    first = write(tmp_path / "a.jsonl", [chat(1) | {"answer": "1", "id": 1, "source": "mine"}])
    call = {"role": "assistant", "content": "b", "tool_calls": [{"name": "f"}]}
    second = write(tmp_path / "b.jsonl", [{"messages": [say("user", "a"), call], "id": "x"}])
    loaded = load_training_data(DataArguments(datasets=[{"path": first}, {"path": second}]), seed=0)
    rows = sorted(loaded.train.to_list(), key=lambda row: row["source"])
    assert rows[0]["source"].endswith("b.jsonl") and rows[0]["answer"] is None and rows[0]["messages"][1] == call
    assert rows[1]["source"] == "mine" and rows[1]["answer"] == "1" and rows[1]["messages"] == chat(1)["messages"]
    assert "id" not in rows[0] and "column 'id' is left out" in caplog.text


def test_max_rows_and_columns_apply_to_one_entry_of_a_mixture(tmp_path):
    first = write(tmp_path / "a.jsonl", [{"body": f"a{number}"} for number in range(9)])
    second = write(tmp_path / "b.jsonl", [{"text": f"b{number}"} for number in range(4)])
    entries = [{"path": first, "columns": {"text": "body"}, "max_rows": 2}, {"path": second}]
    texts = load_training_data(DataArguments(datasets=entries), seed=0).train["text"]
    assert sorted(texts) == ["a0", "a1", "b0", "b1", "b2", "b3"]


def test_the_fingerprint_follows_the_content_not_the_place_or_the_format(tmp_path):
    rows = [chat(number) | {"answer": "x"} for number in range(5)]
    rows[2]["messages"][0]["name"] = "Ann"  # Parquet gives the other messages a name of None
    paths = [write(tmp_path / folder / "mine.jsonl", rows) for folder in ("a", "b/c")]
    Dataset.from_list(rows).to_parquet(tmp_path / "mine.parquet")
    reordered = [{"answer": "x", "messages": row["messages"]} for row in rows]
    paths += [str(tmp_path / "mine.parquet"), write(tmp_path / "keys.jsonl", reordered)]
    prints = {fingerprint(load_table(path)) for path in paths}
    assert len(prints) == 1
    changed = json.loads(json.dumps(rows))
    changed[3]["messages"][1]["content"] += "."
    others = [changed, rows[::-1], rows[:-1], [*rows[:-1], chat(4)]]
    prints |= {fingerprint(load_table(write(tmp_path / "other.jsonl", other))) for other in others}
    assert len(prints) == 5


def test_importing_data_loads_no_heavy_library():
    code = "import schoolhouse.data, sys; print(sorted({'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["tiny/sft", "tiny/preferences"])
def test_the_tiny_data_loads_without_a_network(name, caplog):
    caplog.set_level(logging.ERROR)
    loaded = load_training_data(DataArguments(dataset_name=name, max_train_rows=50, max_eval_rows=10), seed=0)
    assert (len(loaded.train), len(loaded.test)) == (50, 10)
    assert loaded.sources[0].location == "generated"
