"""The result of an evaluation as one HTML page: styles and plots are in it, scripts and other files are not needed."""

from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from evaluation.bootstrap import DRAWS
from evaluation.measures import mean
from evaluation.plots import bars, curves, groups
from evaluation.steps import Protocol
from evaluation.study import ONLINE, PRINTED, Comparison, Study, sentence

POINTS: Final = 20
ABOUT: Final = {
    Protocol.PREQUENTIAL: "Each step is first asked about, then taught; questions in the second half of the events "
    "count.",
    Protocol.GLOBAL_TIME: "The first four fifths of the events are taught, steps in the last fifth are asked about. "
    "Histories go on, models do not.",
    Protocol.LEAVE_ONE_OUT: "The last step of each user is asked about, after all other steps were taught, also later "
    "ones of other users. Figures are therefore higher than in a stream.",
}
STYLE: Final = """
:root{--ink:#1c1e21;--soft:#667;--line:#d8dbe0;--paper:#fff;--c0:#0b63ce;--c1:#9aa5b1;--c2:#d9822b;--c3:#2f9e60}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa;--line:#3a3f45;--paper:#16181b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:780px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}
table{border-collapse:collapse;width:100%;font-size:.87rem}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}tr.ours{font-weight:600}p.soft{color:var(--soft)}
svg{max-width:100%;height:auto;font-size:12px}svg text{fill:var(--ink)}svg .name{text-anchor:end}
.c0,.k0{fill:var(--c0);background:var(--c0)}.c1,.k1{fill:var(--c1);background:var(--c1)}
.c2,.k2{fill:var(--c2);background:var(--c2)}.c3,.k3{fill:var(--c3);background:var(--c3)}
.l0,.l1,.l2,.l3{fill:none;stroke-width:2}.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}
.grid{stroke:var(--line);fill:none}.interval{stroke:var(--ink);fill:none}
.legend span{margin-right:1rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
"""


def page(found: Study, source: str) -> str:
    """The page; `source` is the name of the file."""
    order = "Each line is a step." if found.options.in_order else "What a user did at one moment is a step, as a set."
    body = [
        "<h1>How good the lists are</h1>",
        f"<p>{escape(source)}: {found.interactions:,} interactions that count, {found.items:,} items. "
        f"Protocol: {found.options.protocol.value}. {ABOUT[found.options.protocol]} {order} Lists rank all items.</p>",
        f'<p class="soft">Intervals (95 %) draw users with all of their questions, {DRAWS:,} times, seed '
        f"{found.options.seed}.</p>",
        *(_section(name, table) for name, table in found.tables.items()),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>How good the lists are</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _section(name: str, table: Comparison) -> str:
    ranked = sorted(table.measured, key=lambda method: (method != ONLINE, -table.ndcg(method)))
    parts = [
        f"<h2>{'All items' if name == 'all' else 'Items that are new to the user'}</h2>",
        f"<p>{len(table.times_ms):,} questions. The best simple method in hindsight: {escape(table.best_simple)}.</p>",
        bars("nDCG@10 by method", {method: table.intervals[method] for method in ranked}),
        _methods(table, ranked),
        "<h3>The online model, minus others</h3><ul>",
        *(f"<li>{escape(other)}: {sentence(each)}</li>" for other, each in table.differences.items()),
        "</ul><h3>nDCG@10 over time</h3>",
        _over_time(table),
        *(_segments(table, dimension) for dimension in table.labels),
    ]
    return "".join(parts)


def _methods(table: Comparison, ranked: Sequence[str]) -> str:
    head = "".join(f"<th>{measure}</th>" for measure in PRINTED)
    rows = []
    for method in ranked:
        values = table.measured[method].table()
        cells = "".join(f"<td>{values[measure]:.4f}</td>" for measure in PRINTED)
        rows.append(f"<tr{' class=ours' if method == ONLINE else ''}><td>{escape(method)}</td>{cells}</tr>")
    return f"<table><tr><th>method</th>{head}</tr>{''.join(rows)}</table>"


def _over_time(table: Comparison) -> str:
    parts = np.array_split(np.arange(len(table.times_ms)), min(POINTS, len(table.times_ms)))
    names = [str(np.datetime64(table.times_ms[part[0]], "ms").astype("M8[D]")) for part in parts]
    columns = {
        method: [mean(table.measured[method].column("ndcg@10")[part]) for part in parts] for method in table.shown()
    }
    return curves("nDCG@10 over time", names, columns)


def _segments(table: Comparison, dimension: str) -> str:
    found, names = table.segments(dimension), table.shown()
    if len(found) < 2:
        return ""
    values = {label: [row[name] for name in names] for label, row in found.items()}
    sizes = ", ".join(f"{escape(label)}: {row['questions']:,.0f}" for label, row in found.items())
    plot = groups(f"nDCG@10 by {dimension}", values, names)
    return f'<h3>nDCG@10 by {escape(dimension)}</h3>{plot}<p class="soft">Questions: {sizes}.</p>'
