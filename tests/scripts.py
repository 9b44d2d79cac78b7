"""The main functions of scripts, called as their `__main__` blocks call them."""

import functools


def exiting(main):
    """`main`, which raises `SystemExit` with any status but 0."""

    @functools.wraps(main)
    def wrapped(argv=None):
        if status := main(argv):
            raise SystemExit(status)

    return wrapped
