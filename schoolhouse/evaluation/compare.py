"""Two results side by side: did it get better, and was it only the form?"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from schoolhouse.evaluation.results import item_values, read_results, read_samples
from schoolhouse.evaluation.statistics import PairedTest, WinRate, holm, mcnemar_exact, paired_bootstrap, win_rate


LEVEL = 0.05  # of the tests of all tasks together


def compare_runs(before: str | Path, after: str | Path, family: int | None = None) -> dict[str, Any]:
    """
    Paired tests of all tasks that two results share.

    One sample per item: exact McNemar; several samples, likelihoods of text or items that share a source: paired
    bootstrap. p-values are adjusted over the tasks by Holm, and the smallest detectable effect is that of his first
    and strictest step. Items without a verdict on either side are left out on both and counted.

    Args:
        before (`str` or `Path`):
            Folder with results.json and samples.
        after (`str` or `Path`):
            The same of the other model.
        family (`int`, *optional*):
            Number of tests whose level the smallest detectable effects share; the tasks in common if not given.

    Returns:
        `dict`: `before`, `after`, `notes` (what makes the comparison less than fair) and `tasks`: name -> the fields
        of [`PairedTest`], `method`, `p_adjusted`, `verdict`, `left_out` (items), `form` (from
        [`form_share`]), `win_rate` (from [`judged_win_rate`]), `uncontaminated` (the unadjusted test on the items that
        share nothing with the training data, where either result knows it and some are shared) and `metrics` (name ->
        before and after).

    Raises:
        ValueError: if the results share no task, or a task's version or items differ.
    """
    first, second = read_results(before), read_results(after)
    names = [name for name in first["tasks"] if name in second["tasks"]]
    if not names:
        raise ValueError(
            f"no task in common: {before} has {', '.join(first['tasks'])}; {after} has {', '.join(second['tasks'])}"
        )
    tests: dict[str, PairedTest] = {}
    tasks: dict[str, dict[str, Any]] = {}
    for name in names:
        old, new = first["tasks"][name], second["tasks"][name]
        if old["version"] != new["version"]:
            raise ValueError(f"task {name} has version {old['version']} in {before} and {new['version']} in {after}")
        samples = read_samples(before, name), read_samples(after, name)
        _check_items(name, *samples)
        tests[name], method = _test(*samples, family=family or len(names))
        contaminated = {line["id"] for lines in samples for line in lines if line.get("contaminated")}
        others = [[line for line in lines if line["id"] not in contaminated] for lines in samples]
        tasks[name] = {
            "method": method,
            "uncontaminated": asdict(_test(*others, family=1)[0]) if contaminated and all(others) else None,
            "left_out": len({line["id"] for line in samples[0]}) - tests[name].n,
            "form": form_share(*samples),
            "win_rate": asdict(rate) if (rate := judged_win_rate(*samples)) else None,
            "metrics": {
                metric: [old["metrics"][metric], new["metrics"][metric]]
                for metric in old["metrics"]
                if metric in new["metrics"]
            },
        }
    for name, p_value in holm({name: test.p_value for name, test in tests.items()}).items():
        verdict = replace(tests[name], p_value=p_value).verdict().split(" (")[0]
        tasks[name] = asdict(tests[name]) | {"p_adjusted": p_value, "verdict": verdict} | tasks[name]
    return {"before": str(before), "after": str(after), "notes": _notes(first, second), "tasks": tasks}


def form_share(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> dict[str, float | None] | None:
    r"""
    How much of a gain came from items whose failure before was one of form only.

    Let $a_i$ and $b_i$ be the share of an item's samples that are correct before and after, and $f_i$ the share that
    before was right in some form but not accepted. The item gained $g_i = \max(0, b_i - a_i)$, and of that $\min(g_i,
    f_i)$ took no more than the form. With one sample per item these are counts: the items won, and those among them
    that had the right answer in the wrong form. Lost items are left out: they have no form to thank.

    Args:
        before (`Sequence[dict]`):
            Samples of one task.
        after (`Sequence[dict]`):
            Samples of the same items.

    Returns:
        `dict` or `None`: `gained` (items), `by_form` (items) and their ratio `share` (`None` where nothing was
        gained); `None` for a task that does not tell form from content.
    """
    if "right_in_any_form" not in before[0]:
        return None
    first, second = item_values(before), item_values(after)
    in_any_form = item_values([line | {"correct": line["right_in_any_form"]} for line in before])
    gains = {name: max(0.0, second[name] - first[name]) for name in first.keys() & second.keys()}
    gained = sum(gains.values())
    by_form = sum(min(gain, max(0.0, in_any_form[name] - first[name])) for name, gain in gains.items())
    return {"gained": gained, "by_form": by_form, "share": by_form / gained if gained else None}


def judged_win_rate(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> WinRate | None:
    """
    How often the second model's answer is judged better than the first one's to the same item.

    Args:
        before (`Sequence[dict]`):
            Samples of one task.
        after (`Sequence[dict]`):
            Samples of the same items.

    Returns:
        [`WinRate`] or `None`: `None` unless the task's scorer gives a `utility`, and for items of a
        single source. Lengths are tokens.
    """
    if any("utility" not in line.get("metrics", {}) for line in (*before, *after)):
        return None
    sources = {line["id"]: line.get("cluster", line["id"]) for line in before}
    if len(set(sources.values())) < 2:
        return None
    scores, lengths = ([{name: [] for name in sources} for _ in range(2)] for _ in range(2))
    for side, lines in enumerate((before, after)):
        for line in lines:
            scores[side][line["id"]].append(line["metrics"]["utility"])
            lengths[side][line["id"]].append(line["tokens"])
    sides = [list(answers.values()) for answers in (*scores, *lengths)]
    return win_rate(*sides, clusters=list(sources.values()))


def _test(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], family: int) -> tuple[PairedTest, str]:
    first, second = item_values(before), item_values(after)
    names = [name for name in first if name in second]
    old, new = [first[name] for name in names], [second[name] for name in names]
    sources = {line["id"]: line.get("cluster", line["id"]) for line in before}
    clusters = [sources[name] for name in names]
    is_text = "bits" in before[0]
    is_binary = not is_text and len(before) == len(after) == len(sources) and len(set(clusters)) == len(names)

    def test(level: float) -> PairedTest:
        if is_binary:
            return mcnemar_exact([value == 1 for value in old], [value == 1 for value in new], confidence=1 - level)
        return paired_bootstrap(old, new, confidence=1 - level, clusters=clusters, higher_is_better=not is_text)

    result = replace(test(LEVEL), smallest_detectable_effect=test(LEVEL / family).smallest_detectable_effect)
    if is_text:
        # The values are linearised for the sake of the spread; whether a document got better its own bits say.
        bits = {line["id"]: line["bits"] for line in after}
        changes = [bits[line["id"]] - line["bits"] for line in before]
        result = replace(result, gained=sum(x < 0 for x in changes), lost=sum(x > 0 for x in changes))
    return result, "exact McNemar" if is_binary else "paired bootstrap"


def _check_items(name: str, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> None:
    first, second = ({line["id"]: (line["prompt"], line["reference"]) for line in lines} for lines in (before, after))
    if lone := [*(first.keys() - second.keys()), *(second.keys() - first.keys())]:
        raise ValueError(
            f"task {name}: {len(first)} items before and {len(second)} after, {min(lone)!r} on one side only: "
            "evaluate both on the same data with the same limit"
        )
    if changed := [item for item in first if first[item] != second[item]]:
        raise ValueError(
            f"task {name}: item {changed[0]!r} has another prompt or reference: evaluate both on the same data"
        )


def _notes(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    notes = []
    for key, what in (("model", "base models"), ("chat_template", "chat templates")):
        if first["hashes"][key] != second["hashes"][key]:
            notes.append(f"the {what} differ")
    for key, old in first["sampling"].items():
        if old != (new := second["sampling"].get(key)):
            notes.append(f"{key} differs: {old} before, {new} after")
    for name in first["tasks"].keys() & second["tasks"].keys():
        for key in ("max_new_tokens", "sampling"):
            old, new = (results["tasks"][name].get(key) for results in (first, second))
            if old != new:
                notes.append(f"{key} of {name} differs: {old} before, {new} after")
    for when, side, other in (("before", first, second), ("after", second, first)):
        if lone := [name for name in side["tasks"] if name not in other["tasks"]]:
            notes.append(f"only {when}: {', '.join(lone)}")
    return notes
