"""Whatever a codec or a rule raises, a record ends in exactly one output, and a consent never fails open."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.rejects import RejectReason
from schemas.wire.codecs import json_codec
from tests.support.examples import examples
from tests.support.vocabulary import BEGINNING, PSEUDONYMISER, TOPICS, a_raw_consent, a_raw_interaction
from udfs.elements import Element, unpack
from udfs.ingest import Ingest, RawRecord


class Faulty:
    """A codec with faults: it raises for the user `raises`, and returns unencodable numbers for `huge`."""

    mapped = None

    def __init__(self) -> None:
        self._codec = json_codec()

    def interaction(self, value: bytes) -> tuple[Interaction, bool]:
        event, unknown = self._codec.interaction(value)
        if event.user_id == "raises":
            raise ZeroDivisionError
        if event.user_id == "huge":
            event = msgspec.structs.replace(event, schema_v=2**70)
        return event, unknown

    def consent(self, value: bytes) -> tuple[ConsentChange, bool]:
        change, unknown = self._codec.consent(value)
        if change.user_id == "raises":
            raise ZeroDivisionError
        if change.user_id == "huge":
            change.expires_at = 2**70
        if change.user_id == "odd":
            change.level = "some"  # type: ignore[assignment]
        return change, unknown


def packed(*records: RawRecord) -> list[Element]:
    faulty: Any = Faulty()
    ingest = Ingest(TOPICS, faulty, PSEUDONYMISER, [100, 101], (), publish_events=False)
    return [unpack(raw) for _, raw in ingest.pack(records)]


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.sampled_from(["ada", "bob", "raises", "huge"]), max_size=12))
@pytest.mark.promise("poison-is-cut-out")
def test_unexpectedly_failing_records_become_dead_letters(users: list[str]) -> None:
    records = [a_raw_interaction(user, id=f"e{n}", offset=n) for n, user in enumerate(users)]
    elements = packed(*records)
    taken = sorted(event.offset for element in elements for event in element.events)
    rejected = sorted((reject.origin.offset, reject.reason) for element in elements for reject in element.rejects)
    assert taken == [n for n, user in enumerate(users) if user in ("ada", "bob")]
    wrong = [n for n, user in enumerate(users) if user not in ("ada", "bob")]
    assert rejected == [(n, RejectReason.NOT_CARRIED_OUT) for n in wrong]
    assert not {event.pseudonym for element in elements for event in element.events if event.offset in wrong}


@pytest.mark.privacy
@pytest.mark.parametrize("user", ["raises", "huge", "odd"])
@pytest.mark.parametrize("level", ["full", "none"])
def test_unexpectedly_failing_consent_counts_as_withdrawal(user: str, level: str) -> None:
    elements = packed(a_raw_consent("ada", "full"), a_raw_consent(user, level, offset=7))
    [change] = [change for element in elements for change in element.consents if change.offset == 7]
    assert (change.pseudonym, change.level, change.purposes) == (PSEUDONYMISER.user(user), 0, 0)
    assert change.append_ts == BEGINNING
    [ada] = [change for element in elements for change in element.consents if change.offset != 7]
    assert ada.level == 2
