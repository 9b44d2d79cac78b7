"""Geometry of the charts; the templates turn it into SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from schoolhouse.report.text import interval, number


_STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
_SPOKEN = {"improved": ", improved", "worse": ", worse"}


@dataclass(frozen=True)
class Series:
    """
    One line of a chart.

    Args:
        name (`str`):
            In the legend.
        points (`Sequence[tuple[float, float]]`):
            x and y.
        intervals (`Sequence[tuple[float, float, float]]`, *optional*):
            x, and the ends of an interval of y.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float, float]] = ()


@dataclass
class LineChart:
    """
    A line chart; its methods give places in the units of the SVG's view box.

    Args:
        subject (`str`), title (`str`), x_label (`str`), y_label (`str`):
            Stage or task, what is drawn of it, and names of the axes with their units.
        series (`Sequence[Series]`):
            The lines. Points that are not finite and series without points are left out.
        is_share (`bool`, *optional*, defaults to `False`):
            The y axis goes from 0 to 1.
        has_diagonal (`bool`, *optional*, defaults to `False`):
            Draw the line on which x equals y.
        band (`tuple[float, float]`, *optional*):
            Interval of x to shade.
        rules (`dict[str, float]`, *optional*):
            Label -> x of an upright line.
    """

    subject: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    is_share: bool = False
    has_diagonal: bool = False
    band: tuple[float, float] | None = None
    rules: dict[str, float] = field(default_factory=dict)

    WIDTH, HEIGHT = 360, 202  # legible at the width of a phone without scrolling
    LEFT, RIGHT, TOP, BOTTOM = 46, 348, 8, 166  # of the plotting area

    def __post_init__(self) -> None:
        finite = [
            Series(x.name, [p for p in x.points if all(map(math.isfinite, p))], x.intervals) for x in self.series
        ]
        self.series = [series for series in finite if series.points]
        self.band = self.band and (min(self.band), max(self.band))

    @cached_property
    def x_ticks(self) -> list[float]:
        points = [x for series in self.series for x, _ in series.points]
        return _ticks([*points, *self.rules.values(), *(self.band or ())])

    @cached_property
    def y_ticks(self) -> list[float]:
        if self.is_share:
            return [0.0, 0.25, 0.5, 0.75, 1.0]
        ends = [end for series in self.series for _, *interval in series.intervals for end in interval]
        return _ticks([*(y for series in self.series for _, y in series.points), *ends])

    @property
    def diagonal(self) -> list[tuple[float, float]]:
        """Ends of the line on which x equals y."""
        low, high = max(self.x_ticks[0], self.y_ticks[0]), min(self.x_ticks[-1], self.y_ticks[-1])
        return [(low, low), (high, high)]

    @property
    def description(self) -> str:
        """The chart in words, for a reader who does not see it."""
        parts = [f"{x.name} from {number(x.points[0][1])} to {number(x.points[-1][1])}" for x in self.series]
        parts += [f"{label} at {number(place)}" for label, place in self.rules.items()]
        if self.band:
            parts.append(f"shaded from {number(self.band[0])} to {number(self.band[1])}")
        return f"{self.subject}: {self.title}, {self.y_label} over {self.x_label}; {'; '.join(parts)}"

    def x(self, value: float) -> float:
        """Return the place of an x value."""
        return round(_scale(value, self.x_ticks[0], self.x_ticks[-1], self.LEFT, self.RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the place of a y value."""
        return round(_scale(value, self.y_ticks[0], self.y_ticks[-1], self.BOTTOM, self.TOP), 1)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """Return the places of points, as a `<polyline>` takes them."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)


@dataclass(frozen=True)
class Axis:
    """
    An axis on which better values are to the right, shared by all that is drawn along it.

    Args:
        ticks (`Sequence[float]`):
            Round numbers from one end to the other.
        left (`float`), right (`float`):
            Places of its ends, in the units of the SVG's view box.
        is_reversed (`bool`, *optional*, defaults to `False`):
            Lower values are better, and to the right.
    """

    ticks: Sequence[float]
    left: float
    right: float
    is_reversed: bool = False

    def x(self, value: float) -> float:
        """Return the place of a value; one beyond the axis is drawn at its end."""
        ends = (self.right, self.left) if self.is_reversed else (self.left, self.right)
        value = min(max(value, self.ticks[0]), self.ticks[-1])
        return round(_scale(value, self.ticks[0], self.ticks[-1], *ends), 1)


def axis_around(values: Sequence[float], left: float, right: float, is_reversed: bool = False) -> Axis:
    """Return an axis from round number to round number around all values."""
    return Axis(_ticks(values), left, right, is_reversed)


@dataclass(frozen=True)
class IntervalBar:
    """
    A value with its interval on one line, beside the value of no change.

    Args:
        value (`float`), low (`float`), high (`float`):
            The value, and the ends of its interval.
        zero (`float`):
            Value of no change.
        kind (`str`):
            `"improved"`, `"worse"` or `"none"`: sets the colour.
        axis ([`Axis`]):
            The axis of all bars of the same metric.
    """

    value: float
    low: float
    high: float
    zero: float
    kind: str
    axis: Axis

    WIDTH = 320
    ENDS = (18, 302)  # of the axis


@dataclass(frozen=True)
class Dot:
    """
    A row of a dot plot: one stage.

    Args:
        name (`str`), value (`float`), interval (`tuple[float, float]` or `None`):
            The stage, its value and the ends of the interval.
        kind (`str`):
            Change against the parent: `"improved"`, `"worse"`, `"none"`, or `"start"` where nothing was compared.
        parent (`int` or `None`):
            Row of the parent.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    kind: str
    parent: int | None


@dataclass(frozen=True)
class DotPlot:
    """
    The values of one task, a row for each stage; plots of the same metric share their axis.

    Args:
        task (`str`), metric (`str`), size (`str`):
            The caption: name of the task, what its values are, and of how many items.
        dots (`Sequence[Dot]`):
            The stages in order.
        axis ([`Axis`]):
            Of the metric.
    """

    task: str
    metric: str
    size: str
    dots: Sequence[Dot]
    axis: Axis

    WIDTH, ROW, TOP = 340, 26, 4
    RIGHT = 268  # end of the axis; values are written beside it

    @property
    def bottom(self) -> float:
        """Place of the axis."""
        return self.TOP + self.ROW * len(self.dots)

    @property
    def kinds(self) -> list[str]:
        """Kinds of its dots."""
        return [dot.kind for dot in self.dots]

    def y(self, row: int) -> float:
        """Return the place of a row's middle."""
        return self.TOP + self.ROW * (row + 0.5)

    @property
    def description(self) -> str:
        """The plot in words, for a reader who does not see it."""
        rows = [f"{x.name} {number(x.value)} {interval(x.interval)}{_SPOKEN.get(x.kind, '')}" for x in self.dots]
        return f"{self.task}, {self.metric}: {'; '.join(rows)}"


@dataclass(frozen=True)
class HeatMap:
    """A table of a task's shares whose cells are shaded: `rows` is row -> column -> share."""

    task: str
    title: str
    columns: Sequence[str]
    rows: dict[str, dict[str, float]]

    @staticmethod
    def shade(value: float) -> int:
        """Return the shade of a share, 0 to 9."""
        return min(9, max(0, int(value * 10)))


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """Return the label of a tick, with as many digits as the distance of the ticks needs."""
    return f"{round(value, 3 - math.floor(math.log10(ticks[1] - ticks[0]))) + 0.0:.6g}"


def _scale(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (value - low) / (high - low) * (end - start)


def _ticks(values: Sequence[float]) -> list[float]:
    """Four to seven round numbers around all values."""
    low, high = min(values), max(values)
    if high <= low:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(factor * power for factor in _STEPS if (high - low) / (factor * power) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]
