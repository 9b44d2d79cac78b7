"""The shipped data sets in TRL's columns."""

import hashlib
import json

import pytest

from schoolhouse.data import dataset_names, load_dataset_spec, load_rows
from schoolhouse.data.columns import prompt_text
from schoolhouse.data.loading import LoadReport
from schoolhouse.data.specs import open_dataset


def say(role, content):
    return {"role": role, "content": content}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_gsm8k_loses_its_calculator_calls_and_keeps_its_final_answer(tmp_path):
    answer = "She made 3*500=$<<3*500=1500>>1500 and <<2*0=0>>0.\nSo <<1500=1500>>1,500 in all.\n#### 1,500"
    path = write(tmp_path / "train.jsonl", [{"question": "How much?", "answer": answer}])
    (row,) = load_rows("gsm8k", "train", path=path)
    assert row == {
        "prompt": [say("user", "How much?")],
        "completion": [say("assistant", "She made 3*500=$1500 and 0.\nSo 1,500 in all.\n#### 1,500")],
        "answer": "1500",
    }
    with pytest.raises(ValueError, match=r"1 of 1 rows are malformed.*train.jsonl:1: .*final answer"):
        load_rows("gsm8k", "train", path=write(tmp_path / "train.jsonl", [{"question": "a", "answer": "b"}]))


@pytest.mark.parametrize(
    "equation, answer, completion",
    [
        ("( 76.0 - 25.0 )", 51.0, "76 - 25 = 51\n#### 51"),
        ("( ( 3.0 + 4.0 ) * 2.0 )", "14.0", "(3 + 4) * 2 = 14\n#### 14"),
        ("( 9.0 - ( 4.0 - 1.0 ) )", 6.0, "9 - (4 - 1) = 6\n#### 6"),
        ("( ( 544.0 * 10 ) * 32.0 )", 174080.0, "544 * 10 * 32 = 174080\n#### 174080"),
        ("( 5.0 / 2.0 )", 2.5, "5 / 2 = 2.5\n#### 2.5"),
        ("8.0", 8.0, "#### 8"),
        ("( ( 4.0 - 2.0 ) + 3.0 )", 1.0, "#### 1"),  # as upstream has it: the equation gives 5
    ],
)
def test_a_svamp_equation_becomes_the_worked_step(tmp_path, equation, answer, completion):
    row = {"ID": "chal-1", "Body": "A body.", "Question": "A question?", "Equation": equation, "Answer": answer}
    path = write(tmp_path / "svamp.jsonl", [row])
    (built,) = load_rows("svamp", "train", path=path)
    assert built["prompt"] == [say("user", "A body. A question?")]
    assert built["completion"] == [say("assistant", completion)]
    assert built["answer"] == completion.split("#### ")[1]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"Equation": "( 1.0 - "}, "'Equation' is no arithmetic"),
        ({"Equation": "__import__('os')"}, "'Equation' is no arithmetic"),
        ({"Equation": "9 ** 9"}, "'Equation' is no arithmetic"),
        ({"Answer": "many"}, "'Answer' is no number"),
        ({"Question": ""}, "'Question' is empty"),
    ],
)
def test_a_malformed_svamp_row_is_named(tmp_path, change, reason):
    row = {"ID": "chal-1", "Body": "A", "Question": "B?", "Equation": "1.0", "Answer": 1.0} | change
    with pytest.raises(ValueError, match=f"svamp.jsonl:1: column {reason}"):
        load_rows("svamp", "train", path=write(tmp_path / "svamp.jsonl", [row]))


def message(name, *replies, rank=None, **flags):
    asks = name.startswith("q")
    return {
        **{"message_id": name, "text": f"text of {name}", "role": "prompter" if asks else "assistant"},
        **{"lang": "en", "rank": rank, "replies": list(replies), **flags},
    }


TREE = message(
    "q0",
    message(
        "a-worse",
        message("q-after-worse", message("a-late", rank=0), message("a-later", rank=2), message("a-as-late", rank=2)),
        rank=1,
    ),
    message(
        "a-best",
        message("q1", message("a1")),
        message("q2", message("a-deleted", rank=0, deleted=True), message("a2", rank=1)),
        message("q-unanswered"),
        rank=0,
    ),
    message("a-unranked"),
    message("a-refused", rank=2, review_result=False),
)


def flattened(node, tree, parent=None):
    yield {key: value for key, value in node.items() if key != "replies"} | {
        "parent_id": parent,
        "message_tree_id": tree,
    }
    for reply in node["replies"]:
        yield from flattened(reply, tree, node["message_id"])


