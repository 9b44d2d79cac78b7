"""Text of unknown origin: safe for a terminal and for Markdown, and the response in what a model wrote."""

import re
import unicodedata


def one_line(text: object, limit: int = 200) -> str:
    """Write a text in one line of at most `limit` characters, without control, format and bidirectional characters."""
    line = " ".join("".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable(text: str) -> str:
    """Write a text with an escape for each character that a terminal might obey, or shows out of order."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def markdown(text: object, limit: int = 200) -> str:
    """Write a text as one line of Markdown in which nothing is markup, HTML, a link or the end of a table cell."""
    return escape_markdown(one_line(text, limit))


def escape_markdown(line: str) -> str:
    """Escape one line, without control characters, for Markdown as [`markdown`] does."""
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]#|!~@$])", r"\\\1", line)
    # A list begins, or a heading is underlined.
    line = re.sub(r"^([-+=]|\d+[.)])(?=\s|$)", lambda found: rf"{found[0][:-1]}\{found[0][-1]}", line)
    return re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", line, flags=re.IGNORECASE)  # GitHub links bare addresses


def code_span(text: object) -> str:
    """Write a code span that its text cannot close, also in a table cell: backticks and `|` are left out."""
    return f"`{re.sub('[`|]', '', one_line(text))}`"


def fenced(code: str, language: str = "") -> str:
    """Write a code block that its content cannot close, without control characters."""
    # CommonMark closes a block only with a fence at least as long as the opening one.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", code)), default=0))
    code = "".join(char for char in code if char == "\n" or unicodedata.category(char)[0] != "C")
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"


def response_of(completion: str) -> str:
    """
    Return the response in a completion: all that stands outside of its thoughts, `<think>…</think>`.

    A prompt may have opened the first thought, so all before a `</think>` without a `<think>` is thought. A thought
    that never ends leaves no response after it.
    """
    if "think>" not in completion:  # most have none, and graders read many
        return completion
    *closed, rest = completion.split("</think>")
    shown: list[str] = []
    for number, part in enumerate(closed):
        before, opens, _ = part.partition("<think>")
        if opens:
            shown.append(before.lstrip("\n") if number else before)
        else:
            shown.clear()
    rest = rest.partition("<think>")[0]
    return "".join([*shown, rest.lstrip("\n") if closed else rest])
