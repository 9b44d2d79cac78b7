"""OpenAssistant's trees of messages as conversations and preference pairs, named in `data/oasst*.yaml`."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any


Message = dict[str, Any]
_ROLES = {"prompter": "user", "assistant": "assistant"}


def validate_messages(row: Message) -> str | None:
    """Error of a row: a tree (its root in `prompt`, answers in `replies`), or one message of the Hub's flat form."""
    messages = [row["prompt"]] if row.get("prompt") else [row]
    for message in messages:
        if not isinstance(message, dict):
            return "a message is not an object"
        for key in ("message_id", "role", "text"):
            if not isinstance(message.get(key), str) or not message[key].strip():
                return f"a message has no {key!r}"
        if message["role"] not in _ROLES:
            return f"unknown role {message['role']!r}"
        messages.extend(message.get("replies") or [])
    return None


def best_conversations(rows: Iterable[Message], lang: str | None) -> Iterator[dict[str, Any]]:
    """
    Conversations that follow the best-ranked reply wherever people ranked several, of trees or flat messages in any
    order; `tree` is the id of the tree. Without a `lang`, trees of all languages are taken.

    Every follow-up question that got a reply is followed, so a tree gives one conversation for each of its last
    questions.
    """
    for tree, root in _trees(rows, lang):
        for path in _best_paths([root]):
            yield {"messages": _turns(path), "tree": tree}


def ranked_pairs(rows: Iterable[Message], lang: str | None) -> Iterator[dict[str, Any]]:
    """
    Pairs of sibling replies that people ranked apart; the prompt is the conversation before them. Arguments and
    `tree` are as in [`best_conversations`].
    """
    for tree, root in _trees(rows, lang):
        for path in _paths_to_questions([root]):
            for better, worse in itertools.combinations(_ranked(path[-1]), 2):
                if better["rank"] < worse["rank"]:
                    yield {
                        "prompt": _turns(path),
                        "chosen": _turns([better]),
                        "rejected": _turns([worse]),
                        "tree": tree,
                    }


def _trees(rows: Iterable[Message], lang: str | None) -> list[tuple[str, Message]]:
    """Id and root message of each tree."""
    trees: list[tuple[str, Message]] = []
    children: dict[str | None, list[Message]] = defaultdict(list)
    for row in rows:
        if row.get("prompt"):
            trees.append((row["message_tree_id"], row["prompt"]))
        else:
            # Each message shares the list to which its replies are added, whenever they are read.
            children[row.get("parent_id")].append(row)
            row["replies"] = children[row["message_id"]]
    trees += [(root["message_tree_id"], root) for root in children[None]]
    return [(tree, root) for tree, root in trees if lang in (None, root.get("lang"))]


def _turns(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": _ROLES[message["role"]], "content": message["text"]} for message in messages]


def _replies(message: Message) -> list[Message]:
    return [
        reply
        for reply in message.get("replies") or []
        if not reply.get("deleted") and reply.get("review_result") is not False
    ]


def _ranked(question: Message) -> list[Message]:
    return sorted((reply for reply in _replies(question) if reply.get("rank") is not None), key=lambda r: r["rank"])


def _best_paths(path: list[Message]) -> Iterator[list[Message]]:
    """Conversations that begin with `path` (which ends in a question) and take the best reply at every fork."""
    if not (replies := _replies(path[-1])):
        return
    # Unranked siblings have no order of merit: the smallest id decides, whatever the order of the file.
    best = (_ranked(path[-1]) or sorted(replies, key=lambda reply: reply["message_id"]))[0]
    answered = [*path, best]
    longer = [more for question in _replies(best) for more in _best_paths([*answered, question])]
    yield from longer or [answered]


def _paths_to_questions(path: list[Message]) -> Iterator[list[Message]]:
    """Every path from the root to a question, `path` (which ends in one) first."""
    yield path
    for reply in _replies(path[-1]):
        for question in _replies(reply):
            yield from _paths_to_questions([*path, reply, question])
