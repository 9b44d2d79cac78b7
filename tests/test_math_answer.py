"""The grader: a table of (reference, completion, verdict) with reasons, real references, and adversarial text."""

import random
import re
import time

import pytest

from schoolhouse.graders import Grade, grade_many
from schoolhouse.graders.math_answer import STYLES


YES, NO, NONE = True, False, None


def grade(completion, reference, style="hash", timeout_s=1.0):
    return grade_many([completion], [reference], style, timeout_s)[0]


TABLE = {
    "the contract form": [
        ("18", "She makes 9 * 2 = 18.\n#### 18", YES),
        ("18", "#### 17", NO),
        ("18", "The answer is 18.", YES),
        ("18", "The final answer is $\\boxed{18}$.", YES),
        ("18", "Answer: 18", YES),
        ("18", "**Answer:** 18 dollars", YES),
        ("18", "## Final Answer\n18", YES),
        ("18", "<answer>18</answer>", YES),
        ("She makes 9 * 2 = <<9*2=18>>18.\n#### 18", "#### 18", YES),
        ("She makes 9 * 2 = <<9*2=18>>18.\n#### 18", "#### 9", NO),
    ],
    "a last line without an anchor states what it ends in": [
        ("18", "18", YES),
        ("18", "**18**", YES),
        ("18", "9 * 2 = $18", YES),
        ("18", "So she makes **$18** every day.", YES),
        ("18", "She makes $18 every day at the market.", YES),
        ("3", "She has 16 eggs. She eats 3", NO),  # cut off before its end
        ("3", "## Step 3:", NO),
        ("18", "I don't know", NO),
        ("18", "", NO),
        ("5", "She buys 5 apples and 6 pears.", NO),
    ],
    "`Answer:` opens a solution, and its first number is no answer": [
        ("9", "Answer: Janet sells 16 - 3 - 4 = 9 eggs a day.\nShe makes 9 * 2 = $18 every day.", NO),
        ("18", "Answer: Janet sells 16 - 3 - 4 = 9 eggs a day.\nShe makes 9 * 2 = $18 every day.", YES),
        ("9", "### Solution:\nShe has 9 eggs.\nShe makes 9 * 2 = 18 dollars.", NO),
        ("9", "Answer: 5 + 4 = 9 eggs.\nThen 9 * 2 = 18.", NO),
    ],
    "dressing": [
        ("1234", "#### $1,234.00", YES),
        ("1234", "#### 1234.", YES),
        ("18", "The answer is **18**. I hope it is correct.", YES),
        ("12", "The answer is $12 per hour.", YES),
        ("17", "The answer is $17$, since $8+9=17$.", YES),
        ("42", "#### ４２", YES),
        ("42", "#### ٤٢", YES),  # Arabic-Indic digits are digits
        ("-5", "#### −5", YES),  # U+2212
        ("5", "#### −5", NO),
        ("1000", "#### 1.000", NO),  # a point is decimal
        ("1", "#### 1,000", NO),
        ("18", "\\boxed{ 18\\,}", YES),
        ("3/4", "\\boxed{\\dfrac34}", YES),
        ("18", "#### 1\u200b8", YES),
    ],
    "units": [
        ("5", "#### 5 apples", YES),
        ("3", "The area is 3 km^2.", YES),
        ("2", "The area is 3 km^2.", NO),
        ("3", "\\boxed{3\\text{ km}^2}", YES),
        ("3", "The area is 3 km².", YES),
        ("32", "The area is 3 km².", NO),
        ("90", "\\boxed{90^\\circ}", YES),
        ("5 cm", "#### 5 centimeters", YES),
        ("5 cm", "#### 5 m", NO),
        ("5", "\\boxed{5x}", NO),
        ("5", "#### 5 million", NO),
        ("5000000", "#### 5 million", YES),
        ("5", "#### 5 feet 6 inches", NO),
        ("5", "#### 5 and a half", NO),
    ],
    "units behind closed forms, and references that end in a unit": [
        ("2\\sqrt{3}", "\\boxed{2\\sqrt{3}\\text{ inches}}", YES),
        ("36\\pi", "The answer is 36π square inches.", YES),
        ("4", "\\boxed{\\sqrt{16}\\text{ inches}}", YES),
        ("4", "\\boxed{\\sqrt{16}x\\text{ inches}}", NO),
        ("2\\sqrt{3}\\text{ inches}", "\\boxed{2\\sqrt{3}}", YES),
        ("3x+2 dollars", "#### 3x+2 dollars", YES),
        ("3x+2 dollars", "\\boxed{3x+3}", NO),
        ("4 feet 6 inches", "#### 4 feet 6 inches", YES),
        ("4 feet 6 inches", "#### 4 feet 6", NO),
        ("30 degrees and 60 degrees", "\\boxed{30 degrees and 60 degrees}", YES),
        ("a leap year", "The answer is a leap year.", YES),
    ],
    "percent, see schoolhouse.graders.numbers": [
        ("50", "#### 50%", YES),
        ("0.5", "#### 50%", YES),
        ("50%", "#### 0.5", YES),
        ("50%", "#### 50 percent", YES),
        ("0.5", "#### 0.5%", NO),
        ("5", "#### 50%", NO),
    ],
    "exact rationals": [
        ("0.5", "#### 1/2", YES),
        ("1/2", "\\boxed{\\frac{2}{4}}", YES),
        ("3/2", "#### 1 1/2", YES),
        ("3/2", "\\boxed{1\\frac{1}{2}}", YES),
        ("3/2", "#### 1½", YES),
        ("11/2", "#### 1½", NO),
        ("11/2", "#### 1 1/2", NO),
        ("1/3", "#### 0.333", NO),
        ("0.333", "#### 0.333...", NO),
        ("1500", "#### 1.5e3", YES),
        ("1500", "\\boxed{1.5 \\times 10^3}", YES),
        ("1500", "#### 1.5×10³", YES),
        ("2.5", "#### 2.50", YES),
        ("-1/2", "\\boxed{\\frac{-1}{2}}", YES),
        ("52", "\\boxed{5²}", NO),
        ("25", "\\boxed{5²}", YES),
        ("0", "#### -0", YES),
    ],
    "arithmetic left standing is no answer to a question for a number": [
        ("72", "#### 48 + 24", NO),
        ("72", "#### 48+24 = 72", YES),
        ("72", "#### 144/2", NO),
        ("72", "#### 6 * 12", NO),
        ("1024", "\\boxed{2^{10}}", YES),
        ("120", "\\boxed{5!}", YES),
        ("4", "\\boxed{\\sqrt{16}}", YES),
        ("10", "\\boxed{2x = 10}", NO),
        ("5", "x = 5", YES),
        ("x = 2", "\\boxed{2}", YES),
        ("x = 2", "\\boxed{y = 2}", NO),
    ],
    "the last statement counts": [
        ("18", "The answer is 17. Wait, no. The answer is 18.", YES),
        ("17", "The answer is 17. Wait, no. The answer is 18.", NO),
        ("5", "The answer is 5. The answer is 6.", NO),
        ("6", "The answer is 5. The answer is 6.", YES),
        ("73", "#### 72\n#### 73", YES),
        ("72", "#### 72 #### 72", YES),
        ("18", "The answer is 18. \\boxed{}", YES),
        ("5", "#### 5\nWait, that is wrong: it should be 6.", NO),
        ("18", "#### 18\nI hope this helps! Ask me if you have 2 questions.", YES),
    ],
    "alternatives offered together never count": [
        ("5", "\\boxed{5} or \\boxed{6}", NO),
        ("6", "\\boxed{5} or \\boxed{6}", NO),
        ("6", "\\boxed{5}\n\n\\boxed{6}", NO),
        ("5", "#### 5, 6", NO),
        ("6", "#### 5, 6", NO),
        ("72", "#### 72 #### 73", NO),
        ("73", "#### 72 #### 73", NO),
        ("5", "The answer is 5 or 6.", NO),
        ("5", "The answer is 5. Or 6.", NO),
        ("5", "The answer is 5, or maybe 6.", NO),
        ("6", "The answer is either 5 or \\boxed{6}", NO),
        ("6", "The answer is 5 or the answer is 6", NO),
        ("18", "<answer>17</answer> or <answer>18</answer>", NO),
        ("1331", "\\boxed{1331 and 1728}", NO),
        ("1728", "\\boxed{1331 \\text{ and } 1728}", NO),
        ("2", "\\boxed{x=2 \\text{ or } x=3}", NO),
    ],
    "unless the reference is such a set": [
        ("5, 6", "#### 6, 5", YES),
        ("5, 6", "\\boxed{5} or \\boxed{6}", YES),
        ("5, 6", "#### 5", NO),
        ("2, 3", "\\boxed{x=2 \\text{ or } x=3}", YES),
        ("\\{1,2\\}", "\\boxed{\\{2,1\\}}", YES),
        ("\\{1,2\\}", "\\boxed{\\{1,1\\}}", NO),
    ],
    "tuples and intervals": [
        ("(1,2)", "\\boxed{(1, 2)}", YES),
        ("(1,2)", "\\boxed{(2, 1)}", NO),
        ("[1,2)", "\\boxed{[1,2)}", YES),
        ("[1,2)", "\\boxed{(1,2)}", NO),
        ("[1,2)", "\\boxed{[1,2]}", NO),
        ("(-\\infty, 2)\\cup(3,\\infty)", "\\boxed{(3,\\infty)\\cup(-\\infty,2)}", YES),
        ("(1,\\sqrt{2})", "\\boxed{(\\sqrt{2},1)}", NO),
    ],
    "expressions, equations and inequalities": [
        ("x^2+2x+1", "\\boxed{(x+1)^2}", YES),
        ("x^2+2x+1", "\\boxed{(x-1)^2}", NO),
        ("2\\sqrt{3}", "\\boxed{\\sqrt{12}}", YES),
        ("2\\sqrt{3}", "\\boxed{3.4641}", NO),
        ("\\pi", "#### 3.14", NO),
        ("2\\pi", "\\boxed{2π}", YES),
        ("\\frac{\\sqrt{2}}{2}", "\\boxed{\\frac{1}{\\sqrt2}}", YES),
        ("\\frac{1}{2^{99}}", "\\boxed{\\frac1{2^{98}}}", NO),  # one number to 15 digits after the point
        ("\\frac{1}{2^{99}}", "\\boxed{2^{-99}}", YES),
        ("\\frac{1}{10^{100}}", "\\boxed{\\frac{1}{10^{101}}}", NO),
        ("\\{\\sqrt{2}, 2^{-99}\\}", "\\boxed{\\{\\sqrt{2}, 2^{-98}\\}}", NO),
        ("\\{\\sqrt{2}, 2^{-99}\\}", "\\boxed{\\{2^{-99}, \\sqrt{2}\\}}", YES),
        ("y = 2x + 3", "\\boxed{y=2x+3}", YES),
        ("y = 2x + 3", "\\boxed{y=3x+2}", NO),
        ("x > 5", "\\boxed{5 < x}", YES),
        ("x > 5", "\\boxed{x \\geq 5}", NO),
        ("x^2", "\\boxed{x²}", YES),
    ],
    "matrices": [
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\boxed{\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}}", YES),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}}", NO),
        ("\\begin{pmatrix}1/2\\\\2\\end{pmatrix}", "\\boxed{\\begin{pmatrix}0.5\\\\2\\end{pmatrix}}", YES),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "<answer>\\begin{pmatrix}1\\\\2\\end{pmatrix}</answer>", YES),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\boxed{\\begin{pmatrix}1&2\\end{pmatrix}}", NO),
    ],
    "math-verify alone accepts these": [
        ("5", "\\boxed{\\sqrt{25}\\pm 0}", NO),
        ("5", "\\boxed{5^1\\ldots}", NO),
        ("10", "\\boxed{2x = \\sqrt{100}}", NO),
        ("25", "\\boxed{x^2 = 5^2}", NO),
        ("5", "\\boxed{\\frac{x}{2} = \\sqrt{25}}", NO),
        ("5", "\\boxed{\\{\\sqrt{25}, 5\\}}", NO),
        ("1", "\\boxed{\\sin^2 x + \\cos^2 x}", NO),
        ("1, 2", "\\boxed{1, 2, 2}", NO),
        ("1, 2, 2", "\\boxed{1, 2}", NO),
        ("(0.1, \\sqrt{2})", "\\boxed{(0.1000001, \\sqrt{2})}", NO),
        ("\\{0.3333333, \\sqrt{2}\\}", "\\boxed{\\{\\frac13, \\sqrt{2}\\}}", NO),
    ],
    "and refuses these": [
        ("1,234, 5", "\\boxed{1234, 5}", YES),
        ("1,234\\sqrt{2}", "\\boxed{1234\\sqrt2}", YES),
        ("1\\frac{1}{2}x", "\\boxed{\\frac{3}{2}x}", YES),
        ("2 sqrt(2)", "\\boxed{2\\sqrt{2}}", YES),
        ("36\\pi", "\\boxed{36 pi}", YES),
        ("10\\sqrt 10", "\\boxed{10\\sqrt{10}}", YES),
    ],
    "what looks like a number and is none": [
        ("12", "The answer is 12:30.", NO),
        ("30", "The answer is 12:30.", NO),
        ("12:30", "The answer is 12:30.", YES),
        ("5", "March 5, 2024", NO),
        ("2024", "The answer is 5/6/2024.", NO),
        ("5", "It could be 5-10.", NO),
        ("-5", "#### 5-10", NO),
        ("3", "\\boxed{3:2}", NO),
        ("2", "The answer is H2O.", NO),
        ("3", "The answer is $3!$.", NO),
        ("6", "The answer is $3!$.", YES),
        ("12", "The answer is \\boxed{12", NO),  # cut off: it may have become 1234
        ("3", "The answer is 3. No, it is \\boxed{12", NO),
        ("3", "#### 3. Compute the total", NO),
        ("3", "#### Step 3: Compute the total\nShe has 5 eggs.", NO),
    ],
    "bounds, questions and denials state no answer": [
        ("5", "The answer is not 5.", NO),
        ("5", "The answer isn't 5.", NO),
        ("5", "The answer is not \\boxed{5}", NO),
        ("5", "If the answer is 5, we are wrong", NO),
        ("5", "The answer is 5?", NO),
        ("5", "The answer is at least 5.", NO),
        ("5", "The answer is less than 5", NO),
    ],
    "base suffixes, see schoolhouse.graders.numbers": [
        ("1010_2", "\\boxed{1010_{2}}", YES),
        ("1010_2", "\\boxed{1010}", NO),
        ("10", "\\boxed{1010_2}", NO),
        ("1010_2", "\\boxed{10}", NO),
    ],
    "a leaked next question is not read": [
        ("18", "#### 18\n\nQuestion: Tom has 5 apples. How many?\nAnswer: 5\n#### 5", YES),
        ("5", "#### 18\n\nQuestion: Tom has 5 apples. How many?\nAnswer: 5\n#### 5", NO),
        ("5", "#### 18 Question: Tom has 5 apples. #### 5", NO),
        ("5", "#### 18\n\n**Problem 2:** Tom has 5 apples.\n#### 5", NO),
        ("5", "#### 18\nQ: Tom has 5 apples.\nA: 5", NO),
        ("5", "#### 18\nUser: and with 5?\n#### 5", NO),
        ("5", "#### 18<|im_end|>\n<|im_start|>assistant\n#### 5", NO),
        ("18", "Question: how many?\nThe answer is 18.", YES),  # nothing came before: the question is restated
    ],
    "reasoning is not read": [
        ("5", "<think>The answer is 6</think>\n#### 5", YES),
        ("6", "<think>The answer is 6</think>\n#### 5", NO),
        ("6", "<think>The answer is \\boxed{6}", NO),
        ("6", "<think>The answer is 6</think>", NO),
        ("5", "so it is 6.</think>The answer is 5", YES),
    ],
    "text is compared as text": [
        ("Monday", "The answer is Monday.", YES),
        ("Monday", "#### monday", YES),
        ("Monday", "The answer is Tuesday.", NO),
        ("Yes", "\\boxed{\\text{Yes}}", YES),
        ("B", "The answer is (B).", YES),
        ("B", "The answer is (C).", NO),
    ],
    "an empty reference cannot be graded": [
        ("", "#### 5", NONE),
        ("####  ", "#### 5", NONE),
        ("\\boxed{}", "", NONE),
    ],
}
CASES = [(reference, text, verdict, reason) for reason, rows in TABLE.items() for reference, text, verdict in rows]


