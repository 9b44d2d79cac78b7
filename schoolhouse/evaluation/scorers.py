"""Scorers of generated answers, as task files name them: a built-in one with its parameters, or `file.py:function`."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError

from schoolhouse.config.errors import ConfigError, nearest
from schoolhouse.config.user_code import load_function
from schoolhouse.config.value_types import to_config_error
from schoolhouse.core.escape import response_of
from schoolhouse.evaluation.results import Metric
from schoolhouse.evaluation.scorer import Score, Scorer
from schoolhouse.evaluation.tasks.items import Item, Row
from schoolhouse.evaluation.text_scorers import ChoiceScorer, ContainsScorer, ExactScorer, JsonScorer


class MathScorer(Scorer):
    """
    Grade final answers with [`schoolhouse.graders.grade_many`], the grader of the `math` reward.

    `right_in_any_form` holds where the grader accepts the answer, or the completion's last number is the reference:
    such an answer is wrong at most in form. The metric `failure` is the reason where answer and reference could not be
    compared (see [`schoolhouse.graders.Grade`]).

    Args:
        style (`str`, *optional*, defaults to `"hash"`):
            Form that `format_ok` asks for: `"hash"` (`#### 72`), `"boxed"` or `"think-answer"`.
        reference_scorers (`list[str]`, *optional*):
            Other projects' rules whose verdicts are metrics beside the grader's.
        shows_work (`bool`, *optional*, defaults to `False`):
            Also measure whether an equality stands in the answer.
    """

    style: Literal["hash", "boxed", "think-answer"] = "hash"
    reference_scorers: list[
        Literal["gsm8k/lm-eval-strict", "gsm8k/lm-eval-flexible", "gsm8k/official", "math-verify"]
    ] = Field(default_factory=list)
    shows_work: bool = False

    def check_row(self, row: Row, reference: str) -> str | None:
        from schoolhouse.graders.comparison import why_unreadable

        return why_unreadable(reference)

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        from schoolhouse.graders import grade_many, score_as

        references = [item.reference for item in items]
        by_others = {name: score_as(name, completions, references) for name in self.reference_scorers}
        last_number = score_as("gsm8k/lm-eval-flexible", completions, references)
        scores: list[Score] = []
        for number, grade in enumerate(grade_many(completions, references, self.style)):
            metrics: dict[str, Metric] = {name: verdicts[number] for name, verdicts in by_others.items()}
            if grade.failure:
                metrics["failure"] = grade.failure
            if self.shows_work:
                metrics["shows_work"] = " = " in completions[number]
            scores.append(
                {
                    "correct": grade.correct,
                    "extracted": grade.extracted,
                    "format_ok": grade.format_ok,
                    "right_in_any_form": None if grade.correct is None else grade.correct or last_number[number],
                    "metrics": metrics,
                }
            )
        return scores


class CodeScorer(Scorer):
    """
    Run programs in the sandbox on the row's `tests`, and on its `hidden_tests` where those pass.

    `hidden_passed` (passes the tests and the hidden ones) lies below the share of correct programs where programs were
    fitted to the tests. `hard_coded` is the share of the correct programs that hold the tests' inputs with their
    expected values ([`schoolhouse.graders.hard_coding`]). An item whose tests no program can be run on has the status
    `unsupported` and no verdict; the metric `unsupported_because` of its samples says why.
    """

    runs_programs = True

    def prepare(self) -> None:
        from schoolhouse.graders.code import shared_sandbox
        from schoolhouse.sandbox import SandboxError

        try:
            shared_sandbox()
        except SandboxError as error:
            raise ValueError(str(error)) from None

    def unsupported(self, items: Sequence[Item]) -> list[str]:
        from schoolhouse.graders.code import unsupported_reasons

        return unsupported_reasons([{"answer": item.reference, **item.row} for item in items])

    def check_row(self, row: Row, reference: str) -> str | None:
        if not row.get("tests"):
            return "column 'tests' is missing: asserts, or a function check(candidate)"
        return (
            None if row.get("entry_point") else "column 'entry_point' is missing: the name of the function asked for"
        )

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        from schoolhouse.graders.code import defines, grade_programs
        from schoolhouse.graders.hard_coding import is_hard_coded

        grades = grade_programs(completions, [item.row for item in items])
        held_back = [item.row.get("hidden_tests") for item in items]
        # A program that fails the tests is not run again.
        hidden_items = [
            {**item.row, "tests": tests if grade.passed else None}
            for item, tests, grade in zip(items, held_back, grades, strict=True)
        ]
        hidden = grade_programs(completions, hidden_items)
        return [
            {
                "correct": grade.passed,
                "format_ok": grade.status != "syntax" and defines(grade.program, item.row["entry_point"]),
                "metrics": {
                    "fraction": grade.fraction,
                    "status": grade.status,
                    "unsupported_because": grade.detail if grade.status == "unsupported" else None,
                    "hidden_passed": (beyond.passed if grade.passed else grade.passed) if tests else None,
                    "hard_coded": is_hard_coded(grade.program, item.row) if grade.passed else None,
                },
            }
            for item, grade, tests, beyond in zip(items, grades, held_back, hidden, strict=True)
        ]


class InstructionScorer(Scorer):
    """
    Check instructions by IFEval's rules (Zhou et al. 2023, "Instruction-following evaluation for large language
    models"): `correct` is prompt-level strict accuracy, the metrics are the paper's other three figures.
    """

    def prepare(self) -> None:
        if importlib.util.find_spec("langdetect") is None:
            raise ImportError(
                "the scorer instructions tells languages with langdetect: pip install 'langdetect>=1.0.9'"
            )

    def check_row(self, row: Row, reference: str) -> str | None:
        from schoolhouse.graders.instructions import check_instructions

        for column, kind in (("instruction_id_list", str), ("kwargs", dict)):
            entries = row.get(column)
            if not isinstance(entries, list) or not entries or not all(isinstance(entry, kind) for entry in entries):
                return f"column {column!r} is no list of {kind.__name__}"
        try:
            check_instructions("", row["instruction_id_list"], row["kwargs"], row["prompt"])
        except ValueError as error:
            return str(error)
        return None

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        from schoolhouse.graders.instructions import check_instructions, check_instructions_loose

        scores: list[Score] = []
        for completion, item in zip(completions, items, strict=True):
            asked = (item.row["instruction_id_list"], item.row["kwargs"], item.row["prompt"])
            strict, loose = check_instructions(completion, *asked), check_instructions_loose(completion, *asked)
            metrics: dict[str, Metric] = {
                "prompt_loose": all(loose),
                "instruction_strict": [*strict],
                "instruction_loose": [*loose],
            }
            scores.append({"correct": all(strict), "metrics": metrics})
        return scores


class RewardModelScorer(Scorer):
    """
    Score answers with a reward model, as `utility`: comparisons then have a win rate.

    Args:
        model (`str`):
            Hub id or folder of a reward model, or run folder of one that was trained here.
        base (`str`, *optional*):
            Base of an adapter, if it is elsewhere than the adapter says.
        least (`float`, *optional*, defaults to `0.0`):
            Score from which an answer counts as correct.
    """

    paths: ClassVar[tuple[str, ...]] = ("model", "base")

    model: str
    base: str | None = None
    least: float = 0.0

    def prepare(self) -> None:
        from schoolhouse.core.reward_models import is_adapter, validate_task_type

        if is_adapter(self._folders()[0]):
            for folder in self._folders():
                validate_task_type(folder, "SEQ_CLS")

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        from schoolhouse.core.reward_models import conversation_ids, load_scorer, score_ids

        scorer, tokenizer = load_scorer(self._location(), self.base)
        most = scorer.config.get_text_config().max_position_embeddings
        rows = []
        for completion, item in zip(completions, items, strict=True):
            text = response_of(completion)
            answer = text if isinstance(item.prompt, str) else [{"role": "assistant", "content": text}]
            rows.append(conversation_ids(tokenizer, item.prompt, answer)[-most:])
        values = score_ids(scorer, rows, pad_token_id=tokenizer.pad_token_id or 0).double().mean(dim=0).tolist()
        return [{"correct": value >= self.least, "metrics": {"utility": value}} for value in values]

    def _location(self) -> str:
        folder = Path(self.model)
        return next((str(folder / name) for name in ("members", "adapter") if (folder / name).is_dir()), self.model)

    def _folders(self) -> list[str]:
        from schoolhouse.core.reward_models import member_folders

        return member_folders(self._location())


class TinyFactScorer(Scorer):
    """Right if the only value that the answer names is the right one; to abstain is right where nobody could know."""

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        from schoolhouse.data.tiny.builders import DONT_KNOW
        from schoolhouse.data.tiny.world import ATTRIBUTES, towns

        values = {value for attribute in ATTRIBUTES.values() for value in attribute} | set(towns())
        scores: list[Score] = []
        for completion, item in zip(completions, items, strict=True):
            response = response_of(completion)
            named = {word.strip(".,!?") for word in response.split()} & values
            abstained = DONT_KNOW in response
            correct = abstained if item.reference == DONT_KNOW else named == {item.reference} and not abstained
            scores.append(
                {
                    "correct": correct,
                    "extracted": DONT_KNOW if abstained else " ".join(sorted(named)),
                    "format_ok": abstained or bool(named),
                    "metrics": {"abstained": abstained, "wrong_value": bool(named) and not correct},
                }
            )
        return scores


class TinyDescriptionScorer(Scorer):
    """
    Gold reward of a description, which no reward model is trained on, as `utility`.

    Args:
        least (`float`, *optional*, defaults to `2.5`):
            Utility, of at most 5.5, from which a description counts as correct: that of two warm words and a proper
            end, which nearly half of the training data's descriptions have.
    """

    least: float = 2.5

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        from schoolhouse.data.tiny.conversations import utility_for

        utilities = [
            utility_for(item.reference, response_of(text)) for text, item in zip(completions, items, strict=True)
        ]
        return [{"correct": utility >= self.least, "metrics": {"utility": utility}} for utility in utilities]


class UserScorer(Scorer):
    """
    A function of the user's own, `file.py:function`, called as `function(completion, item, **parameters)`.

    It returns `True`, `False`, `None` (no verdict), or a `dict` with `correct` and further entries, which become
    metrics unless they are fields of [`Score`].
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    function: Callable[..., Any]
    parameters: dict[str, Any] = Field(default_factory=dict)

    def score(self, completions: Sequence[str], items: Sequence[Item]) -> list[Score]:
        return [self._score(completion, item) for completion, item in zip(completions, items, strict=True)]

    def _score(self, completion: str, item: Item) -> Score:
        try:
            given = self.function(completion, item, **self.parameters)
        except Exception as error:
            raise ValueError(f"{self.name} raised {type(error).__name__}: {error}, for item {item.id}") from error
        entries = given if isinstance(given, dict) else {"correct": given}
        if "correct" not in entries or not (entries["correct"] is None or isinstance(entries["correct"], bool)):
            raise ValueError(
                f"{self.name} returned {given!r} for item {item.id}: return True, False, None, or a dict with correct"
            )
        score = Score(metrics={name: value for name, value in entries.items() if name not in Score.__annotations__})
        for name in Score.__annotations__.keys() & entries.keys() - {"metrics"}:
            score[name] = entries[name]  # type: ignore[literal-required]  # a key of Score
        return score


