"""The answer key: one grader that scores evals and pays rewards, and other projects' rules to stand beside them."""

from schoolhouse.graders.math_answer import STYLES, Grade, grade, grade_many
from schoolhouse.graders.reference_scorers import CONVENTIONS, LM_EVAL_STOP, score_as


__all__ = ["CONVENTIONS", "LM_EVAL_STOP", "STYLES", "Grade", "grade", "grade_many", "score_as"]
