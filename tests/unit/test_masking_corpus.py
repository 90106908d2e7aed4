"""Recall and precision of masking on realistic searches."""

from collections import Counter

import pytest

from tests.support.pii import PARTS, Score, scores, searches, table
from udfs.masking import mask

KINDS = ("card", "email", "iban", "ip", "national-id", "phone")
RECALL_MIN = {"tuned": 0.98, "unseen": 0.98, "late": 0.86}
RECALL_OF_A_KIND_MIN = {"tuned": 0.95, "unseen": 0.95, "late": 0.8}
PRECISION_MIN = {"tuned": 0.98, "unseen": 0.96, "late": 0.94}
PRECISION_OF_A_KIND_MIN = 0.9


@pytest.fixture(scope="module")
def by_part() -> dict[str, dict[str, Score]]:
    found = {part: scores(searches(part)) for part in PARTS}
    print("\n" + table(found))
    return found


def test_the_corpus_is_large_and_of_many_languages() -> None:
    corpus = [search for part in PARTS for search in searches(part)]
    with_identifiers = [search for search in corpus if search.marked]
    assert len(with_identifiers) >= 150
    assert len(corpus) - len(with_identifiers) >= 200
    assert len({search.language for search in with_identifiers}) >= 12
    assert len({search.text for search in corpus}) == len(corpus)
    marks = Counter(mark.kind for search in corpus for mark in search.marked)
    assert set(marks) == set(KINDS)
    assert min(marks.values()) >= 8


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.promise("masked-searches")
def test_recall_on_the_corpus_is_high(by_part: dict[str, dict[str, Score]], part: str) -> None:
    by_kind = by_part[part]
    assert by_kind["all"].recall >= RECALL_MIN[part]
    assert {kind: score.recall for kind, score in by_kind.items() if score.recall < RECALL_OF_A_KIND_MIN[part]} == {}


@pytest.mark.parametrize("part", PARTS)
def test_precision_on_the_corpus_is_high(by_part: dict[str, dict[str, Score]], part: str) -> None:
    by_kind = by_part[part]
    assert by_kind["all"].precision >= PRECISION_MIN[part]
    assert {kind: score.precision for kind, score in by_kind.items() if score.precision < PRECISION_OF_A_KIND_MIN} == {}


@pytest.mark.parametrize("part", PARTS)
def test_masking_is_idempotent(part: str) -> None:
    for search in searches(part):
        assert mask(mask(search.text)) == mask(search.text)


def test_misses_and_false_alarms_lower_the_figures() -> None:
    search = next(search for search in searches("tuned") if search.marked)
    unmarked = search._replace(marked=())
    [mark] = search.marked
    elsewhere = search._replace(text="nothing here", marked=(mark._replace(start=0, end=7),))
    score = scores([search, unmarked, elsewhere])["all"]
    assert (score.recall, score.precision) == (0.5, 0.5)
