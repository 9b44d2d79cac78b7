"""Split of an item of the tiny world, by a hash."""

import hashlib


TEST_SHARE = 8  # one item in eight


def split_of(*key: object) -> str:
    """
    Split to which an item belongs, `"train"` or `"test"`, the same on every machine and in every run.

    The key is the question without its wording: an expression, a template with its numbers, a chain of operations.
    Paraphrases have the same key and so are in the same split.
    """
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") % TEST_SHARE == 0 else "train"