@pytest.fixture(scope="module")
def graded():
    # One batch, and a limit that a busy machine does not reach: this is about verdicts.
    grades = grade_many([text for _, text, _, _ in CASES], [reference for reference, _, _, _ in CASES], timeout_s=20)
    return list(zip(CASES, grades, strict=True))


def test_the_table_is_as_large_as_promised():
    assert len(CASES) >= 80 and len(set(CASES)) == len(CASES)


@pytest.mark.parametrize("reason", TABLE)
def test_it_grades_as_a_mathematician_would(graded, reason):
    wrong = [(case[:3], grade) for case, grade in graded if case[3] == reason and grade.correct is not case[2]]
    assert not wrong


@pytest.mark.parametrize(
    ("completion", "hash_ok", "boxed_ok", "think_ok"),
    [
        ("9 * 2 = 18\n#### 18", True, False, False),
        ("#### **18**", False, False, False),
        ("#### $18", False, False, False),
        ("######## 18", False, False, False),
        ("#### 17 #### 18", False, False, False),
        ("#### Thus we are done", False, False, False),
        ("####18", False, False, False),
        ("The answer is 18.", False, False, False),
        ("It is \\boxed{18}.", False, True, False),
        ("#### \\boxed{18}", False, True, False),
        ("#### 17\nNo: \\boxed{18}", False, True, False),
        ("<think>9 * 2</think><answer>18</answer>", False, False, True),
        ("9 * 2</think>\n<answer>\\boxed{18}</answer>", False, False, True),  # the template opened <think>
        ("<think>9 * 2<answer>18</answer>", False, False, False),
        ("<think>9<think>8</think></think><answer>18</answer>", False, False, False),
        ("<answer>18</answer>", False, False, False),
        ("#### ", False, False, False),
        ("", False, False, False),
    ],
)
def test_format_is_graded_apart_from_correctness(completion, hash_ok, boxed_ok, think_ok):
    right, wrong = grade_many([completion] * 2, ["18", "99"])
    assert (right.format_ok, wrong.format_ok) == (hash_ok, hash_ok)
    assert grade(completion, "18", style="boxed").format_ok is boxed_ok
    assert grade(completion, "18", style="think-answer").format_ok is think_ok


