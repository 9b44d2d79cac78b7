"""Render a report as one HTML page that loads nothing, and as Markdown."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from schoolhouse.report import charts, figures, text
from schoolhouse.report.contents import Report, facts, provenance
from schoolhouse.report.samples import choose_prompts, without_script


_SIGNS = {"improved": Markup("▲"), "worse": Markup("▼"), "none": Markup("=")}


def render_html(report: Report) -> str:
    """
    Render the page.

    Args:
        report ([`schoolhouse.report.contents.Report`]):
            Its contents.

    Returns:
        `str`: HTML. Its policy allows the one script and the one style sheet whose hashes it names, and no request.
    """
    style, script = Markup(_template("page.css")), Markup(_template("page.js"))
    prompts = choose_prompts(report.stages)
    return (
        _environment(text.html_text)
        .get_template("report.html.jinja")
        .render(
            report=report,
            explained=set(),
            style=style,
            script=script,
            style_hash=_content_hash(style),
            script_hash=_content_hash(script),
            provenances={stage.name: rows for stage in report.stages if (rows := provenance(stage))},
            plots=figures.dot_plots(report),
            levels=figures.levels(report.stages),
            training=figures.training_curves(report.stages),
            pass_at_k=figures.pass_at_k(report.stages),
            overoptimization=figures.overoptimization(report.stages),
            calibration=figures.calibration(report.stages),
            prompts=[asdict(prompt) for prompt in prompts],
            without_script=without_script(prompts),
        )
    )


def render_markdown(report: Report) -> str:
    """
    Render the same report without charts and samples.

    Args:
        report ([`schoolhouse.report.contents.Report`]):
            Its contents.

    Returns:
        `str`: Markdown for a terminal, a pull request or a model card.
    """
    return _environment(text.markdown_text).get_template("report.md.jinja").render(report=report)


@cache  # with its compiled templates
def _environment(escape: Callable[..., Markup]) -> Environment:
    """Templates in which every value is escaped: `finalize` sees all that a template prints, `Markup` passes."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters |= {
        "cut": escape,  # with a limit of characters
        "explain": text.explain,
        "duration": text.duration,
        "number": text.number,
        "interval": text.interval,
        "percent_interval": text.percent_interval,
        "signed_interval": text.signed_interval,
        "p_value": text.p_value,
        "signed": "{:+.3f}".format,
        "percent": "{:.0%}".format,
        "sign": _SIGNS.__getitem__,
    }
    environment.globals |= {
        "terms": text.TERMS,
        "facts": facts,
        "provenance": provenance,
        "tick_label": charts.tick_label,
        "overoptimization_sentences": figures.overoptimization_sentences,
        "reward_model_tables": figures.reward_model_tables,
    }
    return environment


def _template(name: str) -> str:
    return (files("schoolhouse.report") / "templates" / name).read_text(encoding="utf-8")


def _content_hash(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
