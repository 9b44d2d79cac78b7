"""Text that a model or a data set wrote, made safe to show."""

import html
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any


LIMIT = 2000  # characters of a text that the card shows
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")


def visible(text: object, limit: int = LIMIT) -> str:
    """
    A text without characters that act unseen, and not longer than can be read.

    Args:
        text (`object`):
            Anything; its `str` is taken.
        limit (`int`, *optional*, defaults to `2000`):
            Characters kept; the note says how many there were.

    Returns:
        `str`: control and format characters (among them the marks that turn the direction of writing), lone surrogates
        and unassigned code points as `<U+202E>`; line ends and tabs stay.
    """
    text = str(text)
    cut = text[:limit]
    shown = "".join(
        character
        if character in "\n\t" or not unicodedata.category(character).startswith(("C", "Zl", "Zp"))
        else f"<U+{ord(character):04X}>"
        for character in cut
    )
    return shown if len(text) <= limit else f"{shown} … [cut: {len(text):,} characters in all]"


def escaped(text: object, limit: int = LIMIT) -> str:
    """A text for HTML, in an element or a quoted attribute; see [`visible`]."""
    return html.escape(visible(text, limit), quote=True)


def in_markdown(text: object, limit: int = 200) -> str:
    """A text for one line or one table cell of Markdown: no markup, no HTML, no line end; see [`visible`]."""
    line = " ".join(visible(text, limit).split())
    return _MARKUP.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def in_script(value: Any) -> str:
    """JSON for a `<script type="application/json">`: no character of it can end the element or begin a comment."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def number(value: Any) -> str:
    """A figure in at most four digits; `-` for none."""
    if value is None or isinstance(value, bool):
        return "-" if value is None else str(value)
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.3f}"
        if value == 0 or 0.001 <= abs(value) < 10
        else f"{value:.1g}"
        if abs(value) < 0.001
        else f"{value:.4g}"
    )


def interval(ends: Sequence[float] | None) -> str:
    """An interval in brackets; `no interval` for none."""
    return f"[{number(ends[0])}, {number(ends[1])}]" if ends else "no interval"
