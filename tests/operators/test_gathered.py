"""Elements of several buckets, processed as one, do what they do one after the other."""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operators.test_failures import poison, poison_consent
from tests.support.bucket import ITEMS, Bucket, side
from tests.support.examples import examples
from tests.support.fakes import FixedModel, MemoryStore
from tests.support.gathering import Subtask, gathered
from tests.support.vocabulary import BEGINNING, SECOND, a_consent, an_erasure, an_interaction
from udfs.elements import Element, pack, unpack_gathered
from udfs.operators.audit_keeper import AUDIT
from udfs.operators.outputs import CLEAN_EVENTS, RECEIPTS, REJECTS

KEYS = {100: 3, 200: 1, 300: 2}
"""The bucket of each key."""
USERS = {key: [f"{name}-{key}" for name in ("ada", "bob", "cyd")] for key in KEYS}


class CountingModel(FixedModel):
    """Counts how often it is run."""

    runs = 0

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        self.runs += 1
        return super().score(items, weights, features)


class CountingStore(MemoryStore):
    """Counts its round trips."""

    trips = 0

    def write(self, *what: Any) -> Any:
        self.trips += 1
        return super().write(*what)


class CountingBucket(Bucket):
    def new_model(self) -> Any:
        return CountingModel(ITEMS)


def buckets() -> dict[int, CountingBucket]:
    """A bucket for each key, all with one store."""
    made: dict[int, CountingBucket] = {}
    store = CountingStore(BEGINNING, lambda: max((one.keyed.now_ms for one in made.values()), default=BEGINNING))
    for key in KEYS:
        made[key] = CountingBucket(store)
        made[key].keyed.key = key
    return made


def subtask(of: dict[int, CountingBucket]) -> Subtask:
    """All `of` them in one operator, that of the first."""
    return Subtask(next(iter(of.values())).harness.operator, {key: bucket.keyed for key, bucket in of.items()})


KINDS = ["event", "none", "session", "full", "erasure", "poison", "poison consent"]
sketches = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.sampled_from(ITEMS)), max_size=6)
"""A few records of one bucket, bad ones among them: kind, user, item."""
batches = st.lists(st.fixed_dictionaries(dict.fromkeys(KEYS, sketches)), min_size=1, max_size=6)


def records(key: int, batch: int, sketch: list[tuple[str, int, str]]) -> list[Any]:
    """The records of a sketch, each at a place of its own."""
    made: list[Any] = []
    for number, (kind, user, item) in enumerate(sketch):
        name, place = USERS[key][user], 100 * batch + number
        at = BEGINNING + place * SECOND
        if kind == "event":
            made.append(an_interaction(name, at, item, offset=place))
        elif kind == "erasure":
            made.append(an_erasure(name, at))
        elif kind == "poison":
            made.append(poison(place, name, at))
        elif kind == "poison consent":
            made.append(poison_consent(name, at))
        else:
            made.append(a_consent(name, kind, at))  # type: ignore[arg-type]
    return made


def element(key: int, found: list[Any]) -> bytes:
    events = [one for one in found if hasattr(one, "kind")]
    return pack(Element(KEYS[key], events, [one for one in found if not hasattr(one, "kind")]))


def told(emitted: list[Any]) -> dict[str, Any]:
    """What leaves the operator, without the order of buckets and the clock."""
    lines = [
        line for out in emitted if isinstance(out, tuple) and out[0] is CLEAN_EVENTS for line in out[1].split(b"\n")
    ]
    audit = [line for out in emitted if isinstance(out, tuple) and out[0] is AUDIT for line in out[1].split(b"\n")]
    chained = [msgspec.json.decode(line) for line in audit]
    return {
        "clean": Counter(lines),
        "audit": sorted((one["bucket"], one["seq"]) for one in chained),
        "letters": Counter(str(letter) for letter in side(emitted, REJECTS)),
        "receipts": sum(isinstance(out, tuple) and out[0] is RECEIPTS for out in emitted),
    }


@settings(max_examples=examples(60), deadline=None)
@given(batches)
def test_what_elements_do_depends_on_how_they_were_gathered(
    rounds: list[dict[int, list[tuple[str, int, str]]]],
) -> None:
    alone, together = buckets(), buckets()
    task = subtask(together)
    for number, found in enumerate(rounds, start=1):
        now_ms = BEGINNING + 100 * (number + 1) * SECOND
        packed = [(key, element(key, records(key, number, mine))) for key, mine in found.items() if mine]
        one_by_one: list[Any] = []
        for bucket in alone.values():
            one_by_one += bucket.harness.advance_to(now_ms)
        at_once = task.advance_to(now_ms)
        for key, raw in packed:
            one_by_one += alone[key].harness.element((key, gathered([(key, raw)])))
        if packed:
            at_once += task.take(packed)
        assert told(at_once) == told(one_by_one)
    for key in KEYS:
        assert together[key].account == alone[key].account
        for user in USERS[key]:
            assert together[key].user(user) == alone[key].user(user)
            assert together[key].list(user) == alone[key].list(user)
        assert together[key].keyed.timers == alone[key].keyed.timers


def test_the_model_runs_and_redis_is_asked_once_for_each_bucket() -> None:
    made = buckets()
    task = subtask(made)
    first = next(iter(made.values()))
    task.take([(key, element(key, [a_consent(user) for user in USERS[key]])) for key in KEYS])
    runs, trips = first.model.runs, first.store.trips
    at = BEGINNING + SECOND
    task.take([(key, element(key, [an_interaction(user, at) for user in USERS[key]])) for key in KEYS])
    assert (first.model.runs, first.store.trips) == (runs + 1, trips + 1)
    assert all(made[key].list(user) for key in KEYS for user in USERS[key])


def test_elements_of_one_bucket_lose_records_when_they_are_joined() -> None:
    at = BEGINNING + SECOND
    first = Element(3, [an_interaction("ada", at)], [a_consent("ada")], unknown_fields=2, links={"ada": "before"})
    second = Element(3, [an_interaction("bob", at)], [a_consent("bob")], unknown_fields=3, links={"bob": "once"})
    other = Element(1, [an_interaction("cyd", at)])
    found = unpack_gathered(gathered([(100, pack(first)), (200, pack(other)), (100, pack(second))]))
    assert list(found) == [100, 200]
    assert found[200] == other
    assert [event.pseudonym for event in found[100].events] == ["ada", "bob"]
    assert [change.pseudonym for change in found[100].consents] == ["ada", "bob"]
    assert (found[100].unknown_fields, found[100].links) == (5, {"ada": "before", "bob": "once"})