@pytest.fixture(params=["trees", "messages"])
def oasst_file(request, tmp_path):
    """The tree as upstream's two kinds of file have it, beside a French one."""
    french = message("q-fr", message("a-fr"), lang="fr")
    if request.param == "trees":
        rows = [{"message_tree_id": "t1", "prompt": TREE}, {"message_tree_id": "t2", "prompt": french}]
    else:
        rows = [*flattened(TREE, "t1"), *flattened(french, "t2")]
    return write(tmp_path / "oasst.jsonl", rows)


def names_in(messages):
    return [turn["content"].removeprefix("text of ") for turn in messages]


def test_oasst_follows_the_best_ranked_replies(oasst_file):
    rows = load_rows("oasst", "train", path=oasst_file)
    assert [names_in(row["messages"]) for row in rows] == [["q0", "a-best", "q1", "a1"], ["q0", "a-best", "q2", "a2"]]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"] * 2
    assert len(load_rows("oasst", "train", path=oasst_file, lang=None)) == 3


def test_oasst_pairs_are_the_ranked_siblings(oasst_file):
    rows = load_rows("oasst_pairs", "train", path=oasst_file)
    assert [tuple(names_in(row[column])[-1] for column in ("prompt", "chosen", "rejected")) for row in rows] == [
        ("q0", "a-best", "a-worse"),
        ("q-after-worse", "a-late", "a-later"),
        ("q-after-worse", "a-late", "a-as-late"),
    ]
    assert names_in(rows[1]["prompt"]) == ["q0", "a-worse", "q-after-worse"]


def test_rasbt_and_tulu_become_conversations(tmp_path):
    row = {"instruction": "Say hello.", "input": "", "output": "Hello!", "chosen": "Hello.", "rejected": "What?"}
    path = write(tmp_path / "train.jsonl", [row, row | {"input": "To Ann."}, row | {"rejected": "Hello."}])
    built = load_rows("rasbt_instruct", "train", path=path)
    assert [row["messages"][0]["content"] for row in built] == ["Say hello.", "Say hello.\n\nTo Ann.", "Say hello."]
    assert built[0]["messages"][1] == say("assistant", "Hello!")
    assert [row["rejected"] for row in load_rows("rasbt_pairs", "train", path=path)] == [
        [say("assistant", "What?")]
    ] * 2

    judged = {"prompt": "Why?", "completion_a": "A", "completion_b": "B"}
    views = ["a-is-better", "b-is-slightly-better", "tie"]
    path = write(tmp_path / "prefs.jsonl", [judged | {"preference": view} for view in views])
    rows = load_rows("tulu_human_prefs", "train", path=path)
    told = [(row["chosen"][0]["content"], row["rejected"][0]["content"], row["strength"]) for row in rows]
    assert told == [("A", "B", "better"), ("B", "A", "slightly-better")]
    with pytest.raises(ValueError, match="'preference' holds 'both'"):
        load_rows("tulu_human_prefs", "train", path=write(tmp_path / "prefs.jsonl", [judged | {"preference": "both"}]))


def test_a_split_by_hash_knows_two_splits(tmp_path):
    path = write(tmp_path / "mine.jsonl", [{"instruction": "a", "input": "", "output": "b"}])
    with pytest.raises(ValueError, match=r"unknown split 'validation'.*'train' and 'test'"):
        load_rows("rasbt_instruct", "validation", path=path)
    with pytest.raises(ValueError, match="none of the 1 rows falls into split 'test'"):
        load_rows("rasbt_instruct", "test", path=path)


@pytest.mark.parametrize("name", dataset_names())
def test_every_shipped_data_set_states_what_it_is_and_its_license(name):
    spec = load_dataset_spec(name)
    assert spec.description and spec.license in ("Apache-2.0", "MIT", "CC-BY-4.0")
    assert spec.origin.startswith("https://") or spec.rows


