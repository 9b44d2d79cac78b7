"""Charts as inline SVG: words and numbers in, markup out; every word is escaped here."""

import math
from collections.abc import Sequence

from schoolhouse.report.text import escaped, number


WIDTH, HEIGHT = 360, 220  # legible at the width of a phone without scrolling
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 26, 36
_STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
Points = Sequence[tuple[float, float]]


def lines(
    title: str,
    series: dict[str, Points],
    x: str,
    y: str,
    unit: bool = False,
    marks: dict[str, Sequence[tuple[float, float, float]]] | None = None,
    diagonal: bool = False,
    band: tuple[float, float] | None = None,
    rules: dict[str, float] | None = None,
) -> str:
    """
    A line chart with its legend; series differ in dash as well as in colour.

    Args:
        title (`str`):
            Caption.
        series (`dict[str, Sequence[tuple[float, float]]]`):
            Name -> points; points that are not finite are left out.
        x (`str`), y (`str`):
            Names of the axes with their units.
        unit (`bool`, *optional*, defaults to `False`):
            Whether y runs from 0 to 1 whatever the points.
        marks (`dict[str, Sequence[tuple[float, float, float]]]`, *optional*):
            Series -> intervals: x, low, high.
        diagonal (`bool`, *optional*, defaults to `False`):
            Whether to draw the line on which x equals y.
        band (`tuple[float, float]`, *optional*):
            An interval of x to shade.
        rules (`dict[str, float]`, *optional*):
            Word -> x at which an upright line stands.

    Returns:
        `str`: a `<figure>`; empty without points.
    """
    kept = {name: [p for p in points if _finite(p)] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    spans = [mark for found in (marks or {}).values() for mark in found]
    rules = {word: place for word, place in (rules or {}).items() if math.isfinite(place)}
    xs = [point[0] for points in kept.values() for point in points] + list(rules.values()) + list(band or ())
    ys = [point[1] for points in kept.values() for point in points] + [end for mark in spans for end in mark[1:]]
    x_ticks, y_ticks = _ticks(xs), [0.0, 0.25, 0.5, 0.75, 1.0] if unit else _ticks(ys)
    (left, right), (low, high) = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])

    def at(point: tuple[float, float]) -> str:
        across = _LEFT + (point[0] - left) / (right - left) * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (point[1] - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = []
    if band is not None:
        (start, bottom), (end, _) = (map(float, at((place, low)).split(",")) for place in sorted(band))
        width = max(2.0, end - start)
        parts.append(f'<path class="band" d="M{start:.1f} {_TOP}h{width:.1f}V{bottom:.1f}h{-width:.1f}z"/>')
    parts += _axes(x_ticks, y_ticks, x, y)
    if diagonal:
        low_end, high_end = max(left, low), min(right, high)
        parts.append(f'<polyline class="rule" points="{at((low_end, low_end))} {at((high_end, high_end))}"/>')
    for row, (word, place) in enumerate(rules.items()):
        across = float(at((place, low)).split(",")[0])
        side = "end" if across > WIDTH / 2 else "start"
        parts.append(f'<path class="rule" d="M{across:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text x="{across + (4 if side == "start" else -4):.1f}" y="{_TOP + 11 + 14 * row}" text-anchor="{side}">'
            f"{escaped(word, 40)}</text>"
        )
    legend = []
    for index, (name, points) in enumerate(kept.items()):
        style = f"s{index % 6}"
        for place, bottom, top in (marks or {}).get(name, ()):
            ends = f"{at((place, bottom))} {at((place, top))}"
            parts.append(f'<polyline class="mark {style}" points="{ends}"/>')
        parts.append(f'<polyline class="line {style}" points="{" ".join(map(at, points))}"/>')
        if len(points) <= 30:
            dots = [at(point).split(",") for point in points]
            parts += [f'<circle class="dot {style}" cx="{across}" cy="{down}" r="2.5"/>' for across, down in dots]
        key = f'<svg class="key" viewBox="0 0 26 8" aria-hidden="true"><path class="line {style}" d="M0 4H26"/></svg>'
        legend.append(f"<span>{key} {escaped(name, 60)}</span>")
    ends = "; ".join(f"{name} from {number(p[0][1])} to {number(p[-1][1])}" for name, p in kept.items())
    told = "".join(f"; {word} at {number(place)}" for word, place in rules.items())
    told += f"; shaded from {number(band[0])} to {number(band[1])}" if band else ""
    legend = "".join(legend) if len(kept) > 1 else ""
    return _figure(title, "".join(parts), f"{title}: {y} over {x}; {ends}{told}", legend)


def interval_bar(
    value: float, low: float, high: float, ends: tuple[float, float], at: float, kind: str = "none"
) -> str:
    """
    A value with its interval on one line, beside where nothing would have changed.

    Args:
        value (`float`), low (`float`), high (`float`):
            The value and the ends of its interval.
        ends (`tuple[float, float]`):
            Of the axis.
        at (`float`):
            Where the upright line stands.
        kind (`str`, *optional*, defaults to `"none"`):
            `"improved"`, `"worse"` or `"none"`: how it is coloured.

    Returns:
        `str`: an `<svg>` that is read past: the figures stand in the text beside it.
    """
    width = 240

    def across(place: float) -> str:
        return f"{4 + (min(max(place, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0]) * (width - 8):.1f}"

    return (
        f'<svg class="bar {kind}" viewBox="0 0 {width} 20" aria-hidden="true">'
        f'<path class="grid" d="M4 10H{width - 4}"/>'
        f'<path class="zero" d="M{across(at)} 2V18"/><path class="whisker" d="M{across(low)} 10H{across(high)}"/>'
        f'<circle cx="{across(value)}" cy="10" r="5"/></svg>'
    )


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


def _axes(xs: Sequence[float], ys: Sequence[float], x: str, y: str) -> list[str]:
    bottom, end = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [f'<text class="axis" x="2" y="12">{escaped(y, 50)}</text>']
    for value in ys:
        down = bottom - (value - ys[0]) / (ys[-1] - ys[0]) * (bottom - _TOP)
        parts.append(f'<path class="grid" d="M{_LEFT} {down:.1f}H{end}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{down + 4:.1f}" text-anchor="end">{_tick(value, ys)}</text>')
    for value in xs:
        across = _LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (end - _LEFT)
        parts.append(f'<text x="{across:.1f}" y="{bottom + 15}" text-anchor="middle">{_tick(value, xs)}</text>')
    middle = (_LEFT + end) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escaped(x, 50)}</text>')
    return parts


def _figure(title: str, inside: str, described: str, legend: str) -> str:
    return (
        f"<figure><figcaption>{escaped(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(described)}">{inside}</svg>'
        f'<p class="legend">{legend}</p></figure>'
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Four to seven round numbers around all values."""
    low, high = min(values), max(values)
    if high <= low:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(factor * power for factor in _STEPS if (high - low) / (factor * power) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    return f"{round(value, 3 - math.floor(math.log10(step))) + 0.0:.6g}"


def _finite(point: tuple[float, float]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in point)
