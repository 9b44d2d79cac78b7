r"""The final answer that a completion states.

A completion is read without its thoughts, up to the first leaked next question or end-of-turn token. There, a final
answer is stated by `#### N`, `\boxed{N}`, `<answer>N</answer>` and "the answer is N" with its variants. The last
statement counts, since a model may correct itself; statements joined by "or", "and" or a comma, or standing side by
side, are offered together. A completion without any statement is read at its last line: a value alone, what follows
the last equals sign, or a finished last sentence.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from schoolhouse.core.escape import response_of
from schoolhouse.graders.normalize import plain, undress


# A bound for every search after an anchor, since the text of a model has no limit.
MAX_STATEMENT = 5000

# Leaks: a base model goes on after its answer with the next turn, or with another question of its own.
_END_OF_TURN = re.compile(
    r"<(?:\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id|end|user|assistant)\|"
    r"|/s|eos|end_of_turn|start_of_turn)>"
)
_NEXT_QUESTION = re.compile(
    r"\n[ \t>#*_]*(?:(?:next|new|another) )?(?:question|problem|instruction|user|human|q)[ \t]*\d*[ \t]*[*_]*:"
    r"|\n[ \t]*#+[ \t]*(?:next |new )?(?:question|problem|instruction)\b[ \t]*\d*[ \t]*\n"
)
# GSM8K's calculator calls, `<<9*2=18>>`, would double each number.
_HOPE = re.compile(r"I hope (?:it|this|that) is correct\.?$")
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def _lower(text: str) -> str:
    """Text in lower case, at the same places: searching it is faster than ignoring case."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else text


