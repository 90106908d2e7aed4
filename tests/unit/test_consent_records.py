"""One rule for whom a record of `consents` is about, for the job and its commands, in every format."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.consent_topic import change_of
from schemas import avro_codec, protobuf_codec
from schemas.codec_choice import codec_for
from schemas.codecs import BadRecord, Codec, json_codec
from schemas.confluent import Form, frame
from schemas.consent_records import FOREIGN_KEY, UNREADABLE, said_in
from schemas.consents import ConsentChange
from schemas.errors import SchemaError
from schemas.writers import WriteSettings, writer_for
from tests.golden.schemas import CONSENT_2
from tests.support.vocabulary import BEGINNING, PSEUDONYMISER, TOPICS, a_raw_consent
from udfs.elements import unpack
from udfs.ingest import Ingest, RawRecord

pytestmark = pytest.mark.privacy

FORMATS = ("json", "avro", "protobuf")
CODECS: dict[str, Codec] = {name: codec_for(name) for name in FORMATS}  # type: ignore[arg-type]
WRITE: dict[str, Callable[[ConsentChange], bytes]] = {
    name: writer_for(WriteSettings(name)).consent  # type: ignore[arg-type]
    for name in FORMATS
}
every_format = pytest.mark.parametrize("format", FORMATS)
GRANT = ConsentChange("ada", "full", BEGINNING, method="banner")


def said(format: str, key: bytes | None, value: bytes | None) -> ConsentChange:
    """As the job reads it, and as all else does."""
    change = said_in(CODECS[format], key, value, BEGINNING + 7).change
    assert change_of(CODECS[format], key, value, BEGINNING + 7) == change
    return change


@every_format
@pytest.mark.parametrize("key", [b"bob", b"", b'"ada"', b"\xff", b"\0\0\0\0\x07\x06ada"])
def test_a_grant_under_a_key_that_is_not_its_users_is_a_withdrawal(format: str, key: bytes) -> None:
    assert said(format, key, WRITE[format](GRANT)) == ConsentChange("ada", "none", BEGINNING + 7, method=FOREIGN_KEY)


@every_format
@pytest.mark.parametrize("erase", [False, True])
def test_a_withdrawal_under_a_foreign_key_is_one_and_is_told(format: str, erase: bool) -> None:
    change = ConsentChange("ada", "none" if not erase else "full", BEGINNING, method="banner", erase=erase)
    assert said(format, b"bob", WRITE[format](change)) == msgspec.structs.replace(change, method=FOREIGN_KEY)


@every_format
@pytest.mark.parametrize("key", [None, b"ada"])
def test_a_record_under_its_users_key_means_what_it_says(format: str, key: bytes | None) -> None:
    assert said(format, key, WRITE[format](GRANT)) == GRANT


def test_a_foreign_key_is_told_in_the_audit_trail() -> None:
    raw = a_raw_consent("ada")._replace(key=b"bob")
    [(_, element)] = Ingest(TOPICS, json_codec(), PSEUDONYMISER, [100], ()).pack([raw])
    [change] = unpack(element).consents
    assert (change.pseudonym, change.level, change.purposes) == (PSEUDONYMISER.user("ada"), 0, 0)
    assert change.method == "foreign_key"


def whom(format: str, key: bytes | None, value: bytes) -> str | None:
    try:
        change = said(format, key, value)
    except BadRecord:
        return None
    assert (change.level, change.method) == ("none", UNREADABLE)
    return change.user_id


@every_format
def test_a_record_that_says_what_it_may_not_is_a_withdrawal_of_the_user_in_it(format: str) -> None:
    for wrong in ({"level": "some"}, {"ts": 1}, {"method": "x" * 100}, {"jurisdiction": "E U"}):
        value = WRITE[format](msgspec.structs.replace(GRANT, **wrong))
        assert [whom(format, key, value) for key in (b"ada", b"bob", b"\xff", None)] == ["ada"] * 4
        value = WRITE[format](msgspec.structs.replace(GRANT, erase=True, **wrong))
        assert said(format, b"bob", value).erase


@every_format
def test_of_a_record_that_is_cut_off_the_key_says_whose_it_is_or_else_what_can_be_read(format: str) -> None:
    value = WRITE[format](CONSENT_2)
    named = 0
    for end in range(1, len(value) - 1):
        cut = value[:end]
        try:
            CODECS[format].consent(cut)
            continue  # Protobuf can be cut between two fields
        except BadRecord:
            pass
        assert whom(format, b"bob", cut) in ("bob", "ada"), "a whole form names the user itself"
        assert whom(format, b"bob", b"\x06ad" if format == "avro" else b"\xff\xff") == "bob"
        found = whom(format, None, cut)
        assert found in (None, "ada")
        named += found == "ada"
    assert named > len(value) / 2, "the user stands at the beginning"


@every_format
@given(st.binary(max_size=60), st.none() | st.sampled_from([b"ada", b"\xff", b""]))
def test_no_bytes_raise_anything_else_than_a_bad_record(format: str, value: bytes, key: bytes | None) -> None:
    for raw in (value, value + WRITE[format](CONSENT_2), WRITE[format](CONSENT_2) + value, frame(7, value)):
        try:
            change = said(format, key, raw)
        except BadRecord:
            continue
        assert change.level in ("none", "session", "full")


def test_a_framed_record_of_another_schema_names_its_user_where_the_rest_is_cut_off() -> None:
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
    assert said_in(codec, b"\xff", whole, BEGINNING).change.user_id == "ada"
    assert said_in(codec, b"\xff", cut, BEGINNING).change.user_id == "ada"
    assert said_in(codec, b"bob", cut, BEGINNING).change.user_id == "bob"


@pytest.mark.parametrize("make", [avro_codec.avro_codec, protobuf_codec.protobuf_codec])
def test_while_the_registry_is_away_nobody_is_withdrawn_and_nothing_rejected(make: Callable[[Any], Codec]) -> None:
    class Away:
        def fetch(self, form: Form, schema_id: int) -> bytes | None:
            raise SchemaError("the schema registry did not answer")

    ingest = Ingest(TOPICS, make(Away()), PSEUDONYMISER, [100], ())
    value = frame(5, b"\0" + avro_codec.encode(CONSENT_2))
    for topic in (TOPICS.consents, TOPICS.interactions):
        with pytest.raises(SchemaError):
            ingest.pack([RawRecord(topic, 0, 1, BEGINNING, b"ada", value)])
