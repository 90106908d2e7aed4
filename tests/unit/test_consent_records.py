"""The rule for which users a record of `consents` names, for the job and its commands, in every format."""

import json
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.schema_sources import codec_of, writer_of
from privacy.consent_topic import read_record
from schemas.consents import ConsentChange
from schemas.errors import SchemaError
from schemas.wire import avro_codec, protobuf_codec
from schemas.wire.codec_choice import InputSettings
from schemas.wire.codecs import BadRecord, Codec, json_codec
from schemas.wire.confluent import Form, frame
from schemas.wire.consent_records import FOREIGN_KEY, NAMED_MAX, UNREADABLE, consents_in, is_user_id
from schemas.wire.naming import TOKENS_MAX
from schemas.wire.raw_records import in_consents
from schemas.wire.writers import WriteSettings
from tests.golden.schemas import CONSENT_2
from tests.support.vocabulary import BEGINNING, PSEUDONYMISER, TOPICS, a_raw_consent
from udfs.elements import unpack
from udfs.ingest import Ingest, RawRecord

pytestmark = pytest.mark.privacy

FORMATS = ("json", "avro", "protobuf")
CODECS: dict[str, Codec] = {name: codec_of(InputSettings(name)) for name in FORMATS}  # type: ignore[arg-type]
WRITE: dict[str, Callable[[ConsentChange], bytes]] = {
    name: writer_of(WriteSettings(name)).consent  # type: ignore[arg-type]
    for name in FORMATS
}
every_format = pytest.mark.parametrize("format", FORMATS)
GRANT = ConsentChange("ada", "full", BEGINNING, method="banner")


def all_said(codec: Codec, key: bytes | None, value: bytes | None) -> list[ConsentChange]:
    """The consents as the job reads them, and as all other readers do."""
    said = consents_in(codec, key, value, BEGINNING + 7)
    assert read_record(codec, key, value, BEGINNING + 7) == said
    return [one.change for one in said]


def said(format: str, key: bytes | None, value: bytes | None) -> ConsentChange:
    [change] = all_said(CODECS[format], key, value)
    return change


@every_format
@pytest.mark.parametrize("key", [b"", b'"ada"', b'{"user_id":"ada"}', b"\xff", b"a\nb", b"\0\0\0\0\x07\x06ada"])
@pytest.mark.promise("broken-consent-withdraws")
def test_grant_under_foreign_key_is_a_withdrawal(format: str, key: bytes) -> None:
    assert said(format, key, WRITE[format](GRANT)) == ConsentChange("ada", "none", BEGINNING + 7, method=FOREIGN_KEY)


@every_format
@pytest.mark.parametrize("erase", [False, True])
def test_withdrawal_under_foreign_key_holds_and_is_reported(format: str, erase: bool) -> None:
    change = ConsentChange("ada", "none" if not erase else "full", BEGINNING, method="banner", erase=erase)
    assert all_said(CODECS[format], b"bob", WRITE[format](change)) == [
        msgspec.structs.replace(change, method=FOREIGN_KEY),
        ConsentChange("bob", "none", BEGINNING + 7, method=FOREIGN_KEY),
    ]


@every_format
@pytest.mark.parametrize("key", [b"bob", b"\0\0\0\0\x07\x06bob"])
@pytest.mark.promise("broken-consent-withdraws")
def test_grant_under_the_key_of_another_user_withdraws_both(format: str, key: bytes) -> None:
    changes = all_said(CODECS[format], key, WRITE[format](GRANT))
    assert {change.user_id for change in changes} >= {"ada", "bob"}
    assert {(change.level, change.erase, change.method) for change in changes} == {("none", False, FOREIGN_KEY)}


@every_format
@pytest.mark.parametrize("key", [None, b"ada"])
def test_record_under_its_own_key_is_taken_as_is(format: str, key: bytes | None) -> None:
    assert said(format, key, WRITE[format](GRANT)) == GRANT


def test_foreign_key_is_audited() -> None:
    raw = a_raw_consent("ada")._replace(key=b"bob")
    [(_, element)] = Ingest(TOPICS, json_codec(), PSEUDONYMISER, [100], ()).pack([raw])
    told = [(change.pseudonym, change.level, change.purposes, change.method) for change in unpack(element).consents]
    assert told == [(PSEUDONYMISER.user(user), 0, 0, "foreign_key") for user in ("ada", "bob")]


def withdrawn(codec: Codec, key: bytes | None, value: bytes | None) -> set[str]:
    try:
        changes = all_said(codec, key, value)
    except BadRecord:
        return set()
    assert all(change.level == "none" for change in changes)
    return {change.user_id for change in changes}