def test_extracted_answers_can_be_counted_as_votes():
    same = ["#### 18", "The answer is $18.00.", "\\boxed{18}", "so 9 * 2 = 18 eggs"]
    assert {grade(text, "5").extracted for text in same} == {"18"}
    assert grade("#### 0.50", "5").extracted == grade("#### 2/4", "5").extracted == "1/2"
    assert grade("#### 72 #### 73", "5").extracted == "72 or 73"
    assert grade("no idea", "5") == Grade(False, None, False)
    assert grade("", "5").extracted is None


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"'latex' is unknown: use one of 'hash'"):
        grade("#### 5", "5", style="latex")
    with pytest.raises(ValueError, match="2 completions came with 1 references"):
        grade_many(["a", "b"], ["5"])


REWORDED = [
    "{body}\n#### {n}",
    "{body}\nThe answer is {n}.",
    "{body}\nThe final answer is $\\boxed{{{n}}}$.",
    "{body}\n**Answer: {n}**",
    "{body}\nTherefore, the answer is: {n}",
    "{body}\nSo the total is **${n}**.",
]


def test_every_reference_is_accepted_however_its_last_line_is_worded(shared):
    import json

    rows = [json.loads(line) for line in (shared / "data/gsm8k/test.jsonl").read_text().splitlines()]
    references = [row["answer"] for row in rows]
    assert all(one == Grade(True, one.extracted, True) for one in grade_many(references, references))
    for number, wording in enumerate(REWORDED):
        some = references[number :: len(REWORDED)]
        parts = [re.sub(r"<<.*?>>", "", reference).split("\n#### ") for reference in some]
        right = [wording.format(body=body, n=n) for body, n in parts]
        wrong = [wording.format(body=body, n=int(n.replace(",", "")) + 1) for body, n in parts]
        assert all(one.correct for one in grade_many(right, some)), wording
        assert not any(one.correct for one in grade_many(wrong, some)), wording


