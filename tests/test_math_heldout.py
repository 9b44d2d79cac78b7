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
