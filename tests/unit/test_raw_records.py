"""Which user a raw record belongs to: what a search finds, and what of it that user may see."""

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.schema_sources import codec_of, writer_of
from privacy.erasure_search import by_topic
from schemas import topics
from schemas.consents import ConsentChange
from schemas.errors import SchemaError
from schemas.events import Interaction
from schemas.marks import MARK_KEY, Mark, encode_mark
from schemas.wire.codec_choice import InputSettings
from schemas.wire.codecs import json_codec
from schemas.wire.raw_records import RecordMatcher, in_consents, in_interactions
from schemas.wire.writers import WriteSettings
from tests.support.vocabulary import BEGINNING

pytestmark = pytest.mark.privacy

FORMATS = ("json", "avro", "protobuf")
WRITERS = {name: writer_of(WriteSettings(name)) for name in FORMATS}  # type: ignore[arg-type]
USERS = ("ada", "bob", "adam", "a")
EVENT = Interaction("event", "search", BEGINNING, "ada", query="of bob, not of adam")
CHANGE = ConsentChange("ada", "full", BEGINNING, method="bob")


def a_record(value: bytes | None, key: bytes | None = None) -> Any:
    return SimpleNamespace(key=key, value=value)


def interactions_of(user: str, format: str = "json") -> RecordMatcher:
    return RecordMatcher(user, in_interactions(codec_of(InputSettings(format))))  # type: ignore[arg-type]


def consents_of(user: str, format: str = "json") -> RecordMatcher:
    return RecordMatcher(user, in_consents(codec_of(InputSettings(format))))  # type: ignore[arg-type]


def found(of: Any, record: Any, format: str = "json") -> dict[str, tuple[bool, bool]]:
    """User → (concerns, may_see), for the users whom the record concerns."""
    searches = {user: of(user, format) for user in USERS}
    return {user: (True, one.may_see(record)) for user, one in searches.items() if one.concerns(record)}


THEIRS, NOT_SHOWN = (True, True), (True, False)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("written_as", ["json", "escaped", "avro", "protobuf"])
@pytest.mark.promise("access-finds-all")
def test_keyless_record_belongs_to_user_in_value(format: str, written_as: str) -> None:
    readable = written_as == format or written_as in ("json", "escaped")
    for of, value in (
        (interactions_of, (_escaped(EVENT) if written_as == "escaped" else WRITERS[written_as].interaction(EVENT))),
        (consents_of, (_escaped(CHANGE) if written_as == "escaped" else WRITERS[written_as].consent(CHANGE))),
    ):
        assert found(of, a_record(value), format) == ({"ada": THEIRS} if readable else {})


def _escaped(record: Interaction | ConsentChange) -> bytes:
    return msgspec.json.encode(record).replace(b'"ada"', b'"\\u0061da"')


@pytest.mark.parametrize("key", [b"ada", b'"ada"', b'{"user_id":"ada"}', b"\0\0\0\0\7ada", b"\0\0\0\0\7\6ada"])
@pytest.mark.parametrize("value", [b"\xff", b"{", None, WRITERS["protobuf"].interaction(EVENT)])
def test_unreadable_record_belongs_to_user_in_key(key: bytes, value: bytes | None) -> None:
    assert found(interactions_of, a_record(value, key)) == {"ada": THEIRS}
    assert found(consents_of, a_record(value, key)) == {"ada": THEIRS}


@pytest.mark.parametrize("format", FORMATS)
def test_record_under_foreign_key_concerns_both_and_is_shown_to_user_in_value(format: str) -> None:
    values = ((interactions_of, WRITERS[format].interaction(EVENT)), (consents_of, WRITERS[format].consent(CHANGE)))
    for of, value in values:
        assert found(of, a_record(value, b"bob"), format) == {"ada": THEIRS, "bob": NOT_SHOWN}