def test_it_grades_thousands_of_ordinary_pairs_a_second():
    random.seed(0)
    body = "She sells 16 - 3 - 4 = 9 eggs a day at the market. " * 8
    texts = [
        f"{body}\n{random.choice(['#### {}', 'The answer is ${}.00.'])}".replace("{}", str(n)) for n in range(3000)
    ]
    references = [f"9 * 2 = <<9*2={n}>>{n}\n#### {n}" for n in range(3000)]
    start = time.process_time()
    assert all(one.correct for one in grade_many(texts, references))
    assert len(texts) / (time.process_time() - start) > 4000  # 15,000 to 20,000 where nothing else runs


PIECES = [
    *(
        "####",
        "#### ",
        "\\boxed{",
        "\\boxed",
        "}",
        "{",
        "answer",
        "The answer is ",
        "<answer>",
        "</answer>",
        "<think>",
    ),
    *("</think>", " ", "\n", "\t", "$", "\\", "\\frac", "^", "_", "(", ")", "[", "]", ",", ".", "5", "12", "1,234"),
    *("-", "–", "½", "²", "٣", "/", "%", " or ", " and ", "=", "\\text{", "km", "x", "!", "*", "**", "?", ":", "e"),
    *("0" * 50, "9" * 500, "\u200b", "é", "ﷺ", "\ud800", "\x00", "İ", "Question:", "wait ", "\\sqrt", "\\times 10^"),
    *("because ", "'", ";", "<<", "not ", "solution", "\\left", "~"),
]
REFERENCES = ["5", "1/2", "5, 6", "(1,2)", "Monday", "x=5", "50%", "", "12:30", "1010_2", "9" * 1000]


