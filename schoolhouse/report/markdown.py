"""The card as Markdown, for a terminal, a pull request or a model card."""

from schoolhouse.report import plots
from schoolhouse.report.summary import Card, change_words, p_value, provenance
from schoolhouse.report.text import in_markdown, interval, number


def render(card: Card) -> str:
    """
    The same card without plots and samples.

    Args:
        card ([`schoolhouse.report.summary.Card`]):
            What it shows.

    Returns:
        `str`: Markdown in which no text of a model is markup.
    """
    chain = (
        f"{in_markdown(x.name)} (after {in_markdown(x.parent)})" if x.parent else in_markdown(x.name)
        for x in card.stages
    )
    lines = [f"# Report card: {in_markdown(card.name)}", "", ", ".join(chain), ""]
    lines += ["## What changed", ""]
    lines.append(
        f"{len(card.changed('improved'))} improved, {len(card.changed('worse'))} worse, {len(card.changed('none'))} "
        f"without evidence of change. p-values are adjusted by Holm over all {len(card.changes)} tests of this card."
    )
    lines.append("")
    for kind, mark in (("worse", "▼"), ("improved", "▲"), ("none", "=")):
        lines += [
            f"- {mark} **{in_markdown(stage)}, {in_markdown(task)}: {change.verdict}**: "
            + in_markdown(change_words(change), 1000)
            for stage, task, change in card.changed(kind)
        ]
    lines += ["", "## Every stage, every task", "", _row("stage", *map(in_markdown, card.tasks))]
    lines.append(_row(*["---"] * (len(card.tasks) + 1)))
    for stage in card.stages:
        lines.append(_row(in_markdown(stage.name), *(_cell(card, stage, task) for task in card.tasks)))
    if told := [words for stage in card.stages if (words := plots.goodhart_words(stage))]:
        lines += ["", "## Goodhart", "", *(f"- {in_markdown(words, 1000)}" for words in told)]
    for name, rows in plots.judge_facts(card.stages):
        lines += ["", f"## Reward model: {in_markdown(name)}", ""]
        lines += [f"- {what}: {in_markdown(value)}" for what, value in rows]
    lines += ["", "## Audit of reward hacking", "", "An audit, not an alarm: counts for a person to look at.", ""]
    lines += [_row("stage", "task", "looked for", "found", "example"), _row(*["---"] * 5)]
    for finding in card.findings:
        example = in_markdown(finding.examples[0]["completion"], 120) if finding.examples else ""
        found = f"{finding.count} of {finding.of}" + (f"; {finding.note}" if finding.note else "")
        lines.append(_row(*map(in_markdown, (finding.stage, finding.task, finding.what, found)), example))
    lines += ["", "## Provenance", ""]
    for stage in card.stages:
        lines.append(f"### {in_markdown(stage.name)}\n")
        lines += [f"- {what}: {in_markdown(value, 2000)}" for what, value in provenance(stage)] + [""]
    lines += ["## Missing and unequal", ""]
    lines += [f"- {in_markdown(note, 1000)}" for note in card.notes] or ["Nothing is missing."]
    return "\n".join(lines) + "\n"


def _cell(card: Card, stage, task: str) -> str:
    if (result := stage.tasks.get(task)) is None:
        return "-"
    words = f"{number(result['value'])} {interval(result['interval'])}"
    if change := card.changes.get((stage.name, task)):
        words += f"; {change.test['difference']:+.3f}, {p_value(change.p_adjusted)}: {change.verdict}"
    return in_markdown(words)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
