"""What models are asked: `TASKS`, name -> task."""

from schoolhouse.evaluation.tasks.base import Item, Task
from schoolhouse.evaluation.tasks.code import HUMANEVAL, MBPP, TINY_CODE
from schoolhouse.evaluation.tasks.heldout import HELDOUT_BPB
from schoolhouse.evaluation.tasks.ifeval import IFEVAL
from schoolhouse.evaluation.tasks.math import GSM8K, GSM8K_5SHOT, SVAMP
from schoolhouse.evaluation.tasks.multiple_choice import MULTIPLE_CHOICE
from schoolhouse.evaluation.tasks.preferences import OASST_PAIRS, RASBT_PAIRS, TINY_PREFERENCES, TULU_HUMAN_PREFS
from schoolhouse.evaluation.tasks.tiny import (
    TINY_ARITHMETIC,
    TINY_DESCRIPTIONS,
    TINY_FACTS,
    TINY_FORMS,
    TINY_HELDOUT,
    TINY_STORIES,
)


__all__ = ["TASKS", "Item", "Task"]

TASKS: dict[str, Task] = {
    "gsm8k": GSM8K,
    "gsm8k_5shot": GSM8K_5SHOT,
    "svamp": SVAMP,
    "mbpp": MBPP,
    "humaneval": HUMANEVAL,
    "ifeval": IFEVAL,
    "multiple_choice": MULTIPLE_CHOICE,
    "heldout_bpb": HELDOUT_BPB,
    "tulu_human_prefs": TULU_HUMAN_PREFS,
    "oasst_pairs": OASST_PAIRS,
    "rasbt_pairs": RASBT_PAIRS,
    "tiny_preferences": TINY_PREFERENCES,
    "tiny_arithmetic": TINY_ARITHMETIC,
    "tiny_stories": TINY_STORIES,
    "tiny_code": TINY_CODE,
    "tiny_facts": TINY_FACTS,
    "tiny_forms": TINY_FORMS,
    "tiny_descriptions": TINY_DESCRIPTIONS,
    "tiny_heldout": TINY_HELDOUT,
}
