"""Features of users, recomputed from the naive twin's profiles: nothing of `udfs.features` is used."""

from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

from schemas.events import EVENT_TYPES
from tests.support.naive import WEIGHTS, Bounds, NaiveReplay, Record
from tests.support.vocabulary import BEGINNING, KEY_RING, a_raw_consent


def naive_features(profile: Mapping[str, Any], recents_half_life_ms: int) -> dict[str, Any]:
    """The features of a plain profile (:func:`tests.support.naive.plain`), by name."""
    session, had = profile["session"], dict(profile["had"])
    items = [item for item, _, _ in profile["recents"]]
    ages = [profile["newest_ts"] - ts for _, ts, _ in profile["recents"]]
    names = [EVENT_TYPES[kind] for _, _, kind in profile["recents"]]
    return {
        **{f"count_{name}": count for name, count in zip(EVENT_TYPES, profile["counts"], strict=True)},
        "newest_ts": profile["newest_ts"],
        "session_events": session["events"] if session else 0,
        "session_ms": session["last"] - session["started"] if session else 0,
        "had_items": len(had),
        "items": items,
        "kinds": [EVENT_TYPES.index(name) + 1 for name in names],
        "ages_s": [age / 1000 for age in ages],
        "weights": [
            WEIGHTS[name] * 2.0 ** (-age / recents_half_life_ms) for name, age in zip(names, ages, strict=True)
        ],
        "had_counts": [had.get(crc32(item.encode()), 0) for item in items],
        "bought_items": profile["bought"],
    }


def profile_as_of(at: int, records: Iterable[Record], user: str, bounds: Bounds, ttl_ms: int) -> dict[str, Any] | None:
    """The profile of `user` as the running job has it at `at`; None if there is none.

    `records` are interactions in the order in which the job reads them; it forgets a user who was idle for `ttl_ms`.
    """
    replay, last = _consented(user, bounds), None
    for record in records:
        if record[1] > at:
            continue
        if last is not None and record[1] >= last + ttl_ms:
            replay = _consented(user, bounds)
        last = record[1]
        replay.feed([record])
    if last is None or at >= last + ttl_ms:
        return None
    return replay.states()[replay.pseudonym(user)]["profile"]  # type: ignore[no-any-return]


def _consented(user: str, bounds: Bounds) -> NaiveReplay:
    consent = a_raw_consent(user, at=BEGINNING)
    return NaiveReplay(KEY_RING, bounds).feed([(consent.topic, consent.append_ts, 0, consent.key, consent.value)])
