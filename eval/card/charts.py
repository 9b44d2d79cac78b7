"""Charts as inline SVG: words and numbers in, markup out; every word is escaped here."""

import math
from collections.abc import Sequence

from eval.card.text import escaped, number


WIDTH, HEIGHT = 360, 220  # legible at the width of a phone without scrolling
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 12, 34
Points = Sequence[tuple[float, float]]


def lines(
    title: str,
    series: dict[str, Points],
    x: str,
    y: str,
    unit: bool = False,
    marks: Sequence[tuple[float, float, float]] = (),
    diagonal: bool = False,
) -> str:
    """
    A line chart with its legend; series differ in dash as well as in colour.

    Args:
        title (`str`):
            Caption.
        series (`dict[str, Sequence[tuple[float, float]]]`):
            Name -> points; points that are not finite are left out.
        x (`str`), y (`str`):
            Names of the axes.
        unit (`bool`, *optional*, defaults to `False`):
            Whether y runs from 0 to 1 whatever the points.
        marks (`Sequence[tuple[float, float, float]]`, *optional*, defaults to `()`):
            Intervals: x, low, high.
        diagonal (`bool`, *optional*, defaults to `False`):
            Whether to draw the line on which x equals y.

    Returns:
        `str`: a `<figure>`; empty without points.
    """
    kept = {name: [p for p in points if _finite(p)] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    xs = [point[0] for points in kept.values() for point in points]
    ys = [point[1] for points in kept.values() for point in points] + [end for mark in marks for end in mark[1:]]
    (left, right), (low, high) = _range(xs), (0.0, 1.0) if unit else _range(ys)

    def at(point: tuple[float, float]) -> str:
        across = _LEFT + (point[0] - left) / (right - left) * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (point[1] - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = _axes((left, right), (low, high), x, y)
    if diagonal:
        low_end, high_end = max(left, low), min(right, high)
        parts.append(f'<polyline class="rule" points="{at((low_end, low_end))} {at((high_end, high_end))}"/>')
    for place, bottom, top in marks:
        parts.append(f'<polyline class="mark" points="{at((place, bottom))} {at((place, top))}"/>')
    legend = []
    for index, (name, points) in enumerate(kept.items()):
        style = f"s{index % 6}"
        parts.append(f'<polyline class="line {style}" points="{" ".join(map(at, points))}"/>')
        if len(points) <= 30:
            dots = [at(point).split(",") for point in points]
            parts += [f'<circle class="dot {style}" cx="{across}" cy="{down}" r="2.5"/>' for across, down in dots]
        key = f'<svg class="key" viewBox="0 0 26 8" aria-hidden="true"><path class="line {style}" d="M0 4H26"/></svg>'
        legend.append(f"<span>{key} {escaped(name, 60)}</span>")
    ends = "; ".join(f"{name} from {number(p[0][1])} to {number(p[-1][1])}" for name, p in kept.items())
    return _figure(title, "".join(parts), f"{title}: {y} over {x}; {ends}", "".join(legend) if len(kept) > 1 else "")


def heat_map(title: str, rows: dict[str, dict[str, float]], columns: Sequence[str]) -> str:
    """
    A table whose cells are shaded by their value, from 0 to 1; the figure stands in each cell.

    Args:
        title (`str`):
            Caption.
        rows (`dict[str, dict[str, float]]`):
            Row -> column -> value.
        columns (`Sequence[str]`):
            Columns in order.

    Returns:
        `str`: a `<table>`, so that it is read aloud and printed like one.
    """
    head = "".join(f'<th scope="col">{escaped(column, 40)}</th>' for column in columns)
    body = []
    for name, cells in rows.items():
        shades = "".join(
            "<td>-</td>"
            if (value := cells.get(column)) is None
            else f'<td class="heat h{min(9, max(0, int(value * 10)))}">{value:.2f}</td>'
            for column in columns
        )
        body.append(f'<tr><th scope="row">{escaped(name, 60)}</th>{shades}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(title)}"><table class="map">'
        f"<caption>{escaped(title)}</caption><thead><tr><th scope='col'>level</th>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _axes(xs: tuple[float, float], ys: tuple[float, float], x: str, y: str) -> list[str]:
    bottom, end = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for share in (0, 0.5, 1):
        down = bottom - share * (bottom - _TOP)
        value = _tick(ys[0] + share * (ys[1] - ys[0]), ys)
        parts.append(f'<path class="grid" d="M{_LEFT} {down:.1f}H{end}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{down + 4:.1f}" text-anchor="end">{value}</text>')
    for share, anchor in ((0, "start"), (1, "end")):
        across = _LEFT + share * (end - _LEFT)
        value = _tick(xs[0] + share * (xs[1] - xs[0]), xs)
        parts.append(f'<text x="{across}" y="{bottom + 14}" text-anchor="{anchor}">{value}</text>')
    parts.append(f'<text x="{(_LEFT + end) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escaped(x, 50)}</text>')
    return parts


def _figure(title: str, inside: str, described: str, legend: str) -> str:
    return (
        f"<figure><figcaption>{escaped(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(described)}">{inside}</svg>'
        f'<p class="legend">{legend}</p></figure>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _tick(value: float, ends: tuple[float, float]) -> str:
    # To a thousandth of the axis: beside a range of 0.02, 5e-05 is 0.
    digits = 2 - math.floor(math.log10(ends[1] - ends[0]))
    return f"{round(value, digits) + 0.0:.6g}"


def _finite(point: tuple[float, float]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in point)
