"""Scorers of a user's own tasks that compare text, choices and JSON, and the letters of choices."""

import json

import pytest

from schoolhouse.evaluation.choices import LETTERS, read_choice, right_choice
from schoolhouse.evaluation.tasks import load_task
from schoolhouse.evaluation.text_scorers import read_json_value


CITIES = ["Berlin", "Paris", "New York", "York"]


def task_of(folder, rows, text):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text("dataset: rows.jsonl\n" + text)
    return load_task(folder / "mine.yaml")


def verdicts(task, answers):
    """Verdicts of answers to the first item."""
    items = task.build()
    return [score["correct"] for score in task.score(answers, items[:1] * len(answers))]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. Paris", "B"),
        ("B\n\nParis is the capital.", "B"),
        ("B. Paris, not Berlin", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B) because Berlin is wrong", "B"),
        ("The answer is A. No: the answer is B.", "B"),
        ("\\boxed{D}", "D"),
        ("#### C", "C"),
        ("paris.", "B"),
        ("It is Paris.", "B"),
        ("New York", "C"),  # and not the York inside of it
        ("I think it is York.", "D"),
        ("B. Berlin", None),  # letter and text of two choices
        ("It is Paris, not Berlin", None),
        ("A) Berlin\nB) Paris", None),  # a copy of the choices
        ("A dog", None),  # an article
        ("The answer is A dog", None),
        ("I'm not sure", None),
        ("E", None),
        ("", None),
    ],
)
def test_a_choice_is_read_by_letter_or_text(response, letter):
    index = read_choice(response, CITIES)
    assert (None if index is None else LETTERS[index]) == letter


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        (1, ["3", "1", "2"], 1),
        (1.0, ["3", "1", "2"], 1),
        ("1", ["3", "2", "1"], 2),  # its text, and not its number
        ("3", ["a", "b", "c", "d"], 3),
        ("C", CITIES, 2),
        ("Paris", CITIES, 1),
        ("A", ["B", "C"], 0),
    ],
)
def test_the_right_choice_is_a_number_a_text_or_a_letter(answer, choices, index):
    assert right_choice(answer, choices) == index


@pytest.mark.parametrize(
    ("answer", "choices"),
    [("B", ["A", "C", "B"]), ("E", CITIES), (4, CITIES), (True, CITIES), ("4", CITIES), (None, CITIES), (-1, CITIES)],
)
def test_an_answer_that_is_no_choice_or_two_is_refused(answer, choices):
    with pytest.raises(ValueError, match="the answer"):
        right_choice(answer, choices)


def test_a_task_of_choices_shows_letters_and_takes_letter_or_text(tmp_path):
    rows = [{"question": "Capital of France?", "choices": CITIES, "answer": "Paris"}]
    text = 'prompt: [{role: user, content: "{question}\\n{choices}"}]\nreference: answer\nscorer: choice\n'
    task = task_of(tmp_path, rows, text)
    (item,) = task.build()
    assert item.prompt[0]["content"] == "Capital of France?\nA. Berlin\nB. Paris\nC. New York\nD. York"
    assert item.reference == "B"
    assert verdicts(task, ["B", "Paris", "C. New York", "<think>C?</think>B", "no idea"]) == [1, 1, 0, 1, 0]


def test_choices_may_be_columns_of_a_table(tmp_path):
    (tmp_path / "rows.csv").write_text("q,a,b,c,right\n1 + 1?,1,2,3,B\nRed or blue?,red,blue,,red\n")
    (tmp_path / "mine.yaml").write_text(
        "dataset: rows.csv\nprompt: '{q}\n\n  {choices}'\nreference: right\n"
        "scorer: {name: choice, choices: [a, b, c]}\n"
    )
    first, second = load_task(tmp_path / "mine.yaml").build()
    assert first.prompt == "1 + 1?\nA. 1\nB. 2\nC. 3" and first.reference == "B"
    assert second.prompt == "Red or blue?\nA. red\nB. blue" and second.reference == "A"


def test_likelihoods_of_letters_are_compared_where_the_task_says_so(tmp_path):
    rows = [{"question": "Capital of France?", "choices": CITIES, "answer": 1}]
    task = task_of(tmp_path, rows, 'kind: loglikelihood\nprompt: "{question}\\n{choices}\\nAnswer:"\nletters: true\n')
    (item,) = task.build()
    assert item.prompt.endswith("C. New York\nD. York\nAnswer:") and item.reference == "B"
    assert task.score([-5.0, -1.0, -2.0, -3.0], item)["correct"] is True
    assert task.score([-1.0, -5.0, -2.0, -3.0], item)["extracted"] == "A"


def test_exact_match_after_normalisation(tmp_path):
    rows = [{"q": "?", "a": "It is  Brenna."}]
    text = "prompt: '{q}'\nreference: a\nscorer: "
    answers = ["It is  Brenna.", "it is Brenna", "It is\nBrenna .", "It is Brennas", "", "."]
    assert verdicts(task_of(tmp_path, rows, text + "exact\n"), answers) == [1, 0, 0, 0, 0, 0]
    normalized = task_of(tmp_path, rows, text + "{name: exact, normalize: true}\n")
    assert verdicts(normalized, answers) == [1, 1, 1, 0, 0, 0]


def test_json_is_compared_by_value(tmp_path):
    rows = [{"q": "Extract.", "a": {"name": "Ada", "age": 36, "tags": ["x", "y"], "new": True}}]
    task = task_of(tmp_path, rows, "prompt: '{q}'\nreference: a\nscorer: json\n")
    (item,) = task.build()
    right = '{"age": 36.0, "new": true, "tags": ["x", "y"], "name": "Ada"}'
    answers = [
        right,
        f"Here it is:\n```json\n{right}\n```\nDone.",
        f"I first thought of {{}}, but it is {right}.",
        right.replace("true", "1"),
        right.replace('"x", "y"', '"y", "x"'),
        right[:-1],
        f"[{right}]",
        "none",
    ]
    assert verdicts(task, answers) == [1, 1, 1, 0, 0, 0, 0, 0]
    scores = task.score(answers, [item] * len(answers))
    assert [score["format_ok"] for score in scores] == [1, 1, 1, 1, 1, 1, 1, 0]
    assert [score["metrics"]["fields"] for score in scores[:5]] == [1, 1, 1, 0.75, 0.75]


def test_an_answer_of_brackets_alone_is_read_in_no_time():
    assert read_json_value("[" * 100_000) == [] and read_json_value('{"a":' * 20_000) == []


def test_a_reference_that_is_no_json_is_named(tmp_path):
    task = task_of(tmp_path, [{"q": "?", "a": "{broken"}], "prompt: '{q}'\nreference: a\nscorer: json\n")
    with pytest.raises(ValueError, match=r"rows.jsonl:1: the reference is no JSON"):
        task.build()
