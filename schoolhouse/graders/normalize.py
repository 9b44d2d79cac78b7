"""Normal form of an answer's text: Unicode, markdown and LaTeX written in one plain way."""

import re
import unicodedata


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SYMBOLS = str.maketrans(
    {
        **dict.fromkeys("−‐‑‒–—", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad", None),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’", "'"),
        **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/"},
        **{"π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "±": r"\pm ", "°": " degrees ", "∅": r"\emptyset "},
        **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in "},
        **{"٫": ".", "٬": ","},
    }
)


def plain(text: str) -> str:
    """Write full-width, superscript and foreign digits, vulgar fractions and mathematical signs in ASCII."""
    if text.isascii():
        return text
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", text)
    # Both come before NFKC, which would turn `1½` into `11/2` and the degree sign's twin into the letter o.
    text = re.sub(r"[¼-¾⅐-⅞]", lambda sign: " " + unicodedata.normalize("NFKC", sign.group()), text)
    text = unicodedata.normalize("NFKC", text.replace("º", "°")).translate(_SYMBOLS)
    return re.sub(r"(?![0-9])\d", lambda digit: str(unicodedata.decimal(digit.group())), text)


_NUMBER = re.compile(r"-?\d+")
_MONEY = re.compile(r"[\s*]*\\?\$\s*(-?\d[\d,]*(?:\.\d+)?)[.\s*]*")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,)?\s*\\!\s*(?=\d{3}(?!\d))")
# After another backslash it is no spacing command but the end of a matrix row: `1 \\ 2`.
_SPACING = re.compile(
    r"(?<!\\)\\[,;:> ]|~|\\q?quad|\\color\s*\{[^{}]*\}"
    r"|\\(?:left|right|displaystyle|limits|bf|it|rm|[lL]arge|LARGE|[hH]uge|small)(?![a-zA-Z])"
)
# `\text{m}` is a unit, where `m` alone is a variable.
_UNIT_LETTER = re.compile(r"(?<=[\w})])[\s~\\,;]*\\(?:text|mathrm)\s*\{\s*([mghsL])\s*\}")
_UNIT_NAMES = {"m": " meters", "g": " grams", "h": " hours", "s": " seconds", "L": " liters"}
_WORDS = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf|textit|textrm|textnormal|mbox|emph|underline|boldsymbol|textcolor\s*\{[^{}]*\})"
    r"\s*\{([^{}]*)\}"
)
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_RELATION = re.compile(
    r"(?P<ne>\\not\s*=|(?<=\s)!=|\\ne(?:q(?:slant)?)?(?![a-zA-Z]))|(?P<le><=|\\le(?:q(?:slant)?)?(?![a-zA-Z]))"
    r"|(?P<ge>>=|\\ge(?:q(?:slant)?)?(?![a-zA-Z]))|(?P<lt>\\lt(?![a-zA-Z]))|(?P<gt>\\gt(?![a-zA-Z]))"
)
_RELATIONS = {"ne": r"\neq ", "le": r"\le ", "ge": r"\ge ", "lt": "<", "gt": ">"}
_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree")
_PYTHON_POWER = re.compile(r"(?<=\b[a-zA-Z])\*\*(?=\d)|(?<=\))\*\*(?=\d)")
_DRESSING = re.compile(r"\*\*|__|`|\$|\\[()\[\]]|[€£¥₹]")
_FRAC = re.compile(r"\\[dtc]?frac\s*(?:(\d)\s*(\d)|(\d)\s*(?=\{)|(?=\{))")
_FRAC_TAIL = re.compile(r"(\\frac\{[^{}]*\})\s*(\d)")
_LEAD = re.compile(r"(?:\\approx|about|approximately|roughly|exactly|only|just|equal to|=|:)\s*", re.I)


def _full_frac(match: re.Match[str]) -> str:
    if match[1]:
        return rf"\frac{{{match[1]}}}{{{match[2]}}}"
    return rf"\frac{{{match[3]}}}" if match[3] else r"\frac"


def undress(text: str, commands: tuple[re.Pattern[str], ...] = (_WORDS,)) -> str:
    """Remove LaTeX spacing, and commands around words."""
    text = _SPACING.sub(" ", text)
    for command in commands:
        for _ in range(3):  # bounded, since a model may nest these without end
            text, replaced = command.subn(r" \1 ", text)
            if not replaced:
                break
    return text


def clean(text: str) -> str:
    r"""
    Remove markdown, dollar signs, LaTeX spacing and text commands, "about", quotes and the final period.

    `\frac12`, `\dfrac{1}{2}` and `\tfrac1{2}` all come out as `\frac{1}{2}`.
    """
    text = plain(text).replace(r"\"", '"').strip()
    if _NUMBER.fullmatch(text):
        return text
    money = _MONEY.fullmatch(text)
    if money:
        return f"{money[1]} dollars"
    if "\\" in text:
        text = _THOUSANDS.sub(",", text.replace(r"\$", "").replace(r"\%", "%")).replace(r"\!", "")
        if "begin" not in text:  # escaped twice
            text = text.replace(r"\\", "\\")
        text = _UNIT_LETTER.sub(lambda unit: _UNIT_NAMES[unit[1]], text)
        text = undress(_DEGREES.sub(" degrees ", text), (_WORDS, _BOX)).replace(r"\varnothing", r"\emptyset")
        text = _FRAC_TAIL.sub(r"\1{\2}", _FRAC.sub(_full_frac, text))
    text = _RELATION.sub(lambda relation: _RELATIONS[relation.lastgroup or ""], text)
    text = _DRESSING.sub("", _PYTHON_POWER.sub("^", text)).replace("{,}", ",").strip()
    for _ in range(4):
        bare = text.strip("\"' \t\n").rstrip(",;: \t\n\\")
        if bare.endswith(".") and not bare.endswith(".."):  # 0.333... is no 0.333
            bare = bare[:-1]
        if len(bare) > 2 and bare[0] == bare[-1] == "*":
            bare = bare[1:-1]
        lead = _LEAD.match(bare)
        bare = bare[lead.end() :] if lead else bare
        if bare == text:
            break
        text = bare
    return text
