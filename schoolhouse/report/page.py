"""The card as one HTML page: nothing is loaded, and no text of a model becomes markup or runs."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schoolhouse.report import browser, charts, plots
from schoolhouse.report.browser import is_short
from schoolhouse.report.changes import Change
from schoolhouse.report.summary import Card, change_words, p_value, percent, provenance
from schoolhouse.report.text import escaped, in_script, interval, number


SIGNS = {"improved": "▲", "worse": "▼", "none": "="}
WITHOUT_SCRIPT = 6  # prompts of each page without JavaScript, and in print
_HERE = Path(__file__).parent


def render(card: Card) -> str:
    """
    The page.

    Args:
        card ([`schoolhouse.report.summary.Card`]):
            What it shows.

    Returns:
        `str`: HTML. Its policy lets no script run but the one whose hash it names, and nothing be fetched.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    sections = [
        ("changes", "What changed", _changes(card)),
        ("table", "Every stage, every task", _table(card)),
        ("levels", "Accuracy by level", _levels(card)),
        ("training", "Training", _figures(plots.training_curves(card.stages), "No training log was found.")),
        ("passk", "pass@k", _figures(plots.pass_at_k(card.stages), "No task has several samples per item.")),
        ("judged", "Win rate", _win_rates(card)),
        ("goodhart", "Goodhart", _goodhart(card)),
        ("calibration", "Reward model", _judges(card)),
        ("samples", "Samples", _samples(browser.choose(card.stages))),
        ("audit", "Audit of reward hacking", _audit(card)),
        ("provenance", "Provenance", _provenance(card)),
        ("missing", "Missing and unequal", _notes(card)),
    ]
    links = " ".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{title}</h2>{inside}</section>' for key, title, inside in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Report card: {escaped(card.name, 80)}</title><style>{style}</style></head><body>"
        '<a class="skip" href="#changes">Skip to the results</a>'
        f"<header><h1>Report card: {escaped(card.name, 80)}</h1>"
        f"{_chain(card)}</header>"
        f'<nav aria-label="Sections">{links}</nav><main>{body}</main>'
        f"<script>{script}</script></body></html>\n"
    )


def _changes(card: Card) -> str:
    counts = {kind: len(card.changed(kind)) for kind in ("worse", "improved")}
    told = ", ".join(f"<strong{f' class={kind}' * bool(n)}>{n} {kind}</strong>" for kind, n in counts.items())
    lead = (
        f"<p>{told}, {len(card.changed('none'))} without evidence of change. "
        "Each stage against its parent on the same items; p-values adjusted by Holm over all "
        f"{len(card.changes)} tests of this card: where nothing changed, at most 5 % of such cards flag anything.</p>"
    )
    items = "".join(
        f'<li class="{kind}"><div><strong class="{kind}">{SIGNS[kind]} {escaped(stage, 60)}, {escaped(task, 60)}: '
        f"{change.verdict}</strong><small>{escaped(change_words(change))}</small></div>{_bar(card, task, change)}</li>"
        for kind in ("worse", "improved", "none")
        for stage, task, change in card.changed(kind)
    )
    key = '<p class="soft">Bars: the difference with its 95 % interval; the upright line is no change.</p>'
    return lead + (f'{key}<ul class="changes">{items}</ul>' if items else _none("Nothing could be compared."))


def _bar(card: Card, task: str, change: Change) -> str:
    """The difference on an axis that all tasks of its unit share."""

    def is_share(name: str) -> bool:
        return all(stage.tasks[name].get("higher_is_better", True) for stage in card.stages if name in stage.tasks)

    tests = [other.test for (_, name), other in card.changes.items() if is_share(name) == is_share(task)]
    reach = max(abs(end) for test in tests for end in (*test["interval"], test["difference"])) or 1.0
    return charts.interval_bar(change.test["difference"], *change.test["interval"], (-reach, reach), 0, change.kind)


def _chain(card: Card) -> str:
    """The stages in order, each with what it goes on from."""
    items = []
    for stage in card.stages:
        seconds = stage.run.get("seconds", stage.about.get("seconds"))
        recipe = stage.about.get("recipe")
        facts = [str(recipe)] if recipe else []
        facts += [_after(stage.parent)] if stage.parent else []
        facts += [f"{seconds:,.0f} s"] if stage.parent and isinstance(seconds, int | float) else []
        items.append(
            f"<li><b>{escaped(stage.name, 60)}</b><small>{' · '.join(facts) or 'where it began'}</small></li>"
        )
    return f'<ol class="chain">{"".join(items)}</ol>'


