"""Text that a model or a data set wrote, made safe to show, and figures in words."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from schoolhouse.core.escape import escape_markdown


LIMIT = 2000  # characters of a text that the report shows


def visible(text: object, limit: int = LIMIT) -> str:
    """
    Write out the characters of a text that act without being seen, and cut the text to a readable length.

    Args:
        text (`object`):
            Anything; its `str` is taken.
        limit (`int`, *optional*, defaults to `2000`):
            Characters kept; a note says how many there were.

    Returns:
        `str`: control and format characters (among them those that change the direction of writing), lone surrogates
        and unassigned code points as `<U+202E>`; line ends and tabs stay.
    """
    text = str(text)
    shown = "".join(
        character
        if character in "\n\t" or not unicodedata.category(character).startswith(("C", "Zl", "Zp"))
        else f"<U+{ord(character):04X}>"
        for character in text[:limit]
    )
    return shown if len(text) <= limit else f"{shown} … [cut: {len(text):,} characters in all]"


def html_text(value: object, limit: int = LIMIT) -> Markup:
    """Escape a value for HTML, in an element or a quoted attribute; [`visible`] is applied first."""
    return value if isinstance(value, Markup) else escape(visible(value, limit))


def markdown_text(value: object, limit: int = LIMIT) -> Markup:
    """Escape a value for one line or table cell of Markdown: no markup, no HTML, no line end, no link."""
    if isinstance(value, Markup):
        return value
    return Markup(escape_markdown(" ".join(visible(value, limit).split())))


def number(value: Any) -> str:
    """Format a figure with at most four digits; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value) if isinstance(value, bool) else f"{value:,}"
    if value == 0 or 0.001 <= abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:.1g}" if abs(value) < 0.001 else f"{value:.4g}"


def interval(ends: Sequence[float] | None) -> str:
    """Format an interval in brackets; `no interval` for none."""
    return f"[{number(ends[0])}, {number(ends[1])}]" if ends else "no interval"


def percent_interval(ends: Sequence[float]) -> str:
    """Format an interval of shares in percent."""
    return f"[{ends[0]:.0%}, {ends[1]:.0%}]"


def p_value(p: float) -> str:
    """Format a p-value with its sign of relation, never as 0."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
