"""The benchmark's job without consent ignores consent, and otherwise does what the product does."""

import inspect
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ablation import UncheckedOperator, UncheckedRanker
from schemas.lists import RecommendationList, decode_list
from schemas.store import ListWrite, WriteOutcome
from tests.support.bucket import ITEMS, Bucket, Record, side
from tests.support.examples import examples
from tests.support.fakes import MemoryStore
from tests.support.vocabulary import BEGINNING, SECOND, a_consent, an_erasure, an_interaction
from udfs.operators.audit_keeper import AUDIT
from udfs.operators.outputs import CLEAN_EVENTS

LATER = BEGINNING + 10 * SECOND


class NoFence(MemoryStore):
    """Takes every list, as the script of :class:`bench.ablation.UncheckedStore` does."""

    def _write_list(self, write: ListWrite, token: str) -> WriteOutcome:
        self._lists[write.pseudonym] = write.payload, self._clock() + write.ttl_ms
        return WriteOutcome.WRITTEN


def unchecked() -> Bucket:
    return Bucket(NoFence(BEGINNING, lambda: BEGINNING), operator=UncheckedOperator, ranker=UncheckedRanker)


def list_in(bucket: Bucket, name: str = "ada") -> RecommendationList | None:
    """The list, whether or not a reader would get it."""
    raw = bucket.store._alive(bucket.store._lists, name)
    return None if raw is None else decode_list(raw)


def took(bucket: Bucket, *elements: list[Record]) -> Bucket:
    for element in elements:
        bucket.take(*element)
    return bucket


def test_ablation_lists_users_without_consent_and_product_does_not() -> None:
    product, ablation = took(Bucket(), [an_interaction()]), took(unchecked(), [an_interaction()])
    assert (list_in(product), product.user(), product.account.denied) == (None, None, 1)
    assert list_in(ablation) is not None and ablation.user() is not None
    assert (ablation.account.accepted, ablation.account.denied) == (1, 0)


def test_ablation_ranks_withdrawn_users_and_product_does_not() -> None:
    story: list[list[Record]] = [[a_consent()], [a_consent(level="none", at=LATER)], [an_interaction(at=LATER + 1)]]
    assert list_in(took(Bucket(), *story)) is None
    assert list_in(took(unchecked(), *story)) is not None


def test_ablation_checks_no_consent_and_audits_nothing() -> None:
    bucket = unchecked()
    bucket.store.tombstones = _unasked  # type: ignore[method-assign]
    emitted = bucket.take(a_consent(), an_interaction())
    bucket.restart(bucket.keyed.snapshot())
    emitted += bucket.take(an_interaction(at=LATER), an_erasure("bob", LATER))
    emitted += bucket.pass_time(20 * SECOND)
    assert side(emitted, AUDIT) == []


def _unasked(*_: Any) -> Any:
    raise AssertionError("the ablation asks for tombstones")


def test_ablation_clean_events_have_no_purposes() -> None:
    [with_consent] = side(Bucket().take(a_consent(), an_interaction()), CLEAN_EVENTS)
    [without] = side(unchecked().take(a_consent(), an_interaction()), CLEAN_EVENTS)
    assert with_consent.pop("purposes") and with_consent == without


names = st.sampled_from(["ada", "bob", "cyd"])
kinds = st.sampled_from(["click", "view", "purchase", "impression"])
events = st.builds(
    lambda user, item, kind, at: an_interaction(user, BEGINNING + at * SECOND, item, kind),
    names,
    st.sampled_from(ITEMS),
    kinds,
    st.integers(1, 40),
)
elements = st.lists(st.lists(events, min_size=1, max_size=6), min_size=1, max_size=6)


@settings(max_examples=examples(60), deadline=None)
@given(elements)
def test_ablation_equals_product_when_all_users_consent(batches: list[list[Record]]) -> None:
    consents: list[Record] = [a_consent(name) for name in ("ada", "bob", "cyd")]
    product, ablation = took(Bucket(), consents, *batches), took(unchecked(), consents, *batches)
    assert product.account == ablation.account
    for name in ("ada", "bob", "cyd"):
        assert product.user(name) == ablation.user(name)
        assert msgspec.to_builtins(list_in(product, name)) == msgspec.to_builtins(list_in(ablation, name))


def test_product_lacks_what_the_job_without_consent_checks_replaces() -> None:
    from bench import ablated_job, ablation  # raises LookupError if the product has no such name
    from jobs import workers

    replaced = inspect.signature(ablation.open_personalise_parts)
    assert replaced == inspect.signature(workers.open_personalise_parts)
    assert ablated_job.main is not None