def _levels(card: Card) -> str:
    maps = "".join(plots.levels(card.stages))
    return f'<div class="maps">{maps}</div>' if maps else _none("No task with levels.")


def _win_rates(card: Card) -> str:
    items = []
    for (stage, task), change in card.changes.items():
        if not (rate := change.test["win_rate"]):
            continue
        parent = next(other.parent for other in card.stages if other.name == stage)
        for words, key in (("all pairs", "value"), ("at equal length", "length_controlled")):
            ends = rate["interval" if key == "value" else "length_controlled_interval"]
            kind = "improved" if ends[0] > 0.5 else "worse" if ends[1] < 0.5 else "none"
            items.append(
                f'<li class="{kind}"><div><strong class="{kind}">{escaped(stage, 60)} against '
                f"{escaped(str(parent), 60)}, {escaped(task, 60)}, {words}: {rate[key]:.0%}</strong><small>"
                f"95 % interval {percent(ends)}, {rate['n']} questions</small></div>"
                f"{charts.interval_bar(rate[key], *ends, (0, 1), 0.5, kind)}</li>"
            )
    lead = (
        '<p class="soft">How often the judge prefers a stage to its parent; the upright line is a draw. Intervals are '
        "of each rate alone, not adjusted for their number.</p>"
    )
    return f'{lead}<ul class="changes">{"".join(items)}</ul>' if items else _none("No task has a judge's utility.")


def _goodhart(card: Card) -> str:
    words = "".join(f"<p>{escaped(line)}</p>" for stage in card.stages if (line := plots.goodhart_words(stage)))
    lead = (
        '<p class="soft">Optimised long enough, a proxy parts from what it stands for. Shaded: the 95 % interval of '
        "where gold is highest.</p>"
    )
    figures = plots.goodhart(card.stages)
    return lead + words + _figures(figures, "") if figures else _none("No stage kept a Goodhart gauge.")


def _judges(card: Card) -> str:
    tables = "".join(
        f'<table class="facts"><caption>{escaped(name, 120)}</caption>'
        + "".join(f'<tr><th scope="row">{escaped(what)}</th><td>{escaped(value)}</td></tr>' for what, value in rows)
        + "</table>"
        for name, rows in plots.judge_facts(card.stages)
    )
    figures = "".join(plots.calibration(card.stages))
    return (
        f'<div class="beside">{figures}<div>{tables}</div></div>'
        if tables
        else _none("No reward model was evaluated.")
    )


