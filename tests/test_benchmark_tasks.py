"""Prompts of the shipped benchmarks on rows made here, checked against lm-eval's task files where it is installed."""

import importlib.util
import json
from pathlib import Path

import pytest

from schoolhouse.evaluation.tasks import load_task


ARC_ROWS = [
    {
        "id": f"q{n}",
        "question": f"Which of {n} is a metal?",
        "choices": {"text": [f"wood {n}", f"iron {n}", "sand"], "label": list("ABC") if n % 2 else list("123")},
        "answerKey": "B" if n % 2 else "2",
    }
    for n in range(12)
]
HELLASWAG_ROWS = [
    {
        "activity_label": "Baking [header]",
        "ctx_a": f" A man  has {n} eggs.",
        "ctx_b": "he [step] BREAKS",
        "endings": [f"egg {k}{n} [title] in a bowl.  Done" for k in range(4)],
        "label": str(n % 4),
    }
    for n in range(12)
]
MMLU_ROWS = [
    {
        "question": f" What is {n} + {n}? ",
        "subject": ("abstract_algebra", "virology")[n % 2],
        "choices": ["0", "1", str(2 * n), "0"],
        "answer": 2,
    }
    for n in range(12)
]


def build(folder, name, **splits):
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(name).build(path=str(folder))


@pytest.fixture(scope="module")
def lm_eval_tasks():
    """The folder of lm-eval's task files."""
    if (found := importlib.util.find_spec("lm_eval")) is None:
        pytest.skip("lm-eval is not installed")
    return Path(found.origin).parent / "tasks"


def rendered(path, rows):
    """Prompts, choices and right choices by an lm-eval task file."""
    import jinja2
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    task = yaml.load(path.read_text(), Loader)
    for row in rows:
        right = jinja2.Template(str(task["doc_to_target"])).render(**row)
        yield jinja2.Template(task["doc_to_text"], keep_trailing_newline=True).render(**row), right


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge"])
def test_arc_asks_as_lm_eval_does(tmp_path, name, request):
    items = build(tmp_path, name, test=ARC_ROWS)
    assert items[3].prompt == "Question: Which of 3 is a metal?\nAnswer:" and items[3].id == "q3"
    assert [item.reference for item in items] == [f"iron {n}" for n in range(12)]
    tasks = request.getfixturevalue("lm_eval_tasks")
    theirs = list(rendered(tasks / "arc" / "arc_easy.yaml", ARC_ROWS))
    assert [(item.prompt, str(item.row["answer"])) for item in items] == theirs


def test_hellaswag_asks_as_lm_eval_does(tmp_path, request):
    items = build(tmp_path, "hellaswag", validation=HELLASWAG_ROWS)
    assert items[2].prompt == "Baking : A man has 2 eggs. He breaks"
    assert items[2].reference == "egg 22. in a bowl. Done" and len(items) == 12
    tasks = request.getfixturevalue("lm_eval_tasks")
    spec = importlib.util.spec_from_file_location("lm_eval_hellaswag", tasks / "hellaswag" / "utils.py")
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    from datasets import Dataset

    docs = theirs.process_docs(Dataset.from_list(HELLASWAG_ROWS))
    assert [(item.prompt, item.row["choices"], item.row["answer"]) for item in items] == [
        (doc["query"], doc["choices"], doc["gold"]) for doc in docs
    ]


def test_mmlu_asks_as_lm_eval_does(tmp_path, request):
    items = build(tmp_path, "mmlu", dev=MMLU_ROWS, test=MMLU_ROWS[:4])
    question = "What is {0} + {0}?\nA. 0\nB. 1\nC. {1}\nD. 0\nAnswer:"
    shots = "".join(f"{question.format(n, 2 * n)} C\n\n" for n in (1, 3, 5, 7, 9))
    start = "The following are multiple choice questions (with answers) about virology.\n\n"
    assert items[1].prompt == start + shots + question.format(1, 2)
    assert items[0].prompt.startswith(start.replace("virology", "abstract algebra"))
    assert {(item.reference, item.level) for item in items} == {("C", "abstract algebra"), ("C", "virology")}
    tasks = request.getfixturevalue("lm_eval_tasks")
    theirs = list(rendered(tasks / "mmlu" / "default" / "_default_template_yaml", MMLU_ROWS[:4]))
    assert all(item.prompt.endswith("\n\n" + prompt) for item, (prompt, _) in zip(items, theirs, strict=True))
    assert "about abstract\\\n  \\ algebra.\\n\\n" in (tasks / "mmlu/default/mmlu_abstract_algebra.yaml").read_text()


def test_math500_asks_for_a_boxed_answer(tmp_path):
    rows = [
        {"problem": "Add \\frac{1}{2} twice.", "solution": "?", "answer": "1", "subject": "s", "level": 3}
        | {"unique_id": f"test/{n}.json"}
        for n in range(2)
    ]
    (item, _) = build(tmp_path, "math500", test=rows)
    assert item.prompt == [
        {"role": "user", "content": "Add \\frac{1}{2} twice.\n\nPut the final answer in \\boxed{}."}
    ]
    assert (item.id, item.level) == ("test/0.json", 3)
    scores = load_task("math500").score(["It is \\boxed{1}.", "#### 1", "\\boxed{2}"], [item] * 3)
    assert [(score["correct"], score["format_ok"]) for score in scores] == [(True, True), (True, False), (False, True)]


def test_rewardbench_has_sections(tmp_path):
    subsets = ["alpacaeval-easy", "llmbar-natural", "donotanswer", "math-prm", "hep-cpp"]
    rows = [{"prompt": f"{s}?", "chosen": "Yes.", "rejected": "No.", "subset": s, "id": 0} for s in subsets]
    items = build(tmp_path, "rewardbench", filtered=rows)
    assert [item.level for item in items] == ["Chat", "Chat Hard", "Safety", "Reasoning", "Reasoning"]
    assert items[0].prompt == [{"role": "user", "content": "alpacaeval-easy?"}]
    assert items[0].row["chosen"] == [{"role": "assistant", "content": "Yes."}]
    with pytest.raises(ValueError, match="column 'subset' is 'new', of no known section"):
        build(tmp_path, "rewardbench", filtered=[{**rows[0], "subset": "new"}])
