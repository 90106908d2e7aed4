"""Plots as SVG text, for a page without scripts. Colours come from the page (`--c0` to `--c3`)."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from evaluation.bootstrap import Difference

WIDTH: Final = 760
LABEL: Final = 250
ROW: Final = 24
PLOT_HEIGHT: Final = 260
MARGIN: Final = 44
COLOURS: Final = 4


def bars(title: str, values: Mapping[str, Difference]) -> str:
    """A horizontal bar with its interval for each name, in the order given."""
    top = max((each.high for each in values.values()), default=0.0) or 1.0
    scale, parts = (WIDTH - LABEL - 70) / top, []
    for row, (name, each) in enumerate(values.items()):
        y, end = ROW * row + ROW // 2, LABEL + scale * each.mean
        low, high = LABEL + scale * max(0.0, each.low), LABEL + scale * each.high
        parts.append(
            f'<text class="name" x="{LABEL - 8}" y="{y + 4}">{escape(name)}</text>'
            f'<rect class="c{min(row, 1)}" x="{LABEL}" y="{y - 7}" width="{end - LABEL:.1f}" height="14"/>'
            f'<path class="interval" d="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}v8M{high:.1f} {y - 4}v8"/>'
            f'<text x="{max(end, high) + 6:.1f}" y="{y + 4}">{each.mean:.4f}</text>'
        )
    return _svg(title, ROW * len(values), parts)


def curves(title: str, names: Sequence[str], columns: Mapping[str, Sequence[float]]) -> str:
    """A line for each of `columns` over the points called `names`."""
    top = max((value for column in columns.values() for value in column), default=0.0) or 1.0
    step = (WIDTH - 2 * MARGIN) / max(1, len(names) - 1)
    parts = [_axis(top)]
    for number, (name, column) in enumerate(columns.items()):
        points = [(MARGIN + step * place, _height(value, top)) for place, value in enumerate(column)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="l{number % COLOURS}" points="{path}"><title>{escape(name)}</title></polyline>')
    ends = [(0, "start"), (len(names) - 1, "end")] if names else []
    parts += [
        f'<text x="{MARGIN + step * place:.1f}" y="{PLOT_HEIGHT - 8}" text-anchor="{anchor}">'
        f"{escape(names[place])}</text>"
        for place, anchor in ends
    ]
    return _svg(title, PLOT_HEIGHT, parts) + legend(list(columns))


def groups(title: str, values: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """For each label of `values`, a bar for each of `names`."""
    top = max((value for column in values.values() for value in column), default=0.0) or 1.0
    width = (WIDTH - 2 * MARGIN) / max(1, len(values))
    bar, parts = width * 0.8 / max(1, len(names)), [_axis(top)]
    for place, (label, column) in enumerate(values.items()):
        left = MARGIN + width * (place + 0.1)
        for number, value in enumerate(column):
            y = _height(value, top)
            parts.append(
                f'<rect class="c{number % COLOURS}" x="{left + bar * number:.1f}" y="{y:.1f}" width="{bar * 0.9:.1f}" '
                f'height="{PLOT_HEIGHT - MARGIN - y:.1f}"><title>{escape(f"{names[number]}, {label}: {value:.4f}")}'
                "</title></rect>"
            )
        middle = MARGIN + width * (place + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{PLOT_HEIGHT - 24}" text-anchor="middle">{escape(label[:16])}</text>')
    return _svg(title, PLOT_HEIGHT, parts) + legend(names)


def legend(names: Sequence[str]) -> str:
    """What the colours mean."""
    entries = [f'<span><i class="k{number % COLOURS}"></i>{escape(name)}</span>' for number, name in enumerate(names)]
    return f'<p class="legend">{"".join(entries)}</p>'


def _axis(top: float) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = _height(top * share, top)
        lines.append(
            f'<path class="grid" d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}"/>'
            f'<text x="{MARGIN - 4}" y="{y + 4:.1f}" text-anchor="end">{top * share:.2f}</text>'
        )
    return "".join(lines)


def _height(value: float, top: float) -> float:
    return PLOT_HEIGHT - MARGIN - (PLOT_HEIGHT - MARGIN - 16) * value / top


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
