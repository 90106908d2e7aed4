"""Ingest: raw identifiers enter and do not leave, and every record ends in exactly one output."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.audit import AccessEntry
from schemas.consents import PURPOSES, Level
from schemas.events import EVENT_TS_MAX, EVENT_TS_MIN, FUTURE_SKEW_MAX_MS, CleanEvent
from schemas.ids import is_id
from schemas.rejects import RejectReason
from tests.support.examples import examples
from tests.support.vocabulary import (
    BEGINNING,
    CONSENTS,
    CONTROL,
    INTERACTIONS,
    PSEUDONYMISER,
    a_raw_command,
    a_raw_consent,
    a_raw_interaction,
    a_tombstone,
    an_ingest,
)
from udfs.elements import ConsentRecord, Element, EventRecord, unpack
from udfs.ingest import RawRecord
from udfs.personalise import clean_event
from udfs.state import UserState

INGEST = an_ingest(buckets=4)


def packed(*records: RawRecord) -> dict[int, Element]:
    return {key: unpack(raw) for key, raw in INGEST.pack(records)}


def the_event(record: RawRecord) -> EventRecord:
    [element] = packed(record).values()
    [event] = element.events
    return event


def the_consent(record: RawRecord) -> ConsentRecord:
    [element] = packed(record).values()
    [change] = element.consents
    return change


def the_reason(record: RawRecord) -> RejectReason:
    [element] = packed(record).values()
    [reject] = element.rejects
    origin = reject.origin
    assert (origin.topic, origin.partition, origin.offset) == (record.topic, record.partition, record.offset)
    assert (element.events, element.consents, element.commands) == ([], [], [])
    return reject.reason


printable = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("C", "Z")), min_size=12)
long_ids = st.tuples(*[printable.map(lambda text: f"~7Q{text}"[:64])] * 4)  # not a word of the text itself


@settings(max_examples=examples(60), deadline=None)
@given(long_ids, st.sampled_from(["search", "click"]))
@pytest.mark.promise("raw-ids-stay")
def test_no_raw_identifier_leaves(ids: tuple[str, str, str, str], kind: str) -> None:
    user, event, session, request = ids
    item = {"item": "tea"} if not any("tea" in text for text in ids) else {"item": "cup"}
    context = {"country": "NL", "email": user, "other": session}
    records = [
        a_raw_interaction(
            user,
            **item,
            kind=kind,
            id=event,
            session_id=session,
            request_id=request,
            query=f"{user} {session}",
            context=context,
        ),
        a_raw_interaction(user, id=event, session_id=session, request_id=request, item=None),
        a_raw_consent(user, tcf=session),
        a_tombstone(user),
        a_raw_consent(user, level="everything"),
    ]
    for _, raw in INGEST.pack(records):
        for text in ids:
            assert text.encode() not in raw
            assert msgspec.json.encode(text)[1:-1] not in raw


def packed_with_headers(record: RawRecord, request: bytes | None, trace: bytes | None = None) -> Element:
    [(_, raw)] = INGEST.pack([record._replace(request=request, trace=trace)])
    assert request is None or request not in raw, "raw ids go no further"
    return unpack(raw)


def test_request_of_a_record_is_hashed_as_the_gateway_does() -> None:
    hidden = PSEUDONYMISER.request("request-of-note").hex()
    [event] = packed_with_headers(a_raw_interaction(), b"request-of-note").events
    assert event.sent_by == hidden and event.trace is None
    [rejected] = packed_with_headers(a_raw_interaction()._replace(value=b"{"), b"request-of-note").rejects
    assert (rejected.reason, rejected.sent_by, rejected.shown) == (RejectReason.MALFORMED, hidden, None)


def test_reject_names_the_list_of_an_event_by_its_hash() -> None:
    record = a_raw_interaction(item="ada@example.org", request_id="list-of-note")
    [rejected] = packed_with_headers(record, None).rejects
    assert rejected.shown == PSEUDONYMISER.request("list-of-note").hex()
    [event] = packed_with_headers(a_raw_interaction(request_id="list-of-note"), None).events
    assert event.list_request() == rejected.shown, "also if it is given up later"


@pytest.mark.parametrize("header", [b"\xff\xfe", b"nonsense", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"])
def test_header_of_no_sampled_trace_is_ignored(header: bytes) -> None:
    [event] = packed_with_headers(a_raw_interaction(), None, header).events
    assert event.trace is None
    assert packed_with_headers(a_raw_interaction(), header).events[0].sent_by, "an id of any bytes has a hash"


anything = st.builds(
    RawRecord,
    st.sampled_from([INTERACTIONS, CONSENTS, CONTROL]),
    st.integers(0, 3),
    st.integers(0, 2**40),
    st.just(BEGINNING),
    st.none() | st.binary(max_size=8),
    st.none()
    | st.binary(max_size=30)
    | st.sampled_from([a_raw_interaction().value, a_raw_consent().value, a_raw_command().value]),
)


@settings(max_examples=examples(80), deadline=None)
@given(st.lists(anything | st.sampled_from([a_tombstone(), a_raw_command(bucket=9)]), max_size=20))
def test_every_record_ends_in_exactly_one_output(records: list[RawRecord]) -> None:
    """Except a record of `consents` that names another user than its key, which withdraws both."""
    elements = packed(*records)
    assert set(elements) <= {100, 101, 102, 103}
    places = [
        len(part)
        for element in elements.values()
        for part in (element.events, element.consents, element.rejects, element.commands)
    ]
    keyed = [record for record in records if record.topic == CONSENTS and record.key and record.value]
    of_two = sum(b'"user_id":"ada"' in record.value for record in keyed if record.value)
    assert len(records) <= sum(places) <= len(records) + of_two


@given(st.text(min_size=1, max_size=20).filter(is_id))
def test_user_has_stable_bucket_and_pseudonym(user: str) -> None:
    records = [a_raw_interaction(user), a_raw_consent(user), a_tombstone(user)]
    [(key, element)] = packed(*records).items()
    assert key == 100 + PSEUDONYMISER.route(user) % 4 == 100 + element.bucket
    names = {record.pseudonym for record in (*element.events, *element.consents)}
    assert names == {PSEUDONYMISER.user(user)}


def test_records_keep_their_order_within_a_bucket() -> None:
    [element] = packed(*(a_raw_interaction(id=f"e{n}", offset=n) for n in range(50))).values()
    assert [event.offset for event in element.events] == list(range(50))


@pytest.mark.parametrize(
    ("at", "appended", "reason"),
    [
        (BEGINNING + FUTURE_SKEW_MAX_MS + 1, BEGINNING, RejectReason.TIME_IN_FUTURE),
        (EVENT_TS_MAX + 1, EVENT_TS_MAX + 1, RejectReason.TIME_IN_FUTURE),
        (2**53, BEGINNING, RejectReason.TIME_IN_FUTURE),
        (EVENT_TS_MIN - 1, BEGINNING, RejectReason.TIME_TOO_OLD),
        (-1, BEGINNING, RejectReason.TIME_TOO_OLD),
    ],
)
def test_broken_clocks_are_rejected(at: int, appended: int, reason: RejectReason) -> None:
    assert the_reason(a_raw_interaction(at=at, appended=appended, partition=2, offset=7)) == reason


@pytest.mark.parametrize("at", [BEGINNING + FUTURE_SKEW_MAX_MS, EVENT_TS_MIN])
def test_small_clock_skew_and_old_events_are_accepted(at: int) -> None:
    assert the_event(a_raw_interaction(at=at, appended=BEGINNING)).ts == at


def test_interaction_tombstone_is_rejected() -> None:
    assert the_reason(a_tombstone(topic=INTERACTIONS)) == RejectReason.EMPTY_VALUE


def test_erasure_is_a_withdrawal_regardless_of_other_fields() -> None:
    change = the_consent(a_raw_consent(level="full", erase=True))
    assert (change.erase, change.level, change.purposes, change.absent) == (True, Level.NONE, 0, False)
    assert not the_consent(a_raw_consent()).erase


def test_collector_time_is_capped_by_broker_time() -> None:
    record = a_raw_consent(at=BEGINNING)
    assert the_consent(record._replace(append_ts=BEGINNING + 5)).said_at == BEGINNING
    assert the_consent(record._replace(append_ts=BEGINNING - 5)).said_at == BEGINNING - 5


def test_consent_collection_details_are_kept() -> None:
    told = {"method": "banner", "notice_version": "7", "jurisdiction": "GB"}
    change = the_consent(a_raw_consent(**told))
    assert (change.method, change.notice_version, change.jurisdiction) == ("banner", "7", "GB")


def test_consent_tombstone_removes_it() -> None:
    change = the_consent(a_tombstone("ada", BEGINNING, offset=3))
    assert (change.level, change.purposes, change.append_ts, change.offset) == (Level.NONE, 0, BEGINNING, 3)
    assert change.pseudonym == PSEUDONYMISER.user("ada")


KEY_COMMAND = b'{"kind":"key","bucket":0,"request":"r","change":"started","kid":%d,"users":%d}'
UNREADABLE = {
    "an unknown level": a_raw_consent(level="much"),
    "a field of the wrong type": a_raw_consent(expires_at="tomorrow"),
    "no time": a_raw_consent()._replace(value=b'{"user_id":"ada","level":"none"}'),
    "a TCF string beyond all bounds": a_raw_consent(tcf="x" * 70_000),
    "a purpose that nobody knows": a_raw_consent(granted=["sell"]),
    "not JSON": a_raw_consent()._replace(value=b"{"),
    "nothing": a_raw_consent()._replace(value=b""),
    "bad UTF-8": a_raw_consent()._replace(value=b'{"user_id":"ada","level":"\xff"}'),
    "too deep": a_raw_consent()._replace(value=b'{"user_id":"ada","x":' + b"[" * 20_000 + b"}"),
    "too large": a_raw_consent()._replace(value=b'{"user_id":"ada","level":"none","x":"' + b"y" * 600_000 + b'"}'),
    "no key": a_raw_consent(level="much")._replace(key=None),
}


@pytest.mark.privacy
@pytest.mark.parametrize("record", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.promise("broken-consent-withdraws")
def test_unreadable_consent_withdraws_the_user_it_names(record: RawRecord) -> None:
    change = the_consent(record)
    assert (change.pseudonym, change.level, change.purposes) == (PSEUDONYMISER.user("ada"), Level.NONE, 0)
    assert (change.method, change.said_at, change.erase) == ("unreadable_record", record.append_ts, False)


@pytest.mark.privacy
@pytest.mark.promise("broken-consent-withdraws")
def test_unreadable_consent_withdraws_user_of_another_key_too() -> None:
    elements = packed(a_raw_consent(level="much")._replace(key=b"bob"))
    changes = [change for element in elements.values() for change in element.consents]
    assert {change.pseudonym for change in changes} == {PSEUDONYMISER.user("ada"), PSEUDONYMISER.user("bob")}
    assert {(change.level, change.method) for change in changes} == {(Level.NONE, "unreadable_record")}


@pytest.mark.privacy
def test_erasure_with_other_errors_is_an_erasure() -> None:
    change = the_consent(a_raw_consent(level="much", erase=True))
    assert (change.pseudonym, change.level, change.erase) == (PSEUDONYMISER.user("ada"), Level.NONE, True)


@pytest.mark.privacy
def test_a_withdrawal_with_a_long_tcf_string_is_read() -> None:
    change = the_consent(a_raw_consent(level="none", tcf="C" * 4_642, method="banner"))
    assert (change.level, change.method) == (Level.NONE, "banner")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (a_tombstone("")._replace(key=None), RejectReason.EMPTY_VALUE),
        (a_tombstone("")._replace(key=b""), RejectReason.EMPTY_VALUE),
        (a_tombstone()._replace(key=b"\xff\xfe"), RejectReason.BAD_ENCODING),
        (a_raw_consent()._replace(key=None, value=b"{"), RejectReason.MALFORMED),
        (a_raw_consent()._replace(key=b"a\nb", value=b"{"), RejectReason.MALFORMED),
        (a_tombstone("x" * 1_000_000), RejectReason.OUT_OF_RANGE),
        (a_tombstone("a\nb"), RejectReason.CONTROL_CHARACTER),
        (a_raw_command()._replace(value=KEY_COMMAND % (10**25, 1)), RejectReason.MALFORMED),
        (a_raw_command()._replace(value=KEY_COMMAND % (1, 10**25)), RejectReason.MALFORMED),
        (a_raw_command()._replace(value=KEY_COMMAND % (-1, 1)), RejectReason.MALFORMED),
        (a_raw_command(bucket=4), RejectReason.OUT_OF_RANGE),
        (a_raw_command(kind="dance"), RejectReason.MALFORMED),
        (a_raw_command(kind="states"), RejectReason.MALFORMED),
        (a_raw_command()._replace(value=None), RejectReason.MALFORMED),
        (a_raw_interaction(item=None), RejectReason.MISSING_ITEM),
        (a_raw_interaction("a\nb"), RejectReason.CONTROL_CHARACTER),
    ],
)
def test_invalid_records_are_rejected_with_a_reason(record: RawRecord, reason: RejectReason) -> None:
    assert the_reason(record) == reason


@pytest.mark.parametrize(
    ("fields", "level", "purposes"),
    [
        ({"level": "full"}, Level.FULL, 0b111),
        ({"level": "session", "denied": ["train"]}, Level.SESSION, 0b011),
        ({"level": "full", "denied": ["personalise"]}, Level.NONE, 0b110),
        ({"level": "full", "granted": ["measure"]}, Level.NONE, 0b010),
        ({"level": "none", "granted": ["personalise"]}, Level.NONE, 0),
    ],
)
def test_level_has_no_effect_without_personalise(fields: dict[str, Any], level: Level, purposes: int) -> None:
    change = the_consent(a_raw_consent(**fields))
    assert (change.level, change.purposes) == (level, purposes)


def test_a_grant_may_expire_and_a_withdrawal_never_does() -> None:
    later = BEGINNING + 1
    assert the_consent(a_raw_consent(expires_at=later)).expires_at == later
    assert the_consent(a_raw_consent(level="none", expires_at=later)).expires_at == 0
    assert the_consent(a_raw_consent(denied=["personalise"], expires_at=later)).expires_at == later
    assert the_consent(a_raw_consent(denied=list(PURPOSES), expires_at=later)).expires_at == 0
    assert the_consent(a_raw_consent(level="session", denied=["personalise"], expires_at=later)).purposes == 0


def test_only_segment_context_is_kept() -> None:
    context = {"country": "NL", "shoe_size": "46"}
    event = the_event(a_raw_interaction(kind="search", surface="home", context=context))
    assert event.segments == ("surface:home", "country:NL")
    clean = msgspec.json.decode(event.clean)
    assert clean["context"] == {"country": "NL"}
    assert "query" not in clean


@pytest.mark.promise("masked-searches")
def test_search_text_is_kept_masked_in_clean_events_only() -> None:
    query = "red shoes for ada@example.org, +1 212 555 0134, ada-4711 again"
    event = the_event(a_raw_interaction("ada-4711", kind="search", item=None, query=query))
    clean = msgspec.json.decode(event.clean, type=CleanEvent)
    assert clean.query == "red shoes for [email], [phone], [id] again"
    elsewhere = msgspec.structs.replace(event, clean=b"")
    assert b"shoes" not in msgspec.msgpack.encode(elsewhere)


@pytest.mark.parametrize(
    "fields", [{"quantity": 0}, {"kind": "stare"}, {"kind": "click"}, {"query": "red shoes\0"}, {"shoe_size": 46}]
)
def test_search_text_is_dropped_without_clean_event(fields: dict[str, Any]) -> None:
    record = a_raw_interaction(**({"item": None, "kind": "search", "query": "red shoes"} | fields))
    [(_, packed)] = an_ingest(publish_events=False).pack([record])
    assert b"shoes" not in packed


@pytest.mark.parametrize("written", ["078-05-1120", "4111111111111111", "192.0.2.15", "212.555.0134"])
def test_segment_names_are_masked(written: str) -> None:
    event = the_event(a_raw_interaction(surface=written, context={"country": f"for {written}"}))
    assert [segment.partition(":")[2][-1] for segment in event.segments] == ["]", "]"]
    assert written.encode() not in msgspec.msgpack.encode(event)
    assert written.encode() not in event.clean


PERSONAL = ["ada@example.org", "+1 212 555 0134", "4111111111111111", "078-05-1120", "192.0.2.15"]
"""An e-mail address, a phone number, a card, a national id and an address of the net."""


@pytest.mark.privacy
@pytest.mark.parametrize("item", [*PERSONAL, "ada-4711", "ADA-4711", "session-1"])
def test_item_id_that_is_personal_is_rejected_without_trace(item: str) -> None:
    record = a_raw_interaction("ada-4711", item=item, session_id="session-1")
    assert the_reason(record) == RejectReason.PERSONAL_ITEM
    assert item.encode() not in INGEST.pack([record])[0][1]


def test_shop_item_numbers_are_accepted() -> None:
    taken = ["item-00001", "85123A", "9783161484100", "4006381333931", "B07XJ8C8F5", "1", "5d41402abc4b2a76b9719d91"]
    uuids = [f"ef5af8b2-59ed-4caf-{n:04d}-56ff2c0d6eea" for n in range(0, 10_000, 7)]
    for item in taken + uuids:
        assert the_event(a_raw_interaction("ada-4711", item=item, session_id="1")).item == item


def test_digit_item_ids_can_be_allowed() -> None:
    numbered = an_ingest(numbers_are_items=True)
    [event] = unpack(numbered.pack([a_raw_interaction(item="4111111111111111")])[0][1]).events
    assert event.item == "4111111111111111"
    for item in ("ada@example.org", "4111 1111 1111 1111", "4711"):
        [reject] = unpack(numbered.pack([a_raw_interaction("4711", item=item)])[0][1]).rejects
        assert reject.reason == RejectReason.PERSONAL_ITEM


@pytest.mark.privacy
@pytest.mark.parametrize("own", ["ada-4711", "eve"])
def test_user_id_is_masked_in_segments_and_searches(own: str) -> None:
    for user in ("somebody-else", own):
        event = the_event(a_raw_interaction(user, kind="search", surface=own, context={"country": own}, query=own))
        clean = msgspec.json.decode(event.clean, type=CleanEvent)
        said = [*(segment.partition(":")[2] for segment in event.segments), clean.surface, clean.query]
        assert set(said) == {"[id]" if user == own else own}


FREELY_SAID = [f"call with {text}" for text in PERSONAL] + ["as ada-4711 asked"]


@pytest.mark.privacy
@pytest.mark.parametrize("text", FREELY_SAID)
def test_free_text_of_consents_and_reads_is_masked_before_audit(text: str) -> None:
    """No text of a consent or a command reaches the trail unmasked."""
    given = {"method": text, "notice_version": text, "jurisdiction": "ada-4711"}
    reads = {"kind": "reads", "role": text, "purpose": text, "what": text, "user_id": "ada-4711"}
    access = {"kind": "access", "request": "r1", "role": text, "purpose": text, "user_id": "ada-4711"}
    commands = [a_raw_command()._replace(value=msgspec.json.encode(body)) for body in (reads, access)]
    for record in (a_raw_consent("ada-4711", **given), a_raw_consent("ada-4711", "none", **given), *commands):
        [(_, raw)] = INGEST.pack([record])
        element = unpack(raw)
        assert element.consents or element.accesses or element.access_requests or element.commands
        said = "ada-4711" if "ada-4711" in text else text.removeprefix("call with ")
        assert said.encode() not in raw and b"ada-4711" not in raw, record.value


@pytest.mark.privacy
def test_masked_text_stays_within_audit_limits() -> None:
    reads = {"kind": "reads", "role": "a@b.co " * 18, "purpose": "list", "what": "list", "user_id": "ada"}
    [(_, raw)] = INGEST.pack([a_raw_command()._replace(value=msgspec.json.encode(reads))])
    [access] = unpack(raw).accesses
    assert msgspec.convert(msgspec.to_builtins(access), AccessEntry) == access


def test_consent_method_is_kept_when_not_personal() -> None:
    change = the_consent(a_raw_consent(method="settings page", notice_version="2025-01", jurisdiction="GB"))
    assert (change.method, change.notice_version, change.jurisdiction) == ("settings page", "2025-01", "GB")


def test_unknown_fields_are_dropped_and_counted() -> None:
    [element] = packed(a_raw_interaction(shoe_size=46), a_raw_consent(shoe_size=46), a_raw_interaction()).values()
    assert (element.unknown_fields, len(element.events), len(element.consents)) == (2, 2, 1)
    assert b"shoe_size" not in element.events[0].clean


def test_no_clean_event_is_made_when_publishing_is_off() -> None:
    quiet = an_ingest(publish_events=False)
    [event] = unpack(quiet.pack([a_raw_interaction()])[0][1]).events
    assert clean_event(event, UserState(level=Level.FULL, purposes=7)) is None
    [loud] = unpack(an_ingest().pack([a_raw_interaction()])[0][1]).events
    assert clean_event(loud, UserState(level=Level.FULL, purposes=7)) is not None