def readable_part(completion: str) -> str:
    """
    Return the part of a completion that may state its answer: after the reasoning, before a leaked next question.

    It comes in plain notation, without GSM8K's calculator calls; empty where reasoning never ended.
    """
    text = response_of(completion)
    start = len(text) - len(text.lstrip())
    leak = _END_OF_TURN.search(text, start)
    text = text[: leak.start()] if leak else text
    leak = _NEXT_QUESTION.search(_lower(text), start)
    text = text[: leak.start()] if leak else text
    question = text.find("Question:", start + 1)
    if question >= 0:
        text = text[:question]
    if "<<" in text:
        text = _CALCULATOR.sub("", text)
    text = text.rstrip()
    if text.endswith(("correct", "correct.")):
        text = _HOPE.sub("", text).rstrip()
    return plain(text)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a final answer, and its place in the text."""

    content: str
    style: Literal["hash", "boxed", "answer", "sentence", "last line"]
    start: int
    end: int


# A statement begins at one of these.
_ANCHOR = re.compile(r"####|\\f?box|answer|solution")
# "the answer (in dollars) is therefore: ", "solutions are", "Answer: ", "answer = "; not "the answer is not".
_STATES = re.compile(
    r"(?:answer|solution)s?\b[*_\"')]*(?:[ \t]*\([^()\n]{0,40}\))?"
    r"(?P<verb>[^.\n:=?,;]{0,60}?\b(?:is|are|equals|was|(?:w|sh)ould be|must be)\b(?!n't|\s+(?:not|neither|never)\b)"
    r"[ \t]*(?:(?:therefore|thus|then|simply|hence|so|clearly|indeed|now),?[ \t]*)?:?"
    r"|(?P<colon>[ \t]*[*_]*[ \t]*[:=]|[*_]*[ \t]*\n|[ \t]+(?=\\[\[(]|\$)))[\s*_:]*(?:(?:\\\[|\$\$)\s*)?",
    re.IGNORECASE,
)
# Words before "answer" that belong to the statement, so that only these may stand between two statements.
_LEAD_IN = re.compile(
    r"(?:\b(?:so|thus|hence|therefore|then|the|a|an|our|my|your|final|correct|exact)\b[\s,:*_#]*)+$", re.IGNORECASE
)
# "if the answer is 5", "to answer": nothing is stated.
_NOT_ASSERTED = re.compile(
    r"\b(?:if|whether|suppose|assum\w{1,9}|unless|to|not|cannot|can't|doubt"
    r"|(?:not|n't|never)\s+(?:think|believe|know|sure|certain))\s+(?:that\s+)?(?:the\s+)?(?:(?:final|correct)\s+)?$",
    re.IGNORECASE,
)
# A period inside a number ends no sentence; a reason after the value ("17, since 8 + 9 = 17") is not part of it.
_SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)[.!;](?=\s|$|[\"')*_])|\?|\n|,?\s(?:because|since)\b"
)
# `Answer: …` needs a number, command or single letter first and no computation later; `#### Thus` is a heading.
_VALUE_FIRST = re.compile(r"[^a-zA-Z\n]*(?:\d|\\|\b[a-zA-Z]\b|sqrt|pi)")
_JUDGED = re.compile(r"(?:correct|right|verified)\b", re.IGNORECASE)  # "The answer is correct."
_VERB = re.compile(r"\b(?:is|are|equals)\b")
_COMPUTES_ON = re.compile(r"=\s*[$\\(]*-?\d")
_HEADING = re.compile(r"\d+[.)]\s+\S|(?!(?:sqrt|pi|ln|log|sin|cos|tan|inf)[^a-zA-Z])[a-zA-Z]{2,}")
# `\boxed{…}` with its matching brace, or `\boxed 5`; "not \boxed{5}" denies.
_BOX = re.compile(r"\\f?box(?:ed)?\s*(?:(?P<brace>\{)|(?P<bare>-?\w+))?")
_BRACE = re.compile(r"(?<!\\)[{}]")
_NEGATION_BEFORE = re.compile(r"(?:\bnot|n't)[\s$\\(\[]*$", re.IGNORECASE)


def _box(text: str, start: int) -> Statement | None:
    opening = _BOX.match(text, start)
    if opening["brace"] is None:
        return Statement(opening["bare"] or "", "boxed", start, opening.end())
    depth = 0
    for brace in _BRACE.finditer(text, opening.end() - 1, opening.end() + MAX_STATEMENT):
        depth += 1 if brace.group() == "{" else -1
        if not depth:
            return Statement(text[opening.end() : brace.start()], "boxed", start, brace.end())
    return None


def _sentence(text: str, start: int, stop: int, with_words: bool) -> Statement:
    states, before = _STATES.match(text, start), text[max(0, start - 40) : start]
    before = before[max(before.rfind("\n"), before.rfind(". ")) + 1 :]
    nothing = Statement("", "sentence", start, start)
    if not states or states.end() >= stop or _NOT_ASSERTED.search(before):
        return nothing
    sentence_end = _SENTENCE_END.search(text, states.end(), states.end() + MAX_STATEMENT)
    end = min(stop, sentence_end.start() if sentence_end else states.end() + MAX_STATEMENT)
    if sentence_end and sentence_end.start() < stop and sentence_end.group() == "?":
        return nothing
    content = text[states.end() : end]
    if not with_words and _JUDGED.match(content):
        return nothing
    if states["colon"] is not None and not with_words:
        # `Answer:` may also open a solution: it states an answer only if a value follows at once and no computation
        # comes later.
        solution_opens = text[start : start + 8].lower() == "solution"
        sentence = before.rstrip().lower().endswith("final") and _FINISHED.match(text, end)
        if sentence:  # "Final Answer: The largest n is 34."
            content = _VERB.split(content)[-1]
        elif solution_opens or not _VALUE_FIRST.match(content):
            return nothing
        if _COMPUTES_ON.search(text, end, end + MAX_STATEMENT):
            return nothing
    lead_in = _LEAD_IN.search(before)
    return Statement(content, "sentence", start - len(lead_in.group()) if lead_in else start, end)


def _read_statement(text: str, anchor: re.Match[str], stop: int, with_words: bool) -> Statement | None:
    """Read the statement at an anchor: empty where it states nothing, `None` where it is cut off in the middle."""
    start, kind = anchor.start(), anchor.group()
    if kind == "####":
        line_end = text.find("\n", start, start + MAX_STATEMENT)
        end = min(stop, start + MAX_STATEMENT, len(text) if line_end < 0 else line_end)
        content = text[start + 4 : end].strip("# \t")
        heading = not with_words and _HEADING.match(content)
        return Statement("" if heading else content, "hash", start, end)
    if kind[0] != "\\":
        return _sentence(text, start, stop, with_words)
    box = _box(text, start)
    return replace(box, content="") if box and _NEGATION_BEFORE.search(text[max(0, start - 20) : start]) else box


_ANSWER_TAG = re.compile(r"<answer>([^<]*(?:<(?!/?answer>)[^<]*)*)</answer>")
# Between two statements: "or", "and", commas (offered together), white space and markup only (side by side).
_JOINT = re.compile(
    r"[\s$.,;*\\()\[\]_]*(?:(?:[,;/&]|\b(?:or|and|either|alternatively)\b)[\s$,.:*\\()\[\]_]*)+", re.IGNORECASE
)
_OR_IN_ONE_SENTENCE = re.compile(r"[^.!?\n]*\b(?:or|also|as well as)\b[^.!?\n]*", re.IGNORECASE)
_AND_IN_ONE_SENTENCE = re.compile(r"[^.!?\n]*\band\b[^.!?\n]*", re.IGNORECASE)
_BLANK = re.compile(r"[ \t$*\\()\[\]_.]*")
_BLANK_LINES = re.compile(r"[\s$*\\()\[\]_.]*")
# "either 5 or" at the end of a statement continues in the next one.
_DANGLING = re.compile(r"(?:\s(?:or|and|and/or)|[,;/])\s*$", re.IGNORECASE)
# ", or maybe 6" after the last statement, or "5 or" before a box, offers a second answer that no anchor marks.
_OFFERED_AFTER = re.compile(
    r"[\s$.,;*\\)\]}_(]*\b(?:or|and/or|alternatively)\b[\s,:]*"
    r"(?:\b(?:maybe|possibly|perhaps|else|even|it|is|could|be|the|answer|just)\b[\s,:]*)*[$*\\(\[{]*-?[\d\\]"
    r"|[ \t$*\\)\]}_]*(?:[,;/]|\band\b)[ \t]*[$*\\(\[]*-?\d",
    re.IGNORECASE,
)
_OFFERED_BEFORE = re.compile(r"[\d}$)],?\s+or\b[\s$*\\(\[]*$", re.IGNORECASE)
# After the last statement: "wait, that is wrong: it should be 6" withdraws it; "it should be noted" does not.
_IT = r"\b(?:it|this|that|which|(?:answer|result|value|total)(?: above)?)"
_WITHDRAWN = re.compile(
    r"(?:(?:^|[.!?:;,\n(]|\b(?:but|oh|hmm)\b)[\s*_$)\]}]*"
    r"(?:wait|oops|no[,.:]|no it|sorry(?!\s+(?:for|about|if|that))|scratch that|correction"
    rf"|(?:actually|alternatively),?\s+(?:the |\S{{0,3}}\d|{_IT}))"
    rf"|{_IT}\s*(?:is|was|'s|isn't|wasn't)\s+(?:(?:actually|also|probably|just|a)\s+)*"
    r"(?:mistaken?|wrong|incorrect|not (?:right|correct|\S{0,3}\d))\b"
    rf"|{_IT} (?:should|must) (?:(?:actually|really|instead|have|also) )*(?:be|been)\s+\S{{0,3}}\d"
    r"|\bI (?:meant|was wrong|am wrong|made a mistake)\b|\banother (?:possible )?answer\b|\balso possible\b)"
    r".*?\d",
    re.IGNORECASE | re.DOTALL,
)
_NUMERAL = re.compile(r"-?\d+(?:[.,]\d+)*")
_NOT_THIS = re.compile(r"\bnot\b|n't\b|\binstead\b|\brather\b", re.IGNORECASE)
# Parts of a last line without an anchor: list mark, bold number, sentences. A label ("Step 3") states nothing.
_LIST_MARK = re.compile(r"\s*(?:[-*•>]|#+|\d+[.)])\s+(?=\S)")
_BOLD = re.compile(r"\*\*([^*\n]*\d[^*\n]*)\*\*")
_SENTENCE_START = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(*$\\])|(?<!\s)\s+(?=(?:Therefore|Thus|Hence|So),?\s)")
_LABEL = re.compile(r"(?:step|part|case|section|page|figure|note|example|line|day)\s+\d", re.IGNORECASE)
# "We find that $x > 3$.", "Therefore $x > 3$ is the solution.", "The matrix is \\( … \\)."
_MATH_MODE = re.compile(r"\\[()\[\]]")
_STATED_FORMULA = re.compile(
    r"(?:[^$]|\$[^$]*\$)*?(?:\b(?:is|are|equals?|get|obtain|have|gives?|yields?|that|therefore|thus|so|hence),?|:)\s*"
    r"\$\$?(?P<formula>[^$]+)\$\$?"
    r"(?:\s+(?:is|are) (?:the|our) (?:\w+ )?(?:answer|solution)s?|(?P<unit>[\w\s^]*))[.!\s]*",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"[.!][\"')*_$]*$")
_WORDS_THEN_DIGIT = re.compile(r"(?<!\\begin\{)(?<![\\a-zA-Z])(?!sqrt|pi|log|ln|and\b|or\b)[a-zA-Z]{2}.*\d")


def _together(text: str, first: Statement, second: Statement) -> bool:
    """Check if two statements are offered together, so that neither is *the* answer."""
    between = undress(text[first.end : second.start])
    if len(between) > 60:
        return False
    if _DANGLING.search(first.content[-20:]) or _JOINT.fullmatch(between) or _OR_IN_ONE_SENTENCE.fullmatch(between):
        return True
    boxes = first.style == second.style == "boxed"
    if boxes and _AND_IN_ONE_SENTENCE.fullmatch(between):
        return True
    blank = _BLANK_LINES if boxes else _BLANK
    return first.style != "sentence" and blank.fullmatch(between) is not None


def _last_line(text: str) -> Statement | None:
    """Read a completion without any statement at its last line: a value alone, or a finished last sentence."""
    end = len(text.rstrip())
    start = text.rfind("\n", 0, end) + 1
    cut_off = end - start > MAX_STATEMENT // 5
    start = max(start, end - MAX_STATEMENT // 5)
    line = text[start:end]
    mark = _LIST_MARK.match(line)
    line = (line[mark.end() :] if mark else line).strip("#")
    if not line or line.endswith(("?", ":")):
        return None
    bold = _BOLD.findall(line)
    sentences = _SENTENCE_START.split(line)
    content = bold[0] if len(bold) == 1 else sentences[-1]
    if cut_off and len(sentences) == 1:
        return None
    if _WORDS_THEN_DIGIT.search(content):
        content = content.rstrip("!")  # an exclamation; alone after a number it is a factorial
    if _LABEL.match(content):
        return None
    stated = _STATED_FORMULA.fullmatch(_MATH_MODE.sub("$", content))
    if stated:
        return Statement(stated["formula"] + (stated["unit"] or ""), "last line", start, end)
    # An unfinished sentence was cut off before its number was whole, or before the one that matters.
    if len(bold) == 1 or "=" in content or _FINISHED.search(line) or not _WORDS_THEN_DIGIT.search(content):
        return Statement(content, "last line", start, end)
    return None


def final_answer(text: str, with_words: bool) -> tuple[list[str], Statement | None]:
    """
    Find the final answer in the readable part of a completion.

    Args:
        with_words (`bool`): `True` if the reference is made of words, so that `#### Monday` is no heading.

    Returns:
        `tuple[list[str], Statement | None]`: The contents of the last statement and of all offered together with it,
        empty where nothing is stated or what was stated is withdrawn; and the last statement.
    """
    if "<answer>" in text:
        return _tagged_answer(text, with_words)
    last: Statement | None = None
    first: Statement | None = None
    contents: list[str] = []
    stop = len(text)
    # From the end backwards: the last statement counts, and those that are offered together with it.
    for anchor in reversed([*_ANCHOR.finditer(_lower(text))][-200:]):
        statement = _read_statement(text, anchor, stop, with_words)
        if statement is None:
            if last is None:  # cut off: it may be the beginning of another number
                return [], None
            continue
        if not statement.content.strip(" \t\n$*_.:\\()[]{}"):
            if statement.style != "sentence":
                stop = statement.start if last else stop
            continue
        if first is None:
            last = statement
        elif not _together(text, statement, first):
            break
        contents.insert(0, _DANGLING.sub("", statement.content))
        first, stop = statement, statement.start
    if first is None or last is None:
        line = _last_line(text)
        return ([line.content] if line else []), line
    # What follows may offer a second answer or withdraw this one.
    after = text[last.end : last.end + 400]
    if _OFFERED_AFTER.match(after) or (first.style == "boxed" and _OFFERED_BEFORE.search(text[: first.start][-40:])):
        contents.append("another")
    elif len(after) > 2 and _WITHDRAWN.search(after):
        confirmed = _NUMERAL.findall(after)[-1:] == _NUMERAL.findall(contents[-1])[-1:]  # "Wait, I check: 9 * 2 = 18."
        if not confirmed or _NOT_THIS.search(after):
            return [], last
    return contents, last


def _tagged_answer(text: str, with_words: bool) -> tuple[list[str], Statement | None]:
    """Read the last closed `<answer>…</answer>`, whose content may itself state an answer."""
    tags = [*_ANSWER_TAG.finditer(text)][-20:]
    if not tags or text.rfind("<answer>") > tags[-1].start():
        return [], None
    statements = [Statement(tag[1], "answer", tag.start(), tag.end()) for tag in tags]
    content = statements[-1].content.strip()
    contents, inner = final_answer(content, with_words)
    if inner is None or inner.style == "last line":
        # Closed, so that nothing is cut off: all of it, or the last of several sentences.
        contents = [content if with_words else _SENTENCE_START.split(content.rpartition("\n")[2])[-1]]
    if len(statements) > 1 and _together(text, statements[-2], statements[-1]):
        contents.insert(0, statements[-2].content)
    if _OFFERED_AFTER.match(text[tags[-1].end() :][:400]):
        contents.append("another")
    return contents, statements[-1]
