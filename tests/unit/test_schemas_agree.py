"""The published schemas and the decoders accept the same records, in JSON, Avro and Protobuf."""

import io
import json
from collections.abc import Callable
from typing import Any

import fastavro
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deploy.publish_schemas import published_files
from schemas.events import EVENT_TS_MAX, EVENT_TS_MIN, EVENT_TYPES
from schemas.wire.avro_codec import avro_codec
from schemas.wire.codecs import BadRecord, Codec, json_codec
from schemas.wire.protobuf_codec import MessageFile, file_descriptor, protobuf_codec
from tests.support.examples import examples

FILES = published_files()
TOPICS = ["interaction", "consent"]
VALID = {topic: Draft202012Validator(json.loads(FILES[f"{topic}.schema.json"])).is_valid for topic in TOPICS}
AVRO = {topic: fastavro.parse_schema(json.loads(FILES[f"{topic}.avsc"])) for topic in TOPICS}
PROTOBUF = {
    topic: GetMessageClass(MessageFile([file_descriptor()]).descriptor((place,))) for place, topic in enumerate(TOPICS)
}
MINIMAL: dict[str, dict[str, Any]] = {
    "interaction": {"event_id": "e", "type": "search", "ts": EVENT_TS_MIN, "user_id": "ada"},
    "consent": {"user_id": "ada", "level": "full", "ts": EVENT_TS_MIN},
}

LENGTHS = ["", "a", "x" * 64, "x" * 65, "x" * 256, "x" * 257, "h" * 32, "h" * 33, "👩" * 64, "👩" * 65]
CHARACTERS = ["a\nb", "a\n", "\n", "a\0", "\u2028", "\u202e", "\ufeff", "\uffff", "\U0001fffe", "\U000e0001"]
WORDS = [
    "tea-42",
    "👩\u200d🚀",
    "می\u200cروم",
    "a\u00a0b",
    "é",
    "EUR",
    "eur",
    "EURO",
    "home",
    "home page",
    "none",
    "session",
]
texts = st.sampled_from([*LENGTHS, *CHARACTERS, *WORDS, *EVENT_TYPES]) | st.text(max_size=70)
edges = [-(2**53) - 1, -(2**53), -1, 0, 1, 2, 100, 101, 1_000_000, 1_000_001, 86_400_000, 86_400_001, 100_000, 100_001]
integers = st.sampled_from(
    [*edges, EVENT_TS_MIN - 1, EVENT_TS_MIN, EVENT_TS_MAX, EVENT_TS_MAX + 1, 2**53, 2**53 + 1, 2**63, 10**30]
)
floats = st.sampled_from([-0.0, 0.0, 1.0, 1.5, 2.0, 100.0, 100.5, 1e9, 1e9 + 1, 1795915160966.0, 1e300, -1.0, 5e-324])
purposes = st.lists(st.sampled_from(["personalise", "measure", "train", "sell", ""]), max_size=4)
contexts = st.dictionaries(texts, texts, max_size=3) | st.integers(15, 18).map(
    lambda size: {f"key-{n}": "value" for n in range(size)}
)
anything = st.one_of(
    texts, integers, floats, purposes, contexts, st.booleans(), st.none(), st.just([None]), st.just([[]])
)


def records(topic: str) -> st.SearchStrategy[dict[str, Any]]:
    """A record with some fields changed arbitrarily, and some left out."""
    names = list(json.loads(FILES[f"{topic}.schema.json"])["properties"])
    return st.builds(
        lambda changed, left_out: {
            name: value for name, value in {**MINIMAL[topic], **changed}.items() if name not in left_out
        },
        st.dictionaries(st.sampled_from([*names, *names, "colour"]), anything, max_size=5),
        st.just([]) | st.lists(st.sampled_from(names), max_size=1),
    )