def whom(format: str, key: bytes | None, value: bytes) -> str:
    users = withdrawn(CODECS[format], key, value)
    assert not users or {change.method for change in all_said(CODECS[format], key, value)} == {UNREADABLE}
    return " ".join(sorted(users))


@every_format
def test_invalid_record_withdraws_its_user(format: str) -> None:
    for wrong in ({"level": "some"}, {"ts": 1}, {"method": "x" * 100}, {"jurisdiction": "E U"}):
        value = WRITE[format](msgspec.structs.replace(GRANT, **wrong))
        keys = b"ada", b'"ada"', b"bob", b"\xff", None
        assert [whom(format, key, value) for key in keys] == ["ada", "ada", "ada bob", "ada", "ada"]
        value = WRITE[format](msgspec.structs.replace(GRANT, erase=True, **wrong))
        erased = {change.user_id: change.erase for change in all_said(CODECS[format], b"bob", value)}
        assert erased == {"ada": True, "bob": False}


@every_format
def test_truncated_record_withdraws_user_of_key_or_readable_part(format: str) -> None:
    value = WRITE[format](CONSENT_2)
    named = 0
    for end in range(1, len(value) - 1):
        cut = value[:end]
        try:
            CODECS[format].consent(cut)
            continue  # Protobuf can be cut between two fields
        except BadRecord:
            pass
        assert whom(format, b"bob", cut) in ("bob", "ada", "ada bob"), "a whole form names the user itself"
        assert whom(format, b"bob", b"\x06ad" if format == "avro" else b"\xff\xff") == "bob"
        found = whom(format, None, cut)
        assert found in ("", "ada")
        named += found == "ada"
    assert named > len(value) / 2, "the user stands at the beginning"


@every_format
@given(st.binary(max_size=60), st.none() | st.sampled_from([b"ada", b"\xff", b""]))
def test_arbitrary_bytes_raise_bad_record_only(format: str, value: bytes, key: bytes | None) -> None:
    for raw in (value, value + WRITE[format](CONSENT_2), WRITE[format](CONSENT_2) + value, frame(7, value)):
        try:
            changes = all_said(CODECS[format], key, raw)
        except BadRecord:
            continue
        assert len({change.user_id for change in changes}) == len(changes) > 0
        assert len(changes) == 1 or all(change.level == "none" for change in changes)


def test_truncated_framed_record_names_its_user() -> None:
    schema = {
        "type": "record",
        "name": "Consent",
        "namespace": "shop",
        "fields": [
            {"name": "at", "type": {"type": "record", "name": "At", "fields": [{"name": "ts", "type": "long"}]}},
            {"name": "user_id", "type": "string"},
            {"name": "level", "type": {"type": "enum", "name": "Level", "symbols": ["none", "full"]}},
        ],
    }

    class Source:
        def fetch(self, form: Form, schema_id: int) -> bytes | None:
            return msgspec.json.encode(schema)

    stream = BytesIO()
    fastavro.schemaless_writer(stream, schema, {"at": {"ts": 5}, "user_id": "ada", "level": "full"})
    codec = avro_codec.avro_codec(Source())
    whole, cut = frame(5, stream.getvalue()), frame(5, stream.getvalue()[:-1])
    assert withdrawn(codec, b"\xff", whole) == {"ada"}
    assert withdrawn(codec, b"\xff", cut) == {"ada"}
    assert withdrawn(codec, b"bob", cut) == {"bob"}


@every_format
@pytest.mark.parametrize("value", [b"{", None])
@pytest.mark.parametrize(
    "key", ["ada".encode("utf-16"), "ada".encode("utf-16-le"), "ada".encode("utf-32"), b"\xac\xed\0\5t\0\3ada"]
)
def test_broken_consent_under_an_unreadable_key_is_a_dead_letter(format: str, key: bytes, value: bytes | None) -> None:
    """A key in UTF-16 or as Java serialises a String names nobody."""
    records = [a_raw_consent()._replace(key=key, value=value)]
    [(_, raw)] = Ingest(TOPICS, CODECS[format], PSEUDONYMISER, [100], ()).pack(records)
    element = unpack(raw)
    assert element.consents == [] and [reject.origin.topic for reject in element.rejects] == [TOPICS.consents]


