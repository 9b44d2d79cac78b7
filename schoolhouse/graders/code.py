"""Grades of programs: find the code in a completion and run tests on it in the sandbox.

The same verdict scores an eval and becomes a reward. The program is run as it was found; nothing is repaired.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schoolhouse.graders.program import defines, extract_program
from schoolhouse.sandbox import Job, Sandbox
from schoolhouse.sandbox.prepared_tests import empty_program


__all__ = [
    "CodeGrade", "defines", "extract_program", "grade_programs", "sandbox_layers", "shared_sandbox",
    "unsupported_reasons",
]  # fmt: skip

TIMEOUT_S = 5.0  # the slowest reference solution, MBPP's 123, took 2.4 s: room for a machine half as fast


@dataclass(frozen=True, slots=True)
class CodeGrade:
    """
    Verdict on one completion.

    Args:
        passed (`bool` or `None`): Whether every test passed; `None` where there are no tests, where the tests cannot
            be run against any program (`unsupported`), or where the sandbox failed (`sandbox_error`).
        fraction (`float` or `None`): Share of the tests that passed; `None` where `passed` is.
        status (`str`): One of `schoolhouse.sandbox.types.STATUSES`.
        program (`str`): The text that was run.
        detail (`str`): One line on the verdict. It may quote the program: escape it where it is shown.
    """

    passed: bool | None
    fraction: float | None
    status: str
    program: str
    detail: str = ""


def grade_programs(
    completions: Sequence[str], items: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S
) -> list[CodeGrade]:
    """
    Grade completions by the tests of their items. Safe from any thread and in forked children.

    Args:
        completions (`Sequence[str]`):
            Texts that a model generated.
        items (`Sequence[Mapping[str, Any]]`):
            For each completion `tests` (`str` or `list[str]`: `assert` statements, or a function `check(candidate)`)
            and optionally `entry_point` (read from the tests by default), `prelude` (trusted code to run before) and
            `stub` (the beginning of a function that a completion may continue).
        timeout_s (`float`, *optional*, defaults to `5.0`):
            CPU seconds for one program.

    Returns:
        `list[CodeGrade]`: in order.

    Raises:
        ValueError: For lists of different lengths, or tests that name no function.
        SandboxError: Where programs cannot be run safely.
    """
    if len(completions) != len(items):
        raise ValueError(f"{len(completions)} completions came with {len(items)} items: pass one item each")
    grades: list[CodeGrade] = []
    jobs: dict[int, Job] = {}
    for completion, item in zip(completions, items, strict=True):
        job = job_of("", item, timeout_s) if item.get("tests") else None
        entry_point = job.entry_point if job else item.get("entry_point") or ""
        program = extract_program(completion, item.get("stub"), entry_point)
        if job:
            jobs[len(grades)] = dataclasses.replace(job, program=program)
        grades.append(CodeGrade(None, None, "unsupported", program))
    if jobs:
        for index, verdict in zip(jobs, shared_sandbox().run(list(jobs.values())), strict=True):
            grades[index] = CodeGrade(
                verdict.passed, verdict.fraction, verdict.status, grades[index].program, verdict.detail
            )
    return grades


def unsupported_reasons(items: Sequence[Mapping[str, Any]], timeout_s: float = TIMEOUT_S) -> list[str]:
    """
    Find the items on whose tests no program can be graded, by running the reference solution in `answer`, or an empty
    program where there is none.

    Args:
        items (`Sequence[Mapping[str, Any]]`):
            As in [`grade_programs`], with `answer` (`str`, *optional*), a program that passes.
        timeout_s (`float`, *optional*, defaults to `5.0`):
            CPU seconds for one program.

    Returns:
        `list[str]`: for each item the reason, `""` where programs can be graded.
    """
    reasons = [""] * len(items)
    for index, item in enumerate(items):
        try:
            job_of("", item, timeout_s)
        except ValueError as error:
            reasons[index] = str(error)
    known = [index for index, reason in enumerate(reasons) if not reason]
    answers = [items[index].get("answer") for index in known]
    programs = [
        answer if answer and isinstance(answer, str) else empty_program(job_of("", items[index], timeout_s))
        for index, answer in zip(known, answers, strict=True)
    ]
    grades = grade_programs(programs, [items[index] for index in known], timeout_s)
    for index, answer, grade in zip(known, answers, grades, strict=True):
        if grade.status == "unsupported":
            reasons[index] = grade.detail
        elif answer and grade.passed is False:
            reasons[index] = f"the reference solution fails its tests: {grade.status}, {grade.detail}"
    return reasons


def job_of(program: str, item: Mapping[str, Any], timeout_s: float) -> Job:
    """Return the run of a program on the tests of an item; `ValueError` where they name no function."""
    tests = item.get("tests") or ""
    tests = tests if isinstance(tests, str) else "\n".join(tests)
    return Job(program, tests, item.get("entry_point") or "", item.get("prelude") or "", timeout_s=timeout_s)


@functools.cache
def shared_sandbox() -> Sandbox:
    """
    Return the sandbox of this process, which starts at the first call and ends with the process. `SandboxError` where
    programs cannot be run safely.
    """
    # No lock, since a fork could copy it while it is held: if two threads start at once, one of the two sandboxes
    # lives only for its first batch.
    return Sandbox()


def sandbox_layers() -> dict[str, bool] | None:
    """Return the layers of isolation that programs of this process ran behind, and those off; `None` if none ran."""
    if not shared_sandbox.cache_info().currsize:
        return None
    return {name: bool(value) for name, value in shared_sandbox().layers.items()}