def _table(card: Card) -> str:
    heads = "".join(f'<th scope="col">{escaped(task, 60)}</th>' for task in card.tasks)
    rows = "".join(
        f'<tr><th scope="row">{escaped(stage.name, 60)}<small>{_after(stage.parent)}</small></th>'
        + "".join(_cell(card, stage, task) for task in card.tasks)
        + "</tr>"
        for stage in card.stages
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results"><table class="results"><caption>'
        "Value with its 95 % interval, and the change against the parent stage.</caption><thead><tr>"
        f'<th scope="col">Stage</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _after(parent: str | None) -> str:
    return f"after {escaped(parent, 60)}" if parent else "where it began"


def _cell(card: Card, stage: Any, task: str) -> str:
    label = f'data-label="{escaped(task, 60)}"'
    if (result := stage.tasks.get(task)) is None:
        return f'<td {label} class="absent">-</td>'
    parts = [
        f"<b>{number(result['value'])}</b> <small class=fit>{interval(result['interval'])}, n = {result['n']}</small>"
    ]
    if not result.get("higher_is_better", True):
        parts.append("<small>less is better</small>")
    if change := card.changes.get((stage.name, task)):
        parts.append(
            f'<small class="fit {change.kind}">{SIGNS[change.kind]} {change.test["difference"]:+.3f}, '
            f"{p_value(change.p_adjusted)}</small>"
        )
        if change.kind == "none":
            parts.append(f"<small>{escaped(change.verdict)}</small>")
        form = change.test["form"]
        if form and form["share"] is not None:
            parts.append(f"<small>form share of the gain {form['share']:.0%}</small>")
    return f"<td {label}>{''.join(parts)}</td>"


def _samples(rows: Sequence[dict[str, Any]]) -> str:
    filters = (
        '<form id="filters" hidden><label>Task<select name="task"><option value="">all</option></select></label>'
        '<label>Stage<select name="stage"><option value="">any</option></select></label><label>Answer<select '
        'name="verdict"><option value="">any</option><option value="fixed">fixed by this stage</option><option value='
        '"broken">broken by this stage</option><option>right</option><option>wrong</option><option>ungraded</option>'
        '</select></label><output id="samples-count"></output></form>'
    )
    shown = "".join(_sample(row) for row in _spread(rows))
    return (
        '<p class="soft">The same prompts answered by every stage; those whose verdict changed come first. Long '
        "text is cut, and characters that act unseen are written out as &lt;U+…&gt;.</p>"
        f'{filters}<div id="samples-list" aria-live="polite">{shown or _none("No completions were found.")}</div>'
        f'<script type="application/json" id="samples-data">{in_script(rows)}</script>'
    )


def _spread(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first prompts of every task in turn."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    each = max(1, WITHOUT_SCRIPT // max(1, len(tasks)))
    return [row for task in tasks for row in [row for row in rows if row["task"] == task][:each]]


def _sample(row: dict[str, Any]) -> str:
    answers = "".join(
        f'<div class="answer"><p class="who"><strong>{escaped(answer["stage"])}</strong> '
        f'<span class="verdict {answer["verdict"]}">{answer["verdict"]}</span>'
        + (
            f' <span class="verdict {answer["change"]}">{answer["change"]} by this stage</span>'
            if answer["change"]
            else ""
        )
        + f"</p><pre>{escaped(answer['text'], 10_000)}</pre></div>"
        for answer in row["answers"]
    )
    return (
        f'<article class="sample"><h4>{escaped(row["task"])} · {escaped(row["id"])}</h4>'
        f'<pre class="prompt">{escaped(row["prompt"], 10_000)}</pre><div class="answers">{answers}</div>'
        f"{_gold(row['gold'])}</article>"
    )


def _gold(text: str) -> str:
    if is_short(text):
        return f'<p class="gold">Gold answer: <code>{escaped(text)}</code></p>'
    return f"<details><summary>Gold answer</summary><pre>{escaped(text, 10_000)}</pre></details>"


def _audit(card: Card) -> str:
    lead = (
        "<p>An audit, not an alarm: counts of what reward hacking often looks like, for a person to read. Honest "
        "answers are among them, and hacks of another kind are not.</p>"
    )
    rows = "".join(
        f'<tr><th scope="row">{escaped(finding.stage, 60)}</th><td data-label="task">{escaped(finding.task, 60)}</td>'
        f'<td data-label="looked for">{finding.what}</td><td data-label="found">{finding.count} of {finding.of}'
        f"<small>{escaped(finding.note)}</small>{_examples(finding.examples)}</td></tr>"
        for finding in card.findings
        if finding.count or finding.note
    )
    clear = [f"{x.stage} {x.task}: {x.what} (0 of {x.of})" for x in card.findings if not (x.count or x.note)]
    nothing = "".join(f"<li>{escaped(line)}</li>" for line in clear)
    return (
        lead
        + (
            '<div class="scroll" tabindex="0" role="region" aria-label="Audit"><table class="results"><thead><tr>'
            '<th scope="col">Stage</th><th scope="col">Task</th><th scope="col">Looked for</th>'
            f'<th scope="col">Found</th></tr></thead><tbody>{rows}</tbody></table></div>'
            if rows
            else _none("Nothing was found.")
        )
        + (f"<details><summary>Looked for and not found ({len(clear)})</summary><ul>{nothing}</ul></details>")
    )


def _examples(lines: Sequence[dict[str, Any]]) -> str:
    shown = "".join(
        f"<h4>{escaped(line.get('id', ''), 80)}</h4><pre>{escaped(line['completion'], 600)}</pre>" for line in lines
    )
    return f"<details><summary>Examples</summary>{shown}</details>" if shown else ""


def _provenance(card: Card) -> str:
    parts = []
    for stage in card.stages:
        rows = "".join(
            f'<tr><th scope="row">{escaped(what, 60)}</th><td>{escaped(value)}</td></tr>'
            for what, value in provenance(stage)
        )
        parts.append(
            f"<details><summary>{escaped(stage.name, 60)}</summary><table>{rows}</table></details>"
            if rows
            else _none(f"{escaped(stage.name, 60)}: nothing recorded.")
        )
    return "".join(parts)


def _notes(card: Card) -> str:
    items = "".join(f"<li>{escaped(note)}</li>" for note in card.notes)
    return f"<ul>{items}</ul>" if items else _none("Nothing is missing.")


def _figures(figures: Sequence[str], otherwise: str) -> str:
    return f'<div class="figures">{"".join(figures)}</div>' if figures else _none(otherwise)


def _none(sentence: str) -> str:
    return f'<p class="soft">{sentence}</p>'