def typed(topic: str) -> st.SearchStrategy[dict[str, Any]]:
    """A record that Avro and Protobuf can represent: correct types, perhaps out of bounds."""
    kinds = {"string": texts, "boolean": st.booleans(), "double": floats, "array": purposes, "map": contexts}
    kinds["int"] = integers.filter(lambda number: -(2**31) <= number < 2**31)
    kinds["long"] = integers.filter(lambda number: -(2**63) <= number < 2**63)
    kinds_of: dict[str, st.SearchStrategy[Any]] = {}
    for field in AVRO[topic]["fields"]:  # type: ignore[index,call-overload]
        kind = field["type"][-1] if isinstance(field["type"], list) else field["type"]
        kinds_of[field["name"]] = kinds[kind["type"] if isinstance(kind, dict) else kind]
    names = st.lists(st.sampled_from(sorted(kinds_of)), max_size=5, unique=True)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: kinds_of[name] for name in some})).map(
        lambda changed: {**MINIMAL[topic], **changed}
    )


def taken(topic: str, codec: Codec, raw: bytes) -> bool:
    try:
        getattr(codec, topic)(raw)
    except BadRecord:
        return False
    return True


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.promise("schemas-agree")
def test_json_is_accepted_exactly_when_the_published_schema_is_valid(topic: str) -> None:
    codec = json_codec()

    @settings(max_examples=examples(400), deadline=None)
    @given(records(topic))
    @example(MINIMAL[topic] | {"ts": 1795915160966.0})
    @example(MINIMAL[topic] | {"ts": 1795915160966.0, "quantity": 1.0, "schema_v": 2.0, "colour": {"is": ["new"]}})
    @example(MINIMAL[topic] | {"ts": 1795915160966.5})
    def agree(record: dict[str, Any]) -> None:
        raw = json.dumps(record).encode()
        assert taken(topic, codec, raw) == VALID[topic](record)

    agree()


def as_avro(topic: str, record: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, AVRO[topic], record)
    return stream.getvalue()


def as_protobuf(topic: str, record: dict[str, Any]) -> bytes:
    message = PROTOBUF[topic]()
    for name, value in record.items():
        if isinstance(value, dict):
            getattr(message, name).update(value)
        elif isinstance(value, list):
            getattr(message, name).SetInParent()
            getattr(message, name).values.extend(value)
        else:
            setattr(message, name, value)
    raw: bytes = message.SerializeToString()
    return raw


WRITERS: list[tuple[Callable[[str, dict[str, Any]], bytes], Codec]] = [
    (as_avro, avro_codec()),
    (as_protobuf, protobuf_codec()),
]


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize(("write", "codec"), WRITERS, ids=["avro", "protobuf"])
@pytest.mark.promise("schemas-agree")
def test_avro_and_protobuf_are_accepted_exactly_like_json(
    topic: str, write: Callable[[str, dict[str, Any]], bytes], codec: Codec
) -> None:
    @settings(max_examples=examples(400), deadline=None)
    @given(typed(topic))
    def agree(record: dict[str, Any]) -> None:
        raw = write(topic, record)
        assert taken(topic, codec, raw) == VALID[topic](record)
        if VALID[topic](record):
            [read, same] = (
                getattr(one, topic)(value)[0]
                for one, value in ((codec, raw), (json_codec(), json.dumps(record).encode()))
            )
            if topic == "interaction" and codec is WRITERS[1][1] and same.context == {}:
                same.context = None  # Protobuf has no map that is there and empty
            assert read == same

    agree()


@pytest.mark.parametrize("number", ["1795915160966.0", "1.795915160966e12", "1795915160966000e-3"])
def test_integers_are_accepted_in_any_notation(number: str) -> None:
    raw = b'{"event_id":"e","type":"search","user_id":"ada","quantity":2.0,"ts":%b}' % number.encode()
    event, unknown = json_codec().interaction(raw)
    assert (event.ts, event.quantity, unknown) == (1795915160966, 2, False)
    assert isinstance(event.ts, int) and isinstance(event.quantity, int)
