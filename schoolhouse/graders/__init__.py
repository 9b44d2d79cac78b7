"""The graders that score evals and compute verifiable rewards, and other projects' rules to compare with."""

from schoolhouse.graders.math_answer import Grade, grade_many
from schoolhouse.graders.reference_scorers import LM_EVAL_STOP, REFERENCE_SCORERS, score_as


__all__ = ["LM_EVAL_STOP", "REFERENCE_SCORERS", "Grade", "grade_many", "score_as"]
