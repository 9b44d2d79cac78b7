"""License of an adapter, derived from those of its base model and its training data."""

from __future__ import annotations

from collections.abc import Iterable


PERMISSIVE = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "cc-by-3.0", "cc-by-4.0",
    "odc-by", "pddl",
}  # fmt: skip


def derive_license(base: str | None, data: Iterable[tuple[str, str | None]]) -> tuple[str | None, list[str]]:
    """
    Derive the license of an adapter; `None` where none can be derived, with one line for each clash.

    Only clear cases are decided: if all is permissive, or under the base's license, the adapter takes the base's. All
    else is reported and left to the owner.

    Args:
        base (`str` or `None`):
            License of the base model.
        data (`Iterable[tuple[str, str | None]]`):
            Name and license of each data set.
    """
    clashes = [] if base else ["the base model states no license"]
    base = base and base.lower()
    for name, license in data:
        if not license:
            clashes.append(f"the data set {name} states no license")
        elif base in PERMISSIVE and license.lower() not in PERMISSIVE:
            clashes.append(f"the data set {name} is under {license}, which binds more than the base's {base}")
        elif base and license.lower() not in PERMISSIVE | {base}:
            clashes.append(f"the base is under {base}, the data set {name} under {license}")
    return (base if base and not clashes else None), clashes
