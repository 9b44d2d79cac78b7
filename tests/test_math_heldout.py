"""The grader on answers that were written before it was tried on any of them."""

from math_heldout import HELDOUT

from schoolhouse.graders import grade_many


# `#### five apples: 5` begins like a heading.
MISSED = {("5", "#### five apples: 5")}


def test_right_answers_are_rewarded_and_near_misses_are_not():
    rows = [row for kind in HELDOUT.values() for row in kind]
    references = [reference for reference, _, _ in rows]
    right = grade_many([completion for _, completion, _ in rows], references, timeout_s=20)
    wrong = grade_many([completion for _, _, completion in rows], references, timeout_s=20)
    assert {row[:2] for row, grade in zip(rows, right, strict=True) if grade.correct is not True} == MISSED
    assert not [(row[0], row[2]) for row, grade in zip(rows, wrong, strict=True) if grade.correct is not False]
    assert len(rows) > 150


# Kinds of answers on which we differ, on purpose, from math-verify's own tests, which accept all of these.
ON_PURPOSE = {
    "a decimal comma: a comma separates thousands or items": [("1000.5", "1000,5"), ("1,25", "1.25")],
    "rounded: 0.33 is not a third, and no decimals are a root": [
        *(("\\frac{1}{3}", "0.333333"), ("4.242640687119285", "$3\\sqrt{2}$")),
        *(("(\\frac{1}{3}, 2]", "$(0.3333, 2]$"), ("\\begin{pmatrix}\\frac{1}{3}\\end{pmatrix}", "\\boxed{0.33}")),
    ],
    "a sum or product left standing, also of matrices": [
        ("10", "Answer \\( (9+1) \\)"),
        (
            "\\begin{pmatrix}4&6\\end{pmatrix}",
            "\\boxed{\\begin{pmatrix}1&2\\end{pmatrix}+\\begin{pmatrix}3&4\\end{pmatrix}}",
        ),
    ],
    "an inequality left to solve": [("x < 1", "$-x > -1$")],
    "two numbers in a sentence that states neither": [
        ("20", "the number is not 10 which is 20€"),
        ("20", "it is 10 or 20 m²"),
    ],
    "how often an item comes": [("(1, 2), (3, 4)", "$(1, 2), (3, 4), (1, 2)$")],
    "tuples for named values, in an order that nobody told": [("p=5,q=2;p=7,q=2", "$(5,2),(7,2)$")],
    "a number word beside the number": [("12", "Therefore, there are 12 lists that meet the three given conditions.")],
    "a sign that is wrong": [("1 - \\frac{1}{e}", "$1 + \\frac{1}{e}$")],
    "an equation that is false": [("\\frac{10}{9}", "Answer $ \\frac{1}{2} \\$ = \\frac{10}{9} $")],
    "names of functions of other variables": [("W(n) = 1 \\text{ and } W(n) = -1", "W(x)=1orW(x)=-1")],
    "LaTeX that a control character broke": [
        ("\\begin{pmatrix}\x0crac{1}{2}\\end{pmatrix}", "$\\begin{pmatrix}\x0crac{1}{2}\\end{pmatrix}$")
    ],
    "boxes that nothing joins, one with a unit": [("\\boxed{35 cm} ++++ \\boxed{4}", "${35 cm,4}$")],
    "a solution that says that it is wrong": [("28", "The answer is 28. The solution provided is incorrect.")],
}


def test_it_differs_from_math_verify_where_a_mathematician_would():
    pairs = [pair for kind in ON_PURPOSE.values() for pair in kind]
    grades = grade_many([answer for _, answer in pairs], [reference for reference, _ in pairs], timeout_s=20)
    assert not [pair for pair, grade in zip(pairs, grades, strict=True) if grade.correct is not False]
