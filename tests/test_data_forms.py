"""Common forms of training data: what is read as what, and what is refused in one line."""

import gzip
import json
import logging
import re

import pytest
from datasets import Dataset, DatasetDict
from tiny_models import make_tiny_model

from recipes.sft import main as sft
from schoolhouse.data.forms import find_form
from schoolhouse.data.loading import load_table


SFT = ("messages", "prompt-completion", "text")
RL = ("prompt-only",)
PAIRS = ("preference",)
ASKED = [{"role": "user", "content": "Say 1."}]
TURNS = [*ASKED, {"role": "assistant", "content": "1"}]
SHORT = {"role": "system", "content": "Short."}
SPOKEN = [{"from": "human", "value": "Say 1."}, {"from": "gpt", "value": "1"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "kinds", "expected"),
    [
        ({"instruction": "Add.", "input": "0", "output": "1"}, SFT, {"prompt": "Add.\n\n0", "completion": "1"}),
        ({"instruction": "Say 1.", "input": "", "output": "1"}, SFT, {"prompt": "Say 1.", "completion": "1"}),
        # Alpaca's own file also has the whole prompt in one string.
        ({"instruction": "Say 1.", "output": "1", "text": "Below …"}, SFT, {"prompt": "Say 1.", "completion": "1"}),
        ({"instruction": "Who?", "context": "A", "response": "a"}, SFT, {"prompt": "Who?\n\nA", "completion": "a"}),
        (
            {"instruction": "Two?", "output": "2", "system": "Be brief.", "history": [["One?", "1"]]},
            SFT,
            {
                "prompt": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "One?"},
                    {"role": "assistant", "content": "1"},
                    {"role": "user", "content": "Two?"},
                ],
                "completion": [{"role": "assistant", "content": "2"}],
            },
        ),
        ({"question": "3-3?", "answer": 0}, SFT, {"prompt": "3-3?", "completion": "0"}),
        ({"question": "3-3?", "answer": 0}, RL, {"prompt": "3-3?", "answer": 0}),
        ({"problem": "3-3?", "solution": "\\boxed{0}"}, RL, {"prompt": "3-3?", "answer": "\\boxed{0}"}),
        ({"problem": "?", "solution": "long", "answer": "0"}, RL, {"prompt": "?", "answer": "0"}),
        ({"conversations": SPOKEN}, SFT, {"messages": TURNS}),
        ({"messages": TURNS}, RL, {"prompt": ASKED, "answer": "1"}),
        (
            {"conversations": SPOKEN, "system": "Short."},
            SFT,
            {"messages": [{"role": "system", "content": "Short."}, *TURNS]},
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say 1."}]}, TURNS[1]]},
            SFT,
            {"messages": TURNS},
        ),
        # Pairs: the question once, and the answers without it.
        ({"prompt": ASKED, "chosen": TURNS, "rejected": TURNS}, PAIRS, {"prompt": ASKED, "chosen": TURNS[1:]}),
        ({"prompt": "Say 1.", "chosen": TURNS, "rejected": TURNS}, PAIRS, {"prompt": ASKED, "chosen": TURNS[1:]}),
        ({"question": "Say 1.", "chosen": "1", "rejected": "2"}, PAIRS, {"prompt": "Say 1.", "chosen": "1"}),
        (
            {"system": "Short.", "question": "Say 1.", "chosen": "1", "rejected": "2"},
            PAIRS,
            {"prompt": [{"role": "system", "content": "Short."}, *ASKED], "chosen": TURNS[1:]},
        ),
        (
            {"chosen": "\n\nHuman: Say 1.\n\nAssistant: 1", "rejected": "\n\nHuman: Say 1.\n\nAssistant: 2"},
            PAIRS,
            {"chosen": TURNS},
        ),
        (
            {"conversations": [{"from": "human", "value": "Say 1."}], "chosen": {"from": "gpt", "value": "1"},
             "rejected": {"from": "gpt", "value": "2"}},
            PAIRS,
            {"prompt": ASKED, "chosen": TURNS[1:]},
        ),
        ({"chosen": "a long answer", "rejected": "no"}, PAIRS, {"chosen": "a long answer"}),
        # What pandas writes for an empty field; messages as history; a worked solution is trained, its result is not.
        ({"instruction": "Say 1.", "input": float("nan"), "output": "1"}, SFT, {"prompt": "Say 1."}),
        (
            {"instruction": "Two?", "output": "2", "history": TURNS},
            SFT,
            {"prompt": [*TURNS, {"role": "user", "content": "Two?"}]},
        ),
        ({"problem": "?", "solution": "long", "answer": "0"}, SFT, {"prompt": "?", "completion": "long"}),
        # The same system message in the column and in the turns.
        ({"conversations": [SHORT, *TURNS], "system": "Short."}, SFT, {"messages": [SHORT, *TURNS]}),
        # The question once: with white space, a system message or a transcript's marks on one side only.
        (
            {"prompt": "Say 1.", "chosen": [SHORT, *TURNS], "rejected": [SHORT, *TURNS]},
            PAIRS,
            {"prompt": [SHORT, *ASKED], "chosen": TURNS[1:], "rejected": TURNS[1:]},
        ),
        ({"prompt": " Say 1.\n", "chosen": TURNS, "rejected": TURNS}, PAIRS, {"chosen": TURNS[1:]}),
        (
            {"prompt": "\n\nHuman: Say 1.\n\nAssistant:", "chosen": " 1", "rejected": " 2"},
            PAIRS,
            {"prompt": ASKED, "chosen": TURNS[1:]},
        ),
        (
            {"prompt": "\n\nHuman: Say 1.\n\nAssistant:", "chosen": "\n\nHuman: Say 1.\n\nAssistant: 1",
             "rejected": "\n\nHuman: Say 1.\n\nAssistant: 2"},
            PAIRS,
            {"prompt": ASKED, "chosen": TURNS[1:]},
        ),
        (
            {"chosen": "Human: Say 1.\n\nAssistant: 1", "rejected": "Human: Say 1.\n\nAssistant: 2"},
            PAIRS,
            {"chosen": TURNS},
        ),
        ({"messages": ASKED, "chosen": "1", "rejected": "2"}, PAIRS, {"prompt": ASKED, "chosen": TURNS[1:]}),
    ],
)  # fmt: skip
def test_rows_are_read_in_trls_columns(tmp_path, row, kinds, expected):
    (read,) = load_table(write(tmp_path / "train.jsonl", [row]), kinds=kinds)
    assert {name: read[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("row", "kinds", "message"),
    [
        ({"conversations": [{"from": "narrator", "value": "x"}]}, SFT, "turn 1 is from 'narrator'; known: .*human"),
        ({"instruction": "Say 1.", "output": ""}, SFT, "column 'output' is empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, TURNS[1]]},
            SFT,
            "holds a part of kind 'image': only text is trained here",
        ),
        ({"conversations": [{"from": "function_call", "value": "{"}]}, SFT, "turn 1 from .* is no JSON with name"),
        ({"chosen": 3, "rejected": "no"}, PAIRS, "column 'chosen' holds int"),
        ({"instruction": "Sort.", "input": ["b", "a"], "output": "a b"}, SFT, "column 'input' holds list, not text"),
        ({"instruction": "Say 1.", "output": float("nan")}, SFT, "column 'output' is missing"),
        (
            {"instruction": "Two?", "output": "2", "history": ["Hi", "Yo"]},
            SFT,
            "column 'history' holds no pair of question and answer: 'Hi'",
        ),
        (
            {"prompt": "Say 2.", "chosen": TURNS, "rejected": TURNS},
            PAIRS,
            "columns 'chosen' and 'rejected' do not both begin with the question",
        ),
        ({"messages": TURNS, "chosen": "1", "rejected": "2"}, PAIRS, "column 'messages', .* ends with an answer"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, kinds, message):
    with pytest.raises(ValueError, match=rf"train\.jsonl:1: {message}"):
        load_table(write(tmp_path / "train.jsonl", [row]), kinds=kinds)


def test_the_form_is_said_and_so_is_a_column_that_is_not_read(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "train.jsonl", [{"instruction": "Add one.", "input": "0", "output": "1"}])
    load_table(path, kinds=SFT)
    assert "read as Alpaca: instruction + input → prompt, output → completion" in caplog.text
    caplog.clear()
    load_table(write(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "c", "context": "x"}]), kinds=SFT)
    assert "not read: context" in caplog.text and "read as" not in caplog.text
    assert find_form({"prompt", "completion"}, SFT) is None


@pytest.mark.parametrize(
    ("row", "optional", "kinds", "expected"),
    [
        ({"instruction": "Add.", "output": "1"}, {"input": "0"}, SFT, {"prompt": "Add.\n\n0"}),
        ({"conversations": SPOKEN}, {"system": "Short."}, SFT, {"messages": [SHORT, *TURNS]}),
        (
            {"prompt": "Say 1.", "chosen": "1", "rejected": "2"},
            {"system": "Short."},
            PAIRS,
            {"prompt": [SHORT, *ASKED]},
        ),
    ],
)
def test_a_column_that_few_rows_fill_is_read(tmp_path, row, optional, kinds, expected):
    first, *_ = load_table(write(tmp_path / "train.jsonl", [row | optional, row, row]), kinds=kinds)
    assert {name: first[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("row", "kinds", "unread"),
    [
        ({"question": "Which?", "choices": ["a", "b"], "answer": 1}, SFT, "choices"),
        ({"question": "Which?", "options": ["a", "b"], "answer": "B"}, RL, "options"),
        ({"problem": "?", "solution": "long", "answer": "0"}, SFT, "answer"),
    ],
)
def test_a_column_that_the_answer_needs_and_is_not_read_is_named(tmp_path, caplog, row, kinds, unread):
    load_table(write(tmp_path / "train.jsonl", [row]), kinds=kinds)
    assert f"not read: {unread};" in caplog.text


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    rows = [{"prompt": f"Say {n}.", "completion": str(n + 10) + "!"} for n in range(8)]
    folder = tmp_path / "several"
    folder.mkdir()
    write(folder / "train-00000-of-00002.jsonl", rows[:5])
    write(folder / "train-00001-of-00002.jsonl", rows[5:])
    (tmp_path / "nested.json").write_text(json.dumps({"version": "1", "data": rows}, indent=1))
    (tmp_path / "pretty.json").write_text(json.dumps(rows, indent=1))
    for name, sep in (("a.csv", ","), ("a.tsv", "\t")):
        lines = [sep.join(row.values()) for row in rows]
        (tmp_path / name).write_text("\n".join([f"prompt{sep}completion", *lines]) + "\n")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "arrow")
    DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(rows[:1])).save_to_disk(tmp_path / "splits")
    names = "several nested.json pretty.json a.csv a.tsv a.jsonl.gz a.parquet arrow splits".split()
    assert {name: list(load_table(str(tmp_path / name), kinds=SFT)) for name in names} == dict.fromkeys(names, rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,completion\na,b\na,b,c\n", r"a\.csv:3: 3 fields, but the header has 2"),
        ("prompt,completion\na,b,c\nd,e,f\n", r"a\.csv:2: 3 fields, but the header has 2"),
        ("prompt,completion\na\n", r"a\.csv:2: 1 fields, but the header has 2"),
        ("prompt,completion\n" + '"a,b\n' * 5, r"a\.csv"),
    ],
)
def test_rows_of_another_length_than_the_header_are_refused_by_line(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_table(str(tmp_path / "a.csv"), kinds=SFT)


def test_numbers_in_a_csv_file_stay_the_text_that_they_are(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer,score\nSay 7.,007,1\nSay 8.,08,2\n")
    rows = list(load_table(str(tmp_path / "a.csv"), kinds=RL))
    assert rows[0] == {"prompt": "Say 7.", "answer": "007", "score": 1}
    (tmp_path / "b.tsv").write_text("prompt\tcompletion\nSay 7.\t7\nSay 8.\tNA\n")
    assert [row["completion"] for row in load_table(str(tmp_path / "b.tsv"), kinds=SFT)] == ["7", "NA"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model with a chat template of its own."""
    from transformers import AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("base"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}"
        "{% if m['role'] == 'system' %}{{ raise_exception('no system message here') }}{% endif %}"
        "{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def check(base, data, *flags):
    return sft(
        [
            "--model_name_or_path",
            str(base),
            "--dataset_name",
            data,
            "--output_dir",
            "unused",
            "--use_cpu",
            "--check",
            *flags,
        ]
    )


def test_texts_become_turns_of_the_models_own_template(base, tmp_path, capsys):
    data = write(tmp_path / "train.jsonl", [{"prompt": f"Say {n}.", "completion": f"{n}"} for n in range(40)])
    assert check(base, data) == 0
    assert "user: Say" in capsys.readouterr().out
    assert check(base, data, "--conversational", "false") == 0
    assert "user: Say" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "flags", "message"),
    [
        ({"messages": [{"role": "system", "content": "x"}, *TURNS]}, (), "row 0 .* it: no system message here"),
        (
            {"messages": [*ASKED, {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {}}}]}]},
            (),
            "row 0 .* calls the tool 'weather', but the chat template leaves tool calls out",
        ),
        ({"messages": TURNS}, ("--eval_strategy", "epoch"), "no test split .*`validation_split: 0.05`"),
        ({"messages": TURNS}, ("--validation_split", "1.5"), "validation_split: must be between 0 and 1"),
        ({"messages": TURNS}, ("--validation_split", "4"), "validation_split: must be from 1 to 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_line_before_weights_load(base, tmp_path, capsys, row, flags, message):
    with pytest.raises(SystemExit) as end:
        check(base, write(tmp_path / "train.jsonl", [row] * 4), *flags)
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_a_share_is_held_out_by_prompt_and_stays_when_rows_are_added(tmp_path):
    from schoolhouse.config.arguments import DataArguments
    from schoolhouse.data import load_training_data

    rows = [{"prompt": f"Say {n // 2}.", "completion": f"{n}"} for n in range(400)]

    def load(number, share):
        path = write(tmp_path / "train.jsonl", rows[:number])
        data = load_training_data(DataArguments(dataset_name=path, validation_split=share), seed=0, kinds=SFT)
        return [{row["prompt"] for row in part} for part in (data.train, data.test)], data

    (train, held), data = load(300, 0.2)
    assert not train & held and 30 < len(data.test) < 90 and len(data.train) + len(data.test) == 300
    assert held <= load(400, 0.2)[0][1]
    assert [source.role for source in data.sources] == ["train", "test"]
    assert 10 <= len(load(300, 10)[1].test) <= 11


def test_rows_that_train_nothing_are_refused_packed_or_not(base, tmp_path, capsys):
    long = {"messages": [{"role": "user", "content": "a red ball " * 40}, TURNS[1]]}
    rows = write(tmp_path / "train.jsonl", [long] * 20)
    for packing in ("true", "false"):
        flags = ["--model_name_or_path", str(base), "--dataset_name", rows, "--output_dir", str(tmp_path / packing)]
        flags += ["--max_length", "32", "--packing", packing, "--use_cpu", "--conversational", "true"]
        flags += ["--chat_template_path", str(marked_template(tmp_path))]
        with pytest.raises(SystemExit) as end:
            sft(flags)
        assert end.value.code == 2
        assert "20 of 20 rows keep no trained token within 32 tokens" in capsys.readouterr().err


def marked_template(folder):
    path = folder / "marked.jinja"
    path.write_text(
        "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'assistant' %}{% generation %}"
        "{{ m['content'] + eos_token }}{% endgeneration %}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    return path
