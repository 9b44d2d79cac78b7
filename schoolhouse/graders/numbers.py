r"""Exact numbers in answers: one number, or a list of numbers.

Rules:

- *Carried out.* Against a reference that is a plain number, sums, products and quotients left standing (`48 + 24`,
  `144/2`) are no answer: otherwise repeating the question would be rewarded. Fractions in any terms, mixed numbers,
  scientific notation and closed forms (`2^{10}`, `5!`, `\sqrt{16}`) are.
- *Exact.* `0.333` is not `1/3`, and `3.14` is not `\pi`.
- *Percent.* `%` means a hundredth. Compared with a bare number of magnitude 1 or more it may also be a unit that is
  missing there: `50%` agrees with `50` and with `0.5`, and `0.5%` does not agree with `0.5`.
- *Base suffix.* `1010_2` is the digits and the base: it agrees with `1010_{2}` and `1010 base 2`, not with `1010`.
- *Units.* Words around one number are dropped, but what both count must be the same: not `5 cm` and `5 m`, nor
  `5 cm^2` and `5 cm^3`, nor `3 apples` and `3 oranges`.
  `million` multiplies; `half`, `dozen`, number words and comparisons ("at least 5") make the number unreadable.
- *Notation.* A comma separates thousands when groups of three follow it, and items otherwise; a point is decimal.
- *Order.* Counts in `(a, b)` and `[a, b]`; not in `\{a, b\}` or `a, b`.
"""

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