IDS = st.text(min_size=1, max_size=40).filter(is_user_id)
KEYS_OF_NOBODY = st.none() | st.sampled_from([b"", b"\xff", b"k1", b"\0\0\0\0\x07k1", b"{"])
BOM = b"\xef\xbb\xbf"
AROUND = st.lists(st.sampled_from([b" ", b"\n", b"\r\n", b"\t", b"\0", BOM]), max_size=4).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A user, and a withdrawal of theirs in JSON, damaged as producers and files damage JSON."""
    user_id = draw(IDS)
    first: list[dict[str, Any]] = [{}, {"schema_v": 1}, {"x": {"user_id": "eve"}}]
    before, after = draw(st.sampled_from(first)), {"level": "none", "ts": 5}
    escaped = draw(st.booleans())
    head = json.dumps(before | {"user_id": user_id}, ensure_ascii=escaped)[:-1]
    text = head + ", " + json.dumps(after)[1:]
    cut = text[: draw(st.integers(len(head), len(text)))]
    raw = cut.encode()
    match draw(st.sampled_from(["plain", "framed", "UTF-16", "twice", "in a list"])):
        case "framed":
            return user_id, frame(draw(st.integers(1, 2**31 - 1)), draw(AROUND) + raw) + draw(AROUND)
        case "UTF-16":
            return user_id, cut.encode(draw(st.sampled_from(["utf-16", "utf-16-le", "utf-16-be"])))
        case "twice":
            return user_id, json.dumps(cut).encode()
        case "in a list":
            return user_id, b"[" + raw + draw(st.sampled_from([b"]", b""]))
    return user_id, draw(AROUND) + raw + draw(AROUND) + draw(st.sampled_from([b"", b"}", b"\xff", b"\0\0", b"rest"]))


@every_format
@given(damaged(), KEYS_OF_NOBODY)
@pytest.mark.promise("broken-consent-withdraws")
def test_json_damaged_after_the_user_id_withdraws(format: str, record: tuple[str, bytes], key: bytes | None) -> None:
    user_id, value = record
    assert user_id in withdrawn(CODECS[format], key, value)
    elements = Ingest(TOPICS, CODECS[format], PSEUDONYMISER, [100], ()).pack(
        [a_raw_consent()._replace(key=key, value=value)]
    )
    consents = [consent for _, raw in elements for consent in unpack(raw).consents]
    assert PSEUDONYMISER.user(user_id) in {consent.pseudonym for consent in consents if consent.level == 0}


AS_KEYS: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "JSON": lambda user_id: json.dumps(user_id).encode(),
    "a JSON object": lambda user_id: json.dumps({"user_id": user_id}).encode(),
    "framed": lambda user_id: frame(7, user_id.encode()),
    "framed JSON": lambda user_id: frame(7, json.dumps(user_id, ensure_ascii=False).encode()),
    "a framed JSON object": lambda user_id: frame(7, json.dumps({"user_id": user_id}).encode()),
    "framed Avro": lambda user_id: frame(7, as_avro(user_id)),
}


def as_avro(text: str) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, "string", text)
    return stream.getvalue()


@every_format
@pytest.mark.parametrize("form", AS_KEYS)
@given(IDS, st.sampled_from([None, b"", b"garbage", b"{"]))
@pytest.mark.promise("broken-consent-withdraws")
def test_a_key_as_serialisers_write_it_names_its_user(
    format: str, form: str, user_id: str, value: bytes | None
) -> None:
    assert user_id in withdrawn(CODECS[format], AS_KEYS[form](user_id), value)


@given(IDS, st.none() | st.just(b"{"))
def test_plain_key_names_its_user_only(user_id: str, value: bytes | None) -> None:
    key = user_id.encode()
    if not user_id.startswith(('"', "{")):
        assert withdrawn(CODECS["json"], key, value) == {user_id}


def test_only_tombstones_under_the_users_key_delete() -> None:
    said = consents_in(CODECS["json"], b'"ada"', None, BEGINNING)
    assert [(one.change.user_id, one.absent, one.change.method) for one in said] == [
        ('"ada"', True, None),
        ("ada", False, FOREIGN_KEY),
    ]


def test_key_and_broken_json_naming_two_users_withdraw_both() -> None:
    cut = b'{"user_id":"ada","level":"no'
    assert withdrawn(CODECS["json"], b"bob", cut) == {"ada", "bob"}
    records = [a_raw_consent()._replace(key=b"bob", value=cut)]
    elements = Ingest(TOPICS, CODECS["json"], PSEUDONYMISER, [100, 101, 102], ()).pack(records)
    found = {consent.pseudonym for _, raw in elements for consent in unpack(raw).consents}
    assert found == {PSEUDONYMISER.user("ada"), PSEUDONYMISER.user("bob")}


FIELDS = {
    "user_id": '"ada"',
    "level": '"full"',
    "ts": "1767225600000.0",
    "granted": '["personalise"]',
    "expires_at": str(BEGINNING + 9),
    "erase": "false",
    "gpc": "false",
    "colour": '"red"',
}


@every_format
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("spelled", [str, lambda name: name[:-1] + f"\\u{ord(name[-1]):04x}"], ids=["plain", "escaped"])
@pytest.mark.promise("broken-consent-withdraws")
def test_json_with_a_repeated_field_withdraws(format: str, name: str, spelled: Callable[[str], str]) -> None:
    once = "{" + ",".join(f'"{name}":{value}' for name, value in FIELDS.items()) + "}"
    assert said(format, b"ada", once.encode()).level == "full"
    twice = once[:-1] + f',"{spelled(name)}":{FIELDS[name]}' + "}"
    for raw in (twice.encode(), frame(7, twice.encode())):
        assert said(format, b"ada", raw) == ConsentChange("ada", "none", BEGINNING + 7, method=UNREADABLE)


def test_repeated_field_is_audited_and_no_dead_letter() -> None:
    value = b'{"user_id":"ada","level":"none","ts":%d,"level":"full"}' % BEGINNING
    records = [a_raw_consent()._replace(key=b"ada", value=value)]
    [(_, raw)] = Ingest(TOPICS, CODECS["json"], PSEUDONYMISER, [100], ()).pack(records)
    element = unpack(raw)
    assert [(one.level, one.purposes, one.method) for one in element.consents] == [(0, 0, UNREADABLE)]
    assert not element.rejects


@pytest.mark.parametrize(
    ("erase", "erased"),
    [('"erase":true', True), ('"erase":true,"erase":true', True), ('"erase":false,"erase":true', False)],
)
def test_contradicting_erase_fields_do_not_erase(erase: str, erased: bool) -> None:
    value = f'{{"user_id":"ada","level":"none","ts":5,{erase}}}'.encode()
    assert said("json", b"ada", value).erase is erased, "an erasure cannot be taken back"


@pytest.mark.parametrize(
    "value",
    [
        b'{"user_id":"ada","user_id":"bob","level":"none","ts":5}',
        b'{"user_id":"ada","user_id":"bob","level":"no',
        b'[{"user_id":"ada","level":"none"},{"user_id":"bob","level":"none"}]',
        b'{"user_id":"ada","level":"none"}\n{"user_id":"bob","level":"none"}\n',
    ],
)
@pytest.mark.promise("broken-consent-withdraws")
def test_all_users_of_one_record_withdraw(value: bytes) -> None:
    assert withdrawn(CODECS["json"], None, value) == {"ada", "bob"}
    assert withdrawn(CODECS["json"], b"eve", value) == {"ada", "bob", "eve"}
    assert in_consents(CODECS["json"])(value) == {"ada", "bob"}, "and the record is both theirs"
    assert withdrawn(CODECS["json"], value, None) >= {"ada", "bob"}


@pytest.mark.parametrize("many", [b'{"user_id":"ada%d"}', b'"user_id":"ada%d"'])
def test_number_of_users_withdrawn_by_one_record_is_limited_and_reported(many: bytes) -> None:
    for count in (NAMED_MAX, NAMED_MAX + 1):
        value = b",".join(many % number for number in range(count))
        for raw in (value, b"{" + value + b"}", b"[" + value + b"]"):
            assert len(withdrawn(CODECS["json"], None, raw)) == NAMED_MAX
            assert len(in_consents(CODECS["json"])(raw)) == count, "it is found for each of them"
            records = [a_raw_consent()._replace(key=b"bob", value=raw)]
            elements = [
                unpack(one) for _, one in Ingest(TOPICS, CODECS["json"], PSEUDONYMISER, [100], ()).pack(records)
            ]
            assert PSEUDONYMISER.user("bob") in {one.pseudonym for element in elements for one in element.consents}
            reasons = [reject.reason for element in elements for reject in element.rejects]
            assert reasons == ["too_many_users"], "bob is one more"
    few = a_raw_consent()._replace(key=b"bob", value=many % 1 + b"," + many % 2)
    [(_, one)] = Ingest(TOPICS, CODECS["json"], PSEUDONYMISER, [100], ()).pack([few])
    assert unpack(one).rejects == []


@every_format
@pytest.mark.parametrize("twice", ["user_id", "level", "colour"])
@pytest.mark.promise("broken-consent-withdraws")
def test_json_with_a_repeated_field_withdraws_user_of_key_too(format: str, twice: str) -> None:
    once = "{" + ",".join(f'"{name}":{value}' for name, value in FIELDS.items())
    assert whom(format, b"u", (once + f',"{twice}":{FIELDS[twice]}' + "}").encode()) == "ada u"


@every_format
@pytest.mark.parametrize("user_id", [" u ", "other"])
@pytest.mark.parametrize("level", ["none", "full"])
def test_record_of_another_user_withdraws_user_of_key(format: str, user_id: str, level: Any) -> None:
    value = WRITE[format](ConsentChange(user_id, level, BEGINNING))
    assert withdrawn(CODECS[format], b"u", value) == {user_id, "u"}


MEANT = {
    "user_id": ["User_ID", "userId", "user-id", " user_id"],
    "level": ["Level", "LEVEL", "level ", "\u00a0level", "le\u200bvel", "\uff4cevel", "level\n"],
    "denied": ["Denied", "denied[]"],
    "expires_at": ["expiresAt", "expires-at", "EXPIRES_AT", "expires at"],
}
NAMES_MEANT = [name for names in MEANT.values() for name in names]


@every_format
@pytest.mark.parametrize("name", NAMES_MEANT)
@pytest.mark.promise("broken-consent-withdraws")
def test_json_field_resembling_a_known_one_withdraws(format: str, name: str) -> None:
    value = json.dumps({"user_id": "ada", "level": "full", "ts": BEGINNING, name: "none"}).encode()
    for raw in (value, frame(7, value)):
        assert "ada" in whom(format, b"ada", raw).split()
        assert "u" in whom(format, b"u", raw).split()


@pytest.mark.parametrize("name", MEANT["user_id"])
def test_user_in_a_field_resembling_user_id_withdraws(name: str) -> None:
    assert withdrawn(CODECS["json"], None, json.dumps({name: "ada", "level": "none"}).encode()) == {"ada"}
    both = json.dumps({"user_id": "bob", "level": "none", name: "ada", "ts": BEGINNING}).encode()
    assert withdrawn(CODECS["json"], None, both) == {"ada", "bob"}


@every_format
@pytest.mark.parametrize("name", ["denies", "source", "levels", "", "x"])
def test_unknown_field_is_counted_and_grants_as_before(format: str, name: str) -> None:
    value = json.dumps({"user_id": "ada", "level": "full", "ts": BEGINNING, name: 0})[:-1] + ',"extra":{"a":1,"a":2}}'
    [one] = consents_in(CODECS[format], b"ada", value.encode(), BEGINNING)
    assert one.change.level == "full" and one.unknown_fields


@every_format
@pytest.mark.parametrize("damage", [lambda raw: BOM + raw, lambda raw: raw + b"\0", lambda raw: b'"' + raw])
def test_a_grant_that_is_damaged_grants_nothing(format: str, damage: Callable[[bytes], bytes]) -> None:
    grant = damage(WRITE["json"](GRANT))
    assert withdrawn(CODECS[format], b"ada", grant) == {"ada"}


@pytest.mark.parametrize(
    "unit", ["[", "{", '"', '\\"', '"user_id":', '"user_id":"', '{"user_id":', " ", "\0", "\\", '"a":"b",', "\ufeff"]
)
def test_naming_takes_time_linear_in_the_bytes(unit: str) -> None:
    def cost(times: int) -> float:
        value = b'{"x":' + unit.encode() * times
        best = 9e9
        for _ in range(5):
            begin = time.process_time()
            withdrawn(CODECS["json"], value, value)
            best = min(best, time.process_time() - begin)
        return best

    assert cost(64_000) < 30 * max(cost(8_000), 0.002), "8 times as many bytes"


@pytest.mark.parametrize(("lists", "named"), [(1, "ada"), (TOKENS_MAX, "bob")])
def test_scan_of_broken_record_is_bounded(lists: int, named: str) -> None:
    """Of the users in the searched part, the one at the shallowest depth is named."""
    cut = b'{"x":{"user_id":"bob"},"y":[' + b"[]," * lists + b'0],"user_id":"ada","lev'
    assert withdrawn(CODECS["json"], None, cut) == {named}


@pytest.mark.parametrize("make", [avro_codec.avro_codec, protobuf_codec.protobuf_codec])
def test_registry_outage_withdraws_and_rejects_nothing(make: Callable[[Any], Codec]) -> None:
    class Away:
        def fetch(self, form: Form, schema_id: int) -> bytes | None:
            raise SchemaError("the schema registry did not answer")

    ingest = Ingest(TOPICS, make(Away()), PSEUDONYMISER, [100], ())
    value = frame(5, b"\0" + avro_codec.encode(CONSENT_2))
    for topic in (TOPICS.consents, TOPICS.interactions):
        with pytest.raises(SchemaError):
            ingest.pack([RawRecord(topic, 0, 1, BEGINNING, b"ada", value)])
