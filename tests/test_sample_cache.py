"""The cache of samples: nothing generated twice, no sample under another key, no line lost to a damaged one."""

import dataclasses
import json
import logging
import multiprocessing

import pytest

from schoolhouse.evaluation.sample_cache import Sample, SampleCache, SampleKey, prompt_hash, sampling_json


KEY = SampleKey(model="m", adapter="a", prompt="p", sampling=sampling_json({"temperature": 0.7}), seed=1, index=0)


def make_batch(count, **changes):
    return [
        (dataclasses.replace(KEY, index=index, **changes), Sample(f"text {index}\n\u2028ü😀", index, "stop"))
        for index in range(count)
    ]


def test_it_returns_after_reopening_what_was_added(tmp_path):
    batch = make_batch(3)
    SampleCache(tmp_path / "new" / "cache.jsonl").add(batch)
    cache = SampleCache(tmp_path / "new" / "cache.jsonl")
    assert len(cache) == 3 and cache.damaged == []
    assert all(cache.get(key) == sample for key, sample in batch)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m2"},
        {"adapter": "a2"},
        {"adapter": None},
        {"prompt": "p2"},
        {"sampling": sampling_json({"temperature": 0.8})},
        {"seed": 2},
        {"index": 7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_sample_answers_for_another_key(tmp_path, change):
    SampleCache(tmp_path / "cache.jsonl").add(make_batch(1))
    cache = SampleCache(tmp_path / "cache.jsonl")
    assert cache.get(KEY) is not None
    assert cache.get(dataclasses.replace(KEY, **change)) is None


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_a_cut_last_line_is_healed(tmp_path, caplog, cut):
    path = tmp_path / "cache.jsonl"
    batch = make_batch(3)
    SampleCache(path).add(batch)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])

    with caplog.at_level(logging.WARNING):
        cache = SampleCache(path)
    # Without its newline only, a line is whole.
    survivors = 3 if cut == 1 else 2
    assert len(cache) == survivors
    assert cache.damaged == ([] if cut == 1 else [3])
    assert ("skipped 1 damaged" in caplog.text) == (cut > 1)

    cache.add(batch)
    assert all(SampleCache(path).get(key) == sample for key, sample in batch)
    assert path.read_bytes().startswith(whole[:-cut])  # appended to, never rewritten


def test_a_line_cut_in_the_middle_is_skipped_and_named(tmp_path):
    path = tmp_path / "cache.jsonl"
    SampleCache(path).add(make_batch(4))
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:50] + lines[2]  # a crash, then an append by one that did not look
    del lines[2]
    path.write_bytes(b"\n".join(lines))
    cache = SampleCache(path)
    assert cache.damaged == [2]
    assert [cache.get(dataclasses.replace(KEY, index=index)) is not None for index in range(4)] == [1, 0, 0, 1]


@pytest.mark.parametrize("junk", [b"\x00" * 30, b"\xff\xfe", b"[]", b"3", b"{}", b'{"model": "m"}', b"null"])
def test_lines_that_are_no_samples_are_skipped(tmp_path, junk):
    path = tmp_path / "cache.jsonl"
    path.write_bytes(junk + b"\n\n")
    SampleCache(path).add(make_batch(1))
    cache = SampleCache(path)
    assert (len(cache), cache.damaged) == (1, [1])


def test_a_sample_is_cached_once(tmp_path):
    cache = SampleCache(tmp_path / "cache.jsonl")
    cache.add(make_batch(2))
    cache.add([*make_batch(3), *make_batch(3)])
    assert len(cache.path.read_bytes().splitlines()) == 3


def test_lines_hold_their_key_in_plain_fields(tmp_path):
    cache = SampleCache(tmp_path / "cache.jsonl")
    cache.add(make_batch(1))
    line = json.loads(cache.path.read_text())
    assert (line["model"], line["adapter"], line["seed"], line["finish_reason"]) == ("m", "a", 1, "stop")


def test_prompts_that_read_differently_hash_differently():
    assert prompt_hash([1, 23]) != prompt_hash([12, 3])
    assert prompt_hash([1, 23]) == prompt_hash([1, 23])


def _write_many(path, seed):
    cache = SampleCache(path)
    for start in range(0, 200, 4):
        cache.add(make_batch(200, seed=seed)[start : start + 4])


def test_two_processes_write_to_one_cache(tmp_path):
    path = tmp_path / "cache.jsonl"
    # Half a line is in the way: both writers meet it.
    path.write_bytes(b'{"model": "cut')
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    cache = SampleCache(path)
    assert (len(cache), cache.damaged) == (400, [1])