FOLDERS = {"oasst": "oasst_en100", "oasst_pairs": "oasst_en100", "rasbt_pairs": "rasbt_instruct"}
# Rows of the training and the test split, and the beginning of the SHA-256 of each.
ROWS = {
    "gsm8k": (7473, 1319, "10efd60b6ee20a5b", "e9a049bd70b4865f"),
    "mbpp": (374, 500, "4455d2a51a749a62", "bcb7bf812ff3f66f"),
    "oasst": (91, 11, "f1bdbc550c5e6c9e", "88dfb98e29b31260"),
    "oasst_pairs": (683, 71, "3a7af3efe23d6da5", "4177358470dde966"),
    "rasbt_instruct": (989, 111, "dc5ee5115c627c33", "f6402791f064d2ee"),
    "rasbt_pairs": (984, 110, "8e8f8be421d87b1a", "f7af0497b083d696"),
    "svamp": (689, 311, "c5e41b2409382998", "5b51a00d7781b817"),
    "tiny/arithmetic": (6000, 360, "7f951a59253aed63", "4514464de7fe3b21"),
    "tiny/corpus": (20000, 1000, "10734b0fb9b2fc7c", "189b81db29b3ff00"),
    "tiny/descriptions": (1500, 150, "4c162ec0a89486e9", "1e3689d40f926b16"),
    "tiny/facts": (1125, 295, "48516dabb39fd3c0", "ca76665f98a88fa4"),
    "tiny/forms": (200, 20, "4fdb4399fc4b4735", "3b94c1f9096e421b"),
    "tiny/preferences": (8000, 500, "1e9a52c59a833ae1", "d65770b3eefb053c"),
    "tiny/programs": (3000, 400, "d2db410e44291ab2", "5fd811e56403cd2c"),
    "tiny/sft": (5000, 300, "d679a246d72937cd", "ecc3f250271d57cd"),
    "tiny/stories": (4000, 240, "704ff7f8c272b5c0", "0270348a4a30bb92"),
    "tulu_human_prefs": (716, 58, "f4505f240d42e193", "3e48afe60261b296"),
}


@pytest.mark.parametrize("name", dataset_names())
def test_every_shipped_data_set_has_the_same_rows_as_ever(name, request):
    report, path = LoadReport(), None
    if not name.startswith("tiny/"):
        path = str(request.getfixturevalue("shared") / "data" / FOLDERS.get(name, name))
    spec = load_dataset_spec(name)
    train, test = (list(open_dataset(spec, split, path, report=report).rows) for split in ("train", "test"))
    digests = (hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16] for rows in (train, test))
    assert (len(train), len(test), *digests) == ROWS[name] and not report.malformed


@pytest.mark.parametrize("name", ["gsm8k", "svamp", "oasst_pairs", "rasbt_instruct", "tulu_human_prefs"])
def test_real_data_has_disjoint_splits(shared, name):
    path = str(shared / "data" / FOLDERS.get(name, name))
    key = (lambda row: row["tree"]) if name == "oasst_pairs" else prompt_text
    train, test = (set(map(key, load_rows(name, split, path))) for split in ("train", "test"))
    assert train and test and not train & test


def test_real_svamp_falls_apart_as_its_files_do_and_its_equations_hold(shared):
    wrong = 0
    for split in ("train", "test"):
        lines = (shared / f"data/svamp/{split}.jsonl").read_text().splitlines()
        upstream = {row["ID"]: row for row in map(json.loads, lines)}
        rows = load_rows("svamp", split, path=str(shared / "data/svamp"))
        assert {row["id"] for row in rows} == set(upstream)
        for row in rows:
            step, _, final = row["completion"][0]["content"].rpartition("\n")
            assert final == f"#### {row['answer']}" and float(row["answer"]) == upstream[row["id"]]["Answer"]
            wrong += not step
            if step:
                left, right = step.split(" = ")
                assert eval(left) == eval(upstream[row["id"]]["Equation"]) == float(right)
    assert wrong == 2  # chal-680 contradicts itself, chal-555 has no operation


def test_real_oasst_conversations_alternate_and_are_the_same_from_flat_messages(shared, tmp_path):
    path = shared / "data/oasst_en100/en_100_tree.jsonl"
    trees = [json.loads(line) for line in path.read_text().splitlines()]
    flat = [row for tree in trees for row in flattened(tree["prompt"], tree["message_tree_id"])]
    flat_path = write(tmp_path / "messages.jsonl", flat[::-1])  # whatever the order of the messages
    for name in ("oasst", "oasst_pairs"):
        for split in ("train", "test"):
            rows = load_rows(name, split, path=str(path)).to_list()
            by_content = sorted(map(json.dumps, rows))
            assert sorted(map(json.dumps, load_rows(name, split, path=flat_path).to_list())) == by_content
            assert len(set(by_content)) == len(rows)
            for row in rows:
                roles = [turn["role"] for turn in row.get("messages") or row["prompt"] + row["chosen"]]
                assert roles == ["user", "assistant"] * (len(roles) // 2)
    sides = {int(hashlib.sha256(row["tree"].encode()).hexdigest(), 16) % 10 == 0 for row in rows}
    assert sides == {True}  # the last split above is the test split