def test_no_text_makes_it_raise_or_hang(monkeypatch):
    # Algebra has its own tests: here nothing may leave the process, so that every millisecond is the reader's.
    monkeypatch.setattr("schoolhouse.graders.pool.run", lambda task, pairs, *rest: [("done", False)] * len(pairs))
    random.seed(1)
    start = time.process_time()
    for _ in range(6000):
        some = random.sample(PIECES, 6) if random.random() < 0.5 else PIECES
        text = "".join(random.choices(some, k=random.choice([1, 3, 8, 30])))
        one = grade(text, random.choice(REFERENCES), random.choice(STYLES))
        assert one.correct in (True, False, None)
    assert time.process_time() - start < 30


@pytest.mark.parametrize("piece", [*PIECES, "\n\n", "answer is ", "#### 1 ", "\\boxed{1} or ", "1, ", "(", "5 x "])
def test_reading_takes_time_in_proportion_to_the_text(monkeypatch, piece):
    monkeypatch.setattr("schoolhouse.graders.pool.run", lambda task, pairs, *rest: [("done", False)] * len(pairs))
    for text in (piece * 10_000, "#### " + piece * 10_000, "The answer is " + piece * 10_000 + "5"):
        start = time.process_time()
        grade_many([text] * 2, ["5", "x^2"])
        assert time.process_time() - start < 1 + len(text) * 2e-6


def test_huge_integers_are_compared_as_text():
    digits = "7" * 4500  # int() refuses more than 4,300, and is quadratic below
    assert grade(f"#### {digits}", digits).correct is True
    assert grade(f"#### {digits}", digits[:-1] + "8").correct is False
    assert grade(f"#### {digits}", "7").correct is False
    assert grade("#### 1e999999999", "5").correct is False
    assert grade("\\boxed{10^{99999}}", "5").correct is False
