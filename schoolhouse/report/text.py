"""Text that a model or a data set wrote, made safe to show; figures in words; terms explained."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from schoolhouse.core.escape import escape_markdown


LIMIT = 2000  # characters of a text that the report shows
# Words of the field -> what they mean, for a reader who does not know them.
TERMS = {
    "accuracy": "share of the items answered right, or of all answers to them; higher is better, 1 is all",
    "bits per byte": "bits that the model needs to encode a byte of held-out text; lower is better",
    "95 % interval": "values that the data do not contradict: of 100 such intervals, 95 hold the true value",
    "p-values": "how often chance alone would show a difference this large if nothing had changed",
    "Holm": "a correction for many tests: with it, the chance that any test of the report raises a false alarm is at "
    "most 5 %",
    "smallest detectable effect": "the smallest true difference that so many items would have shown in 4 of 5 cases; "
    "a smaller one may be there",
    "parent": "the stage whose adapter this stage went on from; the base model where it began anew",
    "items": "questions, texts or pairs of a task",
    "pretrain": "training on plain text",
    "sft": "supervised fine-tuning: the model imitates worked answers",
    "grpo": "group relative policy optimization: reinforcement learning from answers that a program can check",
    "ppo": "proximal policy optimization: reinforcement learning, here from the scores of a reward model",
    "reward model": "a model that scores answers, trained on pairs of a better and a worse answer",
    "reward": "the number that training raises: a verdict on an answer, or a reward model's score of it",
    "gold reward": "the reward that is really wanted; it is only measured, never trained on",
    "loss": "what training lowers: how surprised the model is by the texts that it is shown",
    "nats": "units of information, as bits are; one nat is 1.44 bits",
    "KL": "Kullback-Leibler divergence: how far the model's answers have moved away from those of the reference",
    "reference": "the model before this training, from which it should not move too far",
    "entropy": "how undecided the model is about the next token; 0 where it always knows what comes",
    "completion": "what the model wrote after the prompt",
    "tokens": "the pieces of text that the model reads and writes: words or parts of words",
    "self-correction": "signs of reasoning: steps that are written down, and answers that are changed on the way",
    "pass@k": "the chance that at least one of k answers is right",
    "utility": "the task's own score of an answer",
    "at equal length": "what the rate would be if both answers were equally long, as longer ones are often preferred",
    "calibration": "whether a model is right as often as it says: where it says 80 %, in 8 of 10 cases",
    "expected calibration error": "the mean distance between how sure the model is and how often it is right",
    "noisy labels": "the labels that it was trained on, some of which are wrong on purpose",
    "log loss": "a penalty for being sure and wrong; 0.693 is that of a coin",
    "ceiling": "the most that can be reached, as some of the labels are wrong",
    "standard deviation": "how widely values are spread around their mean",
    "ensemble": "several reward models trained apart; where they disagree, their score is not to be trusted",
    "reward hacking": "a rise of the reward by something other than what is wanted",
    "exit tricks": "a program that ends before its tests run, or calls itself equal to everything",
    "hard-coded": "a program that holds the inputs of its tests with the expected values instead of computing them",
    "hidden-test": "tests that the model was never shown; who fails them fitted the program to the shown ones",
    "strict-versus-lenient gap": "right answers that were not given in the form that was asked for",
    "length growth": "answers became longer without becoming better",
    "isolation": "walls around a program that a model wrote; without one of them it may have read its tests or more",
    "level": "a group of items, such as one difficulty",
    "fingerprints": "hashes of all that decides what a run produces; they tell whether it is out of date",
    "revision": "the commit of this project's code",
    "hashes": "short names of contents: equal hashes, equal contents",
    "sampling": "how answers were drawn: how many, and at which temperature (0: always the likeliest token)",
    "sha256": "a hash: equal hashes, equal contents",
    "license": "under which the data may be used",
}  # fmt: skip
_TERM = re.compile(
    rf"(?<![\w&])({'|'.join(map(re.escape, sorted(TERMS, key=len, reverse=True)))})(?!\w)", re.IGNORECASE
)


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


@pass_context
def explain(context: Context, value: object) -> Markup:
    """
    Escape a text, and give each of its terms its meaning: shown over the term, and where it has the focus.

    A term is explained once, until the template clears its set `explained`.
    """
    explained: set[str] = context["explained"]

    def with_meaning(found: re.Match[str]) -> str:
        term = next(term for term in TERMS if term.lower() == found[0].lower())
        if term in explained:
            return found[0]
        explained.add(term)
        return f'<abbr tabindex="0" title="{escape(TERMS[term])}">{found[0]}</abbr>'

    return Markup(_TERM.sub(with_meaning, str(html_text(value))))


def number(value: Any) -> str:
    """Format a figure with at most four digits; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value) if isinstance(value, bool) else f"{value:,}"
    if value == 0 or 0.001 <= abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:.1g}" if abs(value) < 0.001 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Format a time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def interval(ends: Sequence[float] | None) -> str:
    """Format an interval in brackets; `no interval` for none."""
    return f"[{number(ends[0])}, {number(ends[1])}]" if ends else "no interval"


def signed_interval(ends: Sequence[float]) -> str:
    """Format an interval of differences in brackets."""
    return f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"


def percent_interval(ends: Sequence[float]) -> str:
    """Format an interval of shares in percent."""
    return f"[{ends[0]:.0%}, {ends[1]:.0%}]"


def p_value(p: float) -> str:
    """Format a p-value with its sign of relation, never as 0."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
