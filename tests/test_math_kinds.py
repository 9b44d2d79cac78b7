"""Kinds of answers that public bug reports of this field are about: each with right and wrong siblings."""

import pytest

from schoolhouse.graders import grade_many


YES, NO = True, False

# Each must be accepted in four usual statements of itself.
REFERENCES = [
    *(
        "(2,4)",
        "\\begin{pmatrix}1\\\\2\\end{pmatrix}",
        "x>3",
        "1, 2, 3",
        "12:30",
        "June 20",
        "x^2+1",
        "0.\\overline{12}",
    ),
    *(
        "even",
        "101_2",
        "\\emptyset",
        "-\\frac{3}{4}",
        "\\sin x",
        "30 degrees and 60 degrees",
        "4 feet 6 inches",
        "half",
    ),
    *("5\\frac{1}{2}\\text{ feet}", "3 h 20 min", "1 hour", "2\\sqrt{3}\\text{ inches}", "3x+2 dollars", "A and B"),
    *(
        "True",
        "Mr. Smith",
        "$3.05",
        "5\\%",
        "3-5",
        "at most 7",
        "none",
        "\\frac{\\pi}{4}",
        "\\sqrt{2}+\\sqrt{3}",
        "-5",
    ),
    *("\\binom{5}{2}", "(x-1)(x+2)", "3 : 4 : 5", "1.5e3", "0", "1,000,000", "n(n+1)/2", "\\pm 3", "a leap year"),
    *("Monday, 3 weeks", "30 cents per pound", "12 men", "(-\\infty,0)\\cup(0,\\infty)", "\\mathbb{R}"),
    # Siblings.
    *(
        "Room 12",
        "20 June",
        "St. Louis",
        "more than 3",
        "2 hours 5 minutes",
        "\\ln 2",
        "1, 1, 2",
        "B",
        "(C) 5",
        "x \\ne 3",
    ),
]
STATEMENTS = [
    "So we get \\boxed{{{}}}.",
    "Done.\n#### {}",
    "<think>ok</think><answer>{}</answer>",
    "The answer is {}.",
]
KINDS = {
    "units behind closed forms": [
        ("2\\sqrt{3}", "\\boxed{2\\sqrt{3}\\text{ inches}}", YES),
        ("2\\sqrt{3}\\text{ inches}", "\\boxed{2\\sqrt{3}}", YES),
        ("2\\sqrt{3}\\text{ inches}", "\\boxed{2\\sqrt{3}\\text{ cm}}", NO),
        ("36\\pi", "\\boxed{36\\pi \\text{ square units}}", YES),
        ("36\\pi\\text{ cm}^2", "\\boxed{36\\pi}", YES),
        ("36\\pi\\text{ cm}^2", "\\boxed{36\\text{ cm}^2}", NO),
        ("36\\pi", "The answer is 36π square inches.", YES),
        ("5\\sqrt{2}", "\\boxed{5\\sqrt{2}\\text{ m}}", YES),
        ("\\frac{3}{4}", "\\boxed{\\frac{3}{4}\\text{ cups}}", YES),
        ("\\frac{\\pi}{4}", "\\boxed{\\frac{\\pi}{4}\\text{ radians}}", YES),
        ("4", "\\boxed{\\sqrt{16}\\text{ inches}}", YES),
        ("4 inches", "\\boxed{\\sqrt{16}\\text{ miles}}", NO),
    ],
    "what a number counts": [
        ("3 oranges", "The answer is 3 apples.", NO),
        ("3 oranges", "The answer is 3 oranges.", YES),
        ("3 oranges", "There are 3 oranges in the box.", YES),
        ("3 oranges", "#### 3", YES),
        ("3", "The answer is 3 apples.", YES),
        ("12 men", "\\boxed{12\\text{ women}}", NO),
        ("30 cents", "#### $30", NO),
        ("30 dollars", "#### $30", YES),
        ("$3.05", "The answer is 3.05 dollars.", YES),
        ("12 square feet", "The area is 12 square meters.", NO),
    ],
    "references of words and numbers": [
        ("4 feet 6 inches", "#### 4 ft 6 in", YES),
        ("4 feet 6 inches", "#### 4 ft and 6 inches", YES),
        ("4 feet 6 inches", "\\boxed{4\\text{ feet}}", NO),
        ("3 h 20 min", "The answer is 3 hours and 20 minutes.", YES),
        ("3 h 20 min", "The answer is 3 hours.", NO),
        ("30 degrees and 60 degrees", "\\boxed{60^\\circ, 30^\\circ}", YES),
        ("30 degrees and 60 degrees", "\\boxed{30^\\circ}", NO),
        ("Room 12", "#### Room 12", YES),
        ("Room 12", "#### Floor 12", NO),
        ("Room 12", "#### 12", NO),
        ("at most 7", "#### at least 7", NO),
        ("at most 7", "#### 7", NO),
        ("Mr. Smith", "The answer is Mr. Jones.", NO),
        ("Dr. Brown", "The answer is Dr. Brown. He was there.", YES),
        ("St. Paul", "<answer>St. Louis</answer>", NO),
    ],
    "dates": [
        ("June 20", "The answer is June 20.", YES),
        ("June 20", "The answer is May 20.", NO),
        ("June 20", "The answer is 20 June.", YES),
        ("June 20", "The answer is June 20th.", YES),
        ("20 June", "The answer is page 20.", NO),
        ("20 June", "#### 20", NO),
        ("March 5, 2024", "\\boxed{\\text{March 5, 2024}}", YES),
        ("March 5, 2024", "\\boxed{\\text{May 3, 2024}}", NO),
        ("March 5, 2024", "#### 2024", NO),
    ],
    "closed answer tags with words": [
        ("7", "<think>t</think><answer>She pays $7</answer>", YES),
        ("7", "<think>t</think><answer>The answer is 7</answer>", YES),
        ("at most 7", "<think>t</think><answer>at most 7</answer>", YES),
        ("7", "<think>t</think><answer>at most 7</answer>", NO),
        ("7", "<think>t</think><answer>The total is 7.</answer>", YES),
        ("7", "<think>t</think><answer>\\boxed{7}</answer>", YES),
        ("7", "<answer>She had 9 and ate 2. So 7 are left</answer>", YES),
        ("7", "<answer>She pays $7 or $8</answer>", NO),
        ("7", "<answer>3 + 4</answer>", NO),
        ("7", "<answer>She buys 7 apples and 2 pears</answer>", NO),
        ("7", "<answer>not 7</answer>", NO),
        ("Mr. Smith", "<answer>Mr. Smith</answer>", YES),
    ],
    "afterwords": [
        ("365", "The answer is 365. It should be noted that a year has 365 days.", YES),
        ("52", "The answer is 52. It should be noted that a year has 365 days.", YES),
        ("52", "\\boxed{52}\n\nA year actually has 52 weeks and 1 day.", YES),
        ("52", "#### 52\nSorry for using 3 lines.", YES),
        ("52", "#### 52\nNo other number between 50 and 60 will do.", YES),
        ("18", "The answer is 18. Wait, let me check: 9 * 2 = 18.", YES),
        ("18", "The answer is 18. Wait, that is 9 * 3 = 27.", NO),
        ("75", "The answer is 75. Oops, it is 76, not 75.", NO),
        ("5", "The answer is 5. Actually, it should be 6.", NO),
        ("5", "The answer is 5. But that is wrong: 6.", NO),
        ("5", "\\boxed{5}. Sorry, I meant 6.", NO),
        ("5", "The answer is 5. Another answer is 6.", NO),
    ],
    "multiple choice": [
        ("B", "The answer is B) 12 apples.", YES),
        ("B", "The answer is option B.", YES),
        ("B", "The correct option is B.", YES),
        ("B", "\\boxed{\\textbf{(B)}\\ 12}", YES),
        ("B", "The answer is option C.", NO),
        ("B", "The answer is (A) or (B).", NO),
        ("B", "\\boxed{A, B}", NO),
        ("B) 12 apples", "#### B", YES),
        ("B) 12 apples", "#### 12 apples", YES),
        ("B) 12 apples", "#### B) 13 apples", NO),
        ("B) 12 apples", "#### C) 12 apples", NO),
    ],
    "several boxes": [
        ("1, -2", "\\[ \\boxed{-2} \\quad \\text{and} \\quad \\boxed{1}. \\]", YES),
        ("1", "\\[ \\boxed{-2} \\quad \\text{and} \\quad \\boxed{1}. \\]", NO),
        ("-2", "\\[ \\boxed{-2} \\quad \\text{and} \\quad \\boxed{1}. \\]", NO),
        ("1, 2", "He needs \\boxed{1} hour and \\boxed{2} men.", YES),
        ("2", "He needs \\boxed{1} hour and \\boxed{2} men.", NO),
        ("3", "First \\boxed{2}.\nAnd then, as said, the sum is \\boxed{3}.", YES),
    ],
    "notation": [
        ("1", "\\boxed{\\frac3{3}}", YES),
        ("\\frac{3}{4}", "\\boxed{\\frac3{4}}", YES),
        ("\\frac{1}{12}", "\\boxed{\\frac1{12}}", YES),
        ("72", "\\boxed{\\frac{144}{2}}", NO),
        ("11111", "\\boxed{11,\\! 111}", YES),
        ("1234567", "\\boxed{1{,}\\!234{,}\\!567}", YES),
        ("11, 111", "\\boxed{11,\\! 111}", NO),
        ("\\frac{1}{3}", "\\boxed{0.\\overline{3}}", YES),
        ("\\frac{1}{3}", "\\boxed{0.3}", NO),
        ("0.1\\overline{6}", "#### 1/6", YES),
        ("0.\\overline{12}", "\\boxed{\\frac{4}{33}}", YES),
        ("0.\\overline{12}", "\\boxed{0.12}", NO),
        ("x \\le 3", "\\boxed{x <= 3}", YES),
        ("x \\neq 3", "\\boxed{x != 3}", YES),
        ("x \\ge 3", "\\boxed{x \\geqslant 3}", YES),
        ("\\emptyset", "\\boxed{\\varnothing}", YES),
    ],
    "an exact value and its decimals": [
        ("\\frac{2}{3}", "\\boxed{\\frac{2}{3} \\approx 0.667}", YES),
        ("0.667", "\\boxed{\\frac{2}{4} \\approx 0.667}", NO),
        ("5", "\\boxed{6 \\approx 5}", NO),
        ("2\\sqrt{3}", "The answer is 2√3 ≈ 3.46.", YES),
    ],
    "the last line states a formula": [
        ("x > 3", "We find that $x > 3$.", YES),
        ("x > 3", "Therefore $x > 3$ is the solution.", YES),
        ("x > 3", "Therefore $x > 4$ is the solution.", NO),
        ("(7, 6)", "So the pair $(x, y)$ that solves it is \\((7, 6)\\).", YES),
        ("x^2-1", "We have to simplify $(x-1)(x+1)$.", NO),
        ("34", "Final Answer: The largest $n$ is 34.", YES),
        ("34", "Final Answer: The largest of 33 and 34.", NO),
        ("9", "Answer \\[ 9 \\]", YES),
    ],
}
CASES = [
    *((reference, statement.format(reference), YES, "itself") for reference in REFERENCES for statement in STATEMENTS),
    *((*row, kind) for kind, rows in KINDS.items() for row in rows),
]


@pytest.fixture(scope="module")
def graded():
    # One batch, and a limit that a busy machine does not reach: this is about verdicts.
    grades = grade_many([text for _, text, _, _ in CASES], [reference for reference, _, _, _ in CASES], timeout_s=20)
    return [(case, grade.correct) for case, grade in zip(CASES, grades, strict=True)]


@pytest.mark.parametrize("kind", ["itself", *KINDS])
def test_it_grades_this_kind_as_a_mathematician_would(graded, kind):
    assert not [(case[:3], verdict) for case, verdict in graded if case[3] == kind and verdict is not case[2]]
