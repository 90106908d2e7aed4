"""The corpus of searches with and without identifiers, and detection rates: ``python -m tests.support.pii``.

A line of ``tests/golden/pii/*.tsv`` is a language and a search, with each identifier as ``⟦kind|text⟧``; what an editor
would not show is written as ``\\uXXXX``. Identifiers are examples of their issuers, numbers reserved for films and
documentation, or invented with a valid check digit. `tuned` and `unseen` are halves of what was collected before the
patterns were written: they were tuned on one, and the other was only counted. `late` was collected after that, to be
hard: numbers in unusual groups, addresses with slips of the finger, rows of sizes.

A marked identifier is found if one span of its kind covers all of it; a span is right if it touches one of its kind.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from udfs.masking import find
from udfs.spans import Span

PARTS: Final = ("tuned", "unseen", "late")
_FOLDER: Final = Path(__file__).parents[1] / "golden" / "pii"
_MARKED: Final = re.compile(r"⟦([a-z-]+)\|(.+?)⟧")
_ESCAPE: Final = re.compile(r"\\u([0-9a-f]{4})")


class Search(NamedTuple):
    language: str
    text: str
    marked: tuple[Span, ...]


class Score(NamedTuple):
    """For one kind: identifiers in the corpus, those found, spans reported, and correct spans."""

    there: int
    found: int
    reported: int
    right: int

    @property
    def recall(self) -> float:
        return self.found / self.there if self.there else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.reported if self.reported else 1.0


def searches(part: str) -> list[Search]:
    lines = (_FOLDER / f"{part}.tsv").read_text(encoding="utf-8").split("\n")
    return [_search(*line.split("\t")) for line in lines if line]


def _search(language: str, written: str) -> Search:
    written = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), written)
    text, place, marked = "", 0, []
    for mark in _MARKED.finditer(written):
        text += written[place : mark.start()]
        marked.append(Span(len(text), len(text) + len(mark[2]), mark[1]))
        text += mark[2]
        place = mark.end()
    return Search(language, text + written[place:], tuple(marked))


def scores(corpus: list[Search]) -> dict[str, Score]:
    """By kind, and for `all`."""
    there, found, reported, right = Counter(), Counter(), Counter(), Counter()
    for search in corpus:
        spans = find(search.text)
        there.update(mark.kind for mark in search.marked)
        found.update(mark.kind for mark in search.marked if any(_covers(span, mark) for span in spans))
        reported.update(span.kind for span in spans)
        right.update(span.kind for span in spans if any(_touches(span, mark) for mark in search.marked))
    kinds = sorted({*there, *reported})
    by_kind = {kind: Score(there[kind], found[kind], reported[kind], right[kind]) for kind in kinds}
    return by_kind | {"all": Score(there.total(), found.total(), reported.total(), right.total())}


def _covers(span: Span, mark: Span) -> bool:
    return span.kind == mark.kind and span.start <= mark.start and mark.end <= span.end


def _touches(span: Span, mark: Span) -> bool:
    return span.kind == mark.kind and span.start < mark.end and mark.start < span.end


def table(by_part: dict[str, dict[str, Score]]) -> str:
    lines = [f"{'part':8} {'kind':12} {'there':>5} {'found':>5} {'false':>5} {'recall':>7} {'precision':>9}"]
    for part, by_kind in by_part.items():
        for kind, score in by_kind.items():
            counts = f"{score.there:5} {score.found:5} {score.reported - score.right:5}"
            lines.append(f"{part:8} {kind:12} {counts} {score.recall:7.3f} {score.precision:9.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table({part: scores(searches(part)) for part in PARTS}))
