"""What share of identifiers in real-looking searches is found, and what share of what is found is one."""

from collections import Counter

import pytest

from tests.support.pii import HALVES, Score, scores, searches, table
from udfs.masking import mask

KINDS = ("card", "email", "iban", "ip", "national-id", "phone")
RECALL_MIN = 0.98
PRECISION_MIN = {"tuned": 0.98, "unseen": 0.96}
PRECISION_OF_A_KIND_MIN = 0.93


@pytest.fixture(scope="module")
def by_half() -> dict[str, dict[str, Score]]:
    found = {half: scores(searches(half)) for half in HALVES}
    print("\n" + table(found))
    return found


def test_the_corpus_is_large_and_of_many_languages() -> None:
    corpus = [search for half in HALVES for search in searches(half)]
    with_identifiers = [search for search in corpus if search.marked]
    assert len(with_identifiers) >= 150
    assert len(corpus) - len(with_identifiers) >= 200
    assert len({search.language for search in with_identifiers}) >= 12
    assert len({search.text for search in corpus}) == len(corpus)
    marks = Counter(mark.kind for search in corpus for mark in search.marked)
    assert set(marks) == set(KINDS)
    assert min(marks.values()) >= 8


@pytest.mark.parametrize("half", HALVES)
def test_hardly_an_identifier_gets_through(by_half: dict[str, dict[str, Score]], half: str) -> None:
    assert {kind: score.recall for kind, score in by_half[half].items() if score.recall < RECALL_MIN} == {}


@pytest.mark.parametrize("half", HALVES)
def test_hardly_a_search_without_identifiers_is_touched(by_half: dict[str, dict[str, Score]], half: str) -> None:
    by_kind = by_half[half]
    assert by_kind["all"].precision >= PRECISION_MIN[half]
    assert {kind: score.precision for kind, score in by_kind.items() if score.precision < PRECISION_OF_A_KIND_MIN} == {}


@pytest.mark.parametrize("half", HALVES)
def test_what_is_masked_once_is_masked_for_good(half: str) -> None:
    for search in searches(half):
        assert mask(mask(search.text)) == mask(search.text)


def test_a_miss_and_a_false_alarm_lower_the_figures() -> None:
    search = next(search for search in searches("tuned") if search.marked)
    unmarked = search._replace(marked=())
    [mark] = search.marked
    elsewhere = search._replace(text="nothing here", marked=(mark._replace(start=0, end=7),))
    score = scores([search, unmarked, elsewhere])["all"]
    assert (score.recall, score.precision) == (0.5, 0.5)