def test_user_named_like_a_json_word_gets_no_foreign_records() -> None:
    of_another = Interaction("e", "click", BEGINNING, "bob", item_id="ada", surface="home", context={"ada": "ada"})
    record = a_record(WRITERS["json"].interaction(of_another), b"bob")
    for user in ("ada", "click", "home", "user_id"):
        assert not interactions_of(user).concerns(record)
    assert interactions_of("bob").may_see(record)


def test_broken_record_concerns_quoted_user_and_is_withheld() -> None:
    assert found(interactions_of, a_record(b'{"user":{"id":"ada"}}')) == {"ada": NOT_SHOWN}
    assert found(interactions_of, a_record(b'{"user_id":"ada","ty')) == {"ada": THEIRS}
    assert found(interactions_of, a_record(b'{"user_id":"ada","for":"bob","ty')) == {"ada": THEIRS}
    assert found(interactions_of, a_record(b'{"user_id":"ada","ty', b"bob")) == {"ada": THEIRS, "bob": NOT_SHOWN}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-16"])
def test_consent_in_other_utf_encoding_is_found(encoding: str) -> None:
    value = json.dumps({"user_id": "zoë", "level": "full", "ts": BEGINNING}, ensure_ascii=False).encode(encoding)
    assert consents_of("zoë").concerns(a_record(value)) and consents_of("zoë").may_see(a_record(value))


def test_job_marks_belong_to_nobody() -> None:
    mark = a_record(encode_mark(Mark("0123456789ab", 4)), MARK_KEY)
    assert not any(consents_of(user).concerns(mark) for user in ("shet-mark", "token", "0123456789ab"))


def test_undecodable_record_is_broken_and_silent_schema_source_reported() -> None:
    def broken(value: bytes) -> Any:
        raise ZeroDivisionError

    def silent(value: bytes) -> Any:
        raise SchemaError("the registry does not answer")

    record = a_record(WRITERS["json"].interaction(EVENT))
    for read in (in_interactions, in_consents):
        assert RecordMatcher("ada", read(json_codec()._replace(interaction=broken, consent=broken))).concerns(record)
        with pytest.raises(SchemaError):
            RecordMatcher("ada", read(json_codec()._replace(interaction=silent, consent=silent))).concerns(record)


ids = st.text('aäé√😀"\\ ', min_size=1, max_size=3)


@given(ids, ids, st.sampled_from(FORMATS), st.booleans())
@pytest.mark.promise("access-finds-all")
def test_no_record_naming_the_user_is_skipped(user: str, other: str, format: str, ascii: bool) -> None:
    """Values that cannot contain the user's id are not decoded; this must skip none that do."""
    event = Interaction("event", "search", BEGINNING, user, query=other)
    value = WRITERS[format].interaction(event)
    if format == "json":
        value = json.dumps(msgspec.to_builtins(event), ensure_ascii=ascii).encode()
    for one in (user, other):
        naive = one in in_interactions(codec_of(InputSettings(format)))(value)  # type: ignore[arg-type]
        assert interactions_of(one, format).concerns(a_record(value)) == naive == (one == user)


@pytest.mark.parametrize("format", FORMATS)
def test_erasure_search_covers_every_raw_topic(format: str) -> None:
    codec = codec_of(InputSettings(format))  # type: ignore[arg-type]
    command = {"kind": "access", "user_id": "ada", "request": "1", "role": "officer", "purpose": "x"}
    values = {
        topics.INTERACTIONS: WRITERS[format].interaction(EVENT),
        topics.CONSENTS: WRITERS[format].consent(CHANGE),
        topics.CONTROL: json.dumps(command).encode(),
    }
    for topic, value in values.items():
        search = {user: by_topic(codec, user, [f"p1.{user}"], None)[topic] for user in ("ada", "bob", "officer")}
        assert {user: find(a_record(value)) for user, find in search.items()} == {
            "ada": True,
            "bob": False,
            "officer": False,
        }