SCORERS: dict[str, type[Scorer]] = {
    "math": MathScorer,
    "code": CodeScorer,
    "instructions": InstructionScorer,
    "exact": ExactScorer,
    "contains": ContainsScorer,
    "choice": ChoiceScorer,
    "json": JsonScorer,
    "reward_model": RewardModelScorer,
    "tiny_fact": TinyFactScorer,
    "tiny_description": TinyDescriptionScorer,
}


def build_scorer(entry: str | dict[str, Any], folder: Path) -> Scorer:
    """
    Return the scorer that a task file names: a key of [`SCORERS`], `file.py:function`, or a mapping with one of these
    as `name`, beside the parameters.

    A relative path starts from `folder`. An unknown name or parameter is a [`ConfigError`] whose path begins with
    `scorer`.
    """
    parameters = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = parameters.pop("name", None)
    where = ("scorer",) if isinstance(entry, str) else ("scorer", "name")
    if not isinstance(name, str):
        raise ConfigError(("scorer",), f"needs a name: {', '.join(SCORERS)} or file.py:function")
    if ":" in name:
        try:
            return UserScorer(name=name, function=load_function(name, folder), parameters=parameters)
        except ValueError as error:
            raise ConfigError(where, str(error)) from None
    if name not in SCORERS:
        raise ConfigError(where, f"{name!r} is no scorer; {nearest(name, SCORERS)}; your own is file.py:function")
    for key in SCORERS[name].paths:
        if isinstance(given := parameters.get(key), str) and (folder / given).exists():
            parameters[key] = str(folder / given)
    try:
        return SCORERS[name].model_validate(parameters)
    except ValidationError as error:
        wrong = to_config_error(error, parameters, SCORERS[name])
        raise ConfigError(("scorer", *wrong.path), wrong.message) from None