# Beyond these limits an answer is compared as text only: int() and ** on text of a model must stay cheap.
MAX_DIGITS = 400
MAX_BITS = 8192
MAX_EXPRESSION = 300


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational, with the percent sign, and the unit or the first letters of the nouns that follow it."""

    value: Fraction
    percent: bool = False
    unit: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.value}{'%' * self.percent}"

    def agrees_with(self, other: "Number") -> bool:
        if self.unit and other.unit and not self.unit & other.unit:
            return False
        if self.percent == other.percent:
            return self.value == other.value
        if {name.partition("^")[0] for name in (other if self.percent else self).unit} & set(UNITS.values()):
            return False
        percent, bare = (self.value, other.value) if self.percent else (other.value, self.value)
        return bare == percent / 100 or (bare == percent and abs(bare) >= 1)


_N = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_LITERAL = rf"""(?P<sign>[-+]?)\s*(?:
      (?P<whole>\d+)(?:\s*\\frac\{{\s*(?P<mn>\d+)\s*\}}\{{\s*(?P<md>\d+)\s*\}}|(?:\s+and)?\s+(?P<pn>\d+)\s*/\s*(?P<pd>\d+))
    | \\frac\{{\s*(?P<fn>-?{_N})\s*\}}\{{\s*(?P<fd>-?{_N})\s*\}}
    | (?P<once>\d*\.\d*)\\overline\{{\s*(?P<repeats>\d+)\s*\}}
    | (?P<base>{_N})\s*\^\s*(?:\{{\s*(?P<power>-?\d{{1,5}})\s*\}}|(?P<short>\d{{1,5}}))
    | (?P<number>\d{{1,3}}(?:\ \d{{3}})+(?!\d)(?:\.\d+)?|{_N})
      (?:[eE](?P<e>[-+]?\d{{1,4}})(?![\d.])
        |\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{\s*(?P<ten>[-+]?\d{{1,4}})\s*\}}|(?P<tens>[-+]?\d{{1,4}}))
        |\s*/\s*(?P<over>-?{_N}))?
    )(?:\s*(?P<percent>%))?"""
_WHOLE_LITERAL = re.compile(_LITERAL, re.VERBOSE)
# A sign after a digit or a word is a minus or a hyphen (2-5, model-5); digits glued to a letter are a name (H2O).
_LITERAL_IN_PROSE = re.compile(rf"(?<![\w)}}\].,/^])(?:{_LITERAL})", re.VERBOSE)
_PERCENT_WORD = re.compile(r"\s*(?:per\s?cent(?:age)?|pct)\b", re.I)


def _rational(digits: str) -> Fraction | None:
    digits = digits.replace(",", "").replace(" ", "")
    if len(digits) > MAX_DIGITS:
        return None
    return Fraction(int(digits)) if digits.isdigit() else Fraction(digits)


def _read(match: re.Match[str]) -> Number | None:
    part = match.groupdict()
    if part["whole"]:
        top, bottom = part["mn"] or part["pn"], part["md"] or part["pd"]
        if max(map(len, (part["whole"], top, bottom))) > MAX_DIGITS or not int(top) < int(bottom):
            return None
        value = int(part["whole"]) + Fraction(int(top), int(bottom))
    elif part["repeats"]:
        once, repeats = part["once"], part["repeats"]
        if len(once) + len(repeats) > MAX_DIGITS:
            return None
        tail = Fraction(int(repeats), (10 ** len(repeats) - 1) * 10 ** len(once.partition(".")[2]))
        value = Fraction(f"0{once}0") + tail
    elif part["base"]:
        base, power = _rational(part["base"]), int(part["power"] or part["short"])
        if base is None or (base == 0 and power <= 0):
            return None
        if abs(power) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS:
            return None
        value = base**power
    else:
        value = _rational(part["fn"] or part["number"])
        under = part["fd"] or part["over"]
        if value is None:
            return None
        if under:
            under = _rational(under)
            if not under:
                return None
            value /= under
        exponent = part["e"] or part["ten"] or part["tens"]
        if exponent:
            if 4 * abs(int(exponent)) > MAX_BITS:  # str() of an integer of over 4,300 digits is an error
                return None
            value *= Fraction(10) ** int(exponent)
    return Number(-value if part["sign"] == "-" else value, bool(part["percent"]))


def _undone_quotient(match: re.Match[str], number: Number) -> bool:
    if number.value.denominator > 1:
        return False
    # `\frac33` is as much a number as `\frac13`; `\frac{144}{2}` may be the question itself.
    return bool(match["over"] or (match["fd"] and len(match["fn"] + match["fd"]) > 2))


UNITS = {
    alias: name
    for name, aliases in {
        "km": "km kms kilometer kilometers kilometre kilometres",
        "m": "m meter meters metre metres",
        "cm": "cm cms centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "mi": "mi mile miles",
        "ft": "ft foot feet",
        "in": "in inch inches",
        "yd": "yd yard yards",
        "kg": "kg kgs kilogram kilograms kilo kilos",
        "g": "g gram grams",
        "mg": "mg milligram milligrams",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "t": "ton tons tonne tonnes",
        "l": "l L liter liters litre litres",
        "ml": "ml mL milliliter milliliters",
        "s": "s sec secs second seconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "yr yrs year years",
        "cent": "cent cents",
        "dollar": "dollar dollars usd",
        "degree": "degree degrees deg",
        "radian": "radian radians rad",
    }.items()
    for alias in aliases.split()
}
_GLUED = {*UNITS, "st", "nd", "rd", "th", "am", "pm", "mph", "kmh", "kph", "N", "W", "V", "J", "C", "F"}
_NO_NOUN = set(
    "a an the in of at on for to from with by and is are was were be total altogether left remaining more less each "
    "every per so because which that it unit units times".split()
)
_MULTIPLIERS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NOT_PROSE = re.compile(r"[\d!+*=^<>\\_{}|\[\]@~]|(?:^|\W)-(?:\W|$)|(?<![\w'])[b-zB-HJ-Z](?![\w'])")
_UNREADABLE = re.compile(
    r"\b(?:not|no|never|cannot|neither|nor|or|than|between|almost|nearly|half|halves|quarters?|thirds?|twice|thrice|"
    r"double[ds]?|tripled?|squared|cubed|plus|minus|divided|multiplied|factorial|root|sum|product|difference|base|mod|"
    r"modulo|versus|vs|unless|if|dozens?|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|point|sin|cos|tan|"
    r"log|ln|exp|sqrt|pi|unknown|undefined|wrong|incorrect|false|maybe|perhaps|possibly)\b|n't\b|"
    r"\bat (?:least|most)\b|\bbelow zero\b|\bup to\b|\b(?:over|under|above|below)\s*$|\.\.",
    re.I,
)
_TRAILING_UNIT = re.compile(
    r"\s+(?:(?:square|cubic|sq|units?|per|" + "|".join(unit for unit in UNITS if len(unit) > 1) + r")\b[\s^{}23]*)+$"
)
_UNIT_WITH_POWER = re.compile(
    r"(?P<per>/\s?)?\b(?P<unit>" + "|".join(UNITS) + r")(?:\s?\^\s?\{?\s?(?P<power>-?[23])\s?\}?|(?P<short>[23])\b)"
)
_POWERS = {"2": " square", "3": " cubic"}
_NOUN = re.compile(r"(?:\b(?P<power>sq|square|cubic)\b\.?\s*)?(?!(?:sq|square|cubic)\b)\b(?P<word>[A-Za-z]+)", re.I)


def _spell_powers(text: str) -> str:
    """Write `cm^2` as `square cm`, and `m/s^2` as `m/s`. Of units only: `5x^2` is not a number of x."""

    def spell(match: re.Match[str]) -> str:
        power = _POWERS.get(match["power"] or match["short"], "")
        return f"{match['per']}{match['unit']}" if match["per"] else f"{power} {match['unit']}"

    return _UNIT_WITH_POWER.sub(spell, text)


def _counted(words: str) -> frozenset[str]:
    """Return names of the known units (`cm`, `cm^2`), and the first letters of the nouns, right behind a number."""
    found = []
    for noun in itertools.islice(_NOUN.finditer(words), 3):
        word, power = noun["word"], noun["power"]
        if word.lower() in _NO_NOUN:
            break
        unit = UNITS.get(word) or UNITS.get(word.lower())
        if unit and power:
            unit += "^3" if power.lower() == "cubic" else "^2"
        found.append(unit or word.lower().rstrip("s")[:4])
    return frozenset(found)


def _number_among_words(text: str) -> Number | None:
    text = _spell_powers(text)
    matches = list(_LITERAL_IN_PROSE.finditer(text))
    if len(matches) != 1:
        return None
    match = matches[0]
    number = _read(match)
    if number is None or _undone_quotient(match, number):
        return None
    before, after = text[: match.start()], text[match.end() :]
    negative = re.search(r"\b(?:negative|minus)\s*$", before, re.I)
    if negative:
        before, number = before[: negative.start()], Number(-number.value, number.percent)
    percent = _PERCENT_WORD.match(after)
    if percent:
        after, number = after[percent.end() :], Number(number.value, True)
    while (multiplier := re.match(r"\s*([a-z]+)\b", after, re.I)) and multiplier[1].lower() in _MULTIPLIERS:
        number = Number(number.value * _MULTIPLIERS[multiplier[1].lower()], number.percent)
        after = after[multiplier.end() :]
    word = re.match(r"(\s*-?)([A-Za-z]+)", after)
    if word:
        if not word[1] and word[2] not in _GLUED:
            return None
        number = Number(number.value, number.percent, _counted(after))
        measured = re.match(r"(?:\s*(?:sq|square|cubic)\b)?\s*-?([A-Za-z]+)", after)
        if measured and measured[1] in _GLUED:
            after = after[measured.end() :]
    after = re.sub(r"/\s?[A-Za-z]+", " ", after)
    for words in (before, after):
        if _NOT_PROSE.search(words) or _UNREADABLE.search(words) or "/" in words:
            return None
    return number


def split_unit(text: str) -> tuple[str, frozenset[str]]:
    """Split a cleaned expression into what it is without the words for units at its end, and the names of these."""
    bare = _TRAILING_UNIT.sub("", text)
    return bare, _counted(_spell_powers(text[len(bare) :]))


_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=|[^{}]*\})|\\approx(?![a-zA-Z])")
SYMBOL = re.compile(r"[a-zA-Z](?:_\{?\w\}?)?|\\[a-z]+")
_SUM_OF_SYMBOLS = re.compile(r"\b[a-zA-Z]\s*[-+]|[-+]\s*[a-zA-Z]\b")
SCALED_SYMBOL = re.compile(r"\d\*?[a-zA-Z]|\d[\s*]*[a-zA-Z](?![a-zA-Z])|[a-zA-Z}]\s*\^|/\s*\d|\\frac|\\sqrt")


def right_hand_side(text: str) -> tuple[str | None, str]:
    """Split `x = 5` into its symbol and its value; a chain of equalities keeps its last member."""
    members = _EQUALS.split(text)
    if len(members) == 1:
        return None, text
    left, right = members[-2].strip(), members[-1].strip()
    if SYMBOL.fullmatch(right) and not SYMBOL.fullmatch(left):
        left, right = right, left
    return left, right


@lru_cache(maxsize=16_384)
def read_number(text: str) -> Number | None:
    """Return the exact number that a cleaned answer states; `None` where it states none, several, or a computation."""
    left, right = right_hand_side(text)
    if left is not None:
        letters = re.search(r"[a-zA-Z]", left)
        if not right or (letters and SCALED_SYMBOL.search(left)) or len(split_items(text)) > 1:
            return None
        if _SUM_OF_SYMBOLS.search(left) and text.count("=") == 1:  # `x + y = 5`
            return None
        text = right
    while len(text) > 1 and text[0] + text[-1] in ("()", "{}") and not re.search(r"[(){}]", text[1:-1]):
        text = text[1:-1].strip()
    match = _WHOLE_LITERAL.fullmatch(text)
    if match:
        number = _read(match)
        return None if number is None or _undone_quotient(match, number) else number
    if len(text) > MAX_EXPRESSION:
        return None
    return _number_among_words(text)


_SEPARATOR = re.compile(r"\s*(?:[,;]\s+|;|\s(?:and|or|and/or)\s|&)(?:\s*(?:and|or)\s)?\s*")
_BRACKETS = re.compile(r"(\\\{|[(\[])(.*)(\\\}|[)\]])", re.DOTALL)


def split_items(text: str) -> list[str]:
    """Split an answer at commas, semicolons, `and` and `or`; keep the parts with a digit, and thousands whole."""
    items = _SEPARATOR.split(text)
    if len(items) == 1 and "," in text and not _WHOLE_LITERAL.fullmatch(text):
        items = re.split(r",(?!\d{3}(?!\d))", text)
    return [item for item in items if any(character.isdigit() for character in item)]


def _number_with_unit(text: str) -> Number | None:
    bare, unit = split_unit(text)
    match = _WHOLE_LITERAL.fullmatch(bare)
    number = _read(match) if match else None
    return number and Number(number.value, number.percent, unit)


def read_list(text: str) -> tuple[str, list[Number]] | None:
    """Read `1, 2`, `1 and 2`, `(1, 2)`, `[1, 2)` or `\\{1, 2\\}` whose items are all plain numbers of one unit.

    Returns:
        `tuple[str, list[Number]]`: the two brackets (`""` without any) and the items, or `None`.
    """
    brackets = ""
    wrapped = _BRACKETS.fullmatch(text)
    if wrapped:
        brackets, text = wrapped[1] + wrapped[3], wrapped[2].strip()
    items = [item for item in _SEPARATOR.split(text) if item.strip()]
    if len(items) == 1 and (wrapped or not _WHOLE_LITERAL.fullmatch(text)):
        items = text.split(",")
    if len(items) < 2 or len(items) > 100:
        return None
    numbers = [number for item in items if (number := _number_with_unit(item.strip()))]
    if len(numbers) < len(items) or len({number.unit for number in numbers if number.unit}) > 1:
        return None
    return brackets, numbers


def lists_agree(reference: tuple[str, list[Number]], answer: tuple[str, list[Number]]) -> bool:
    """Compare two results of [`read_list`]: in order inside `()` and `[]`, otherwise in any order."""
    (expected_brackets, expected), (brackets, items) = reference, answer
    if len(expected) != len(items) or (expected_brackets and brackets and expected_brackets != brackets):
        return False
    if not {expected_brackets, brackets} <= {"", r"\{\}"}:
        return all(one.agrees_with(other) for one, other in zip(expected, items, strict=True))
    # `1, 1` is not `1, 2`, nor `1`: how often an item comes counts, which math-verify's sets forget.
    key = lambda number: (number.value, number.percent)  # noqa: E731
    return sorted(map(key, expected)) == sorted(map(key, items))
