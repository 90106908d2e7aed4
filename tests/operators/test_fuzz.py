"""Garbage through ingest and personalise: no record raises, and each ends in exactly one output.

`make fuzz` sends a million records, `make test` 12,000; FRESHET_FUZZ_RECORDS sets the number, FRESHET_FUZZ_SEED the
seed. Records are valid ones with invalid parts: wrong types, numbers out of range, undecodable strings, bytes
that were cut, reversed or moved, keys that are missing or huge.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.consents import ConsentChange, Level
from schemas.events import EVENT_TYPES, Interaction
from schemas.marks import MARK_KEY, Mark, decode_mark, encode_mark
from schemas.rejects import RejectReason
from schemas.wire import avro_codec, protobuf_codec
from schemas.wire.codecs import Codec, json_codec
from schemas.wire.confluent import Form, frame
from tests.golden.schemas import schema_files
from tests.support.bucket import ITEMS, Bucket, side
from tests.support.fakes import FixedModel
from tests.support.gathering import Subtask
from tests.support.vocabulary import BEGINNING, CONSENTS, CONTROL, INTERACTIONS, PSEUDONYMISER, SECOND, TOPICS
from udfs.elements import unpack
from udfs.ingest import Ingest, RawRecord
from udfs.operators.outputs import REJECTS

RECORDS = int(os.environ.get("FRESHET_FUZZ_RECORDS", "12000"))
SEED = int(os.environ.get("FRESHET_FUZZ_SEED", "1"))
BUCKETS = 4
BATCH = 60
USERS = [f"user-{n}" for n in range(40)]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.0, 1.5, -0.0, 1e308, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**25, -(10**25)),
    *(
        "",
        " ",
        "\x00",
        "\u202e",
        "\ufeff",
        "é" * 300,
        "👩\u200d👩\u200d👧",
        "ada\nbob",
        "%s",
        "{}",
        "+1 555 0100",
        "1" * 5000,
    ),
    *(
        [],
        {},
        [[]],
        {"a": {"b": {}}},
        ["personalise"],
        ["personalise", "some"],
        [None],
        {"": ""},
        {"country": "x" * 3000},
    ),
]
"""Values that no field, or hardly one, takes."""


class Schemas(dict[int, bytes]):
    """A source of schemas in memory."""

    def fetch(self, form: Form, schema_id: int) -> bytes | None:
        return self.get(schema_id)


PUBLISHED = Schemas({int(name.partition(".")[0]): schema for name, schema in schema_files().items()})
Encode = Callable[[Any], bytes]
FORMATS: dict[str, tuple[Codec, Encode, Encode]] = {
    "json": (json_codec(), msgspec.json.encode, msgspec.json.encode),
    "confluent-avro": (
        avro_codec.avro_codec(PUBLISHED),
        lambda event: frame(7, avro_codec.encode(event)),
        lambda change: frame(10, avro_codec.encode(change)),
    ),
    "protobuf": (protobuf_codec.protobuf_codec(), protobuf_codec.encode, protobuf_codec.encode),
}


class Moody(FixedModel):
    """A model that fails now and then, in every way that models fail."""

    def __init__(self) -> None:
        super().__init__(ITEMS)
        self.chance = random.Random(SEED)

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        scores, rows = super().score(items, weights)
        mood = self.chance.random()
        if mood < 0.01:
            raise ValueError("a graph of somebody else's")
        if mood < 0.02:
            return scores[:1, :1], rows[:1, :1]
        if mood < 0.03:
            scores[0] = np.nan
        elif mood < 0.04:
            rows[0, 0] = 10**9
        return scores, rows


class MoodyBucket(Bucket):
    def new_model(self) -> Any:
        return Moody()


class Garbage:
    """Makes raw records, determined by the seed."""

    def __init__(self, seed: int, encode_event: Encode, encode_consent: Encode) -> None:
        self.chance = random.Random(seed)
        self._encode = {INTERACTIONS: encode_event, CONSENTS: encode_consent}
        self._offsets: Counter[str] = Counter()
        self._last = b"{}"
        self._user = b""

    def record(self, now_ms: int) -> RawRecord:
        chance = self.chance
        topic = chance.choices([INTERACTIONS, CONSENTS, CONTROL], [8, 4, 1])[0]
        self._offsets[topic] += 1
        value, key = self._value(topic, now_ms), self._key(topic)
        if key == MARK_KEY:
            value = encode_mark(Mark("token", chance.randrange(3)))
            value = self._bent(value) if chance.random() < 0.5 else value
        return RawRecord(topic, 0, self._offsets[topic], now_ms, key, value)

    def _key(self, topic: str) -> bytes | None:
        chance = self.chance
        if topic == CONSENTS and chance.random() < 0.01:
            return MARK_KEY
        return chance.choices(
            [self._user, chance.choice(USERS).encode(), None, b"", b"\xff\xfe", "é\u200d".encode(), b"k" * 100_000],
            [36, 4, 2, 1, 1, 1, 0.02],
        )[0]

    def _value(self, topic: str, now_ms: int) -> bytes | None:
        chance = self.chance
        fields = {INTERACTIONS: self._event, CONSENTS: self._consent, CONTROL: self._command}[topic](now_ms)
        self._user = str(fields.get("user_id", "")).encode()
        mood = chance.random()
        if mood < 0.02:
            return None
        if topic in self._encode and mood < 0.6:
            kind = Interaction if topic == INTERACTIONS else ConsentChange
            value = self._encode[topic](msgspec.convert(fields, kind))
        elif mood < 0.62:
            value = self._last
        else:
            for _ in range(chance.randrange(3)):
                self._spoil(fields)
            value = json.dumps(fields).encode()
        self._last = value
        return self._bent(value) if chance.random() < 0.2 else value

    def _spoil(self, fields: dict[str, Any]) -> None:
        chance = self.chance
        name = chance.choice([*fields, "level", "granted", "expires_at", "context", "quantity", "another"])
        if chance.random() < 0.2:
            fields.pop(name, None)
        else:
            fields[name] = chance.choice(ODD)

    def _bent(self, value: bytes) -> bytes:
        chance, at = self.chance, self.chance.randrange(len(value) + 1)
        match chance.randrange(6):
            case 0:
                return value[:at]
            case 1:
                return value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
            case 2:
                return value[:at] + self._last[: chance.randrange(50)] + value[at:]
            case 3:
                return b"[" * 3_000 + value
            case 4:
                return value[at:] + value[:at]
        return chance.randbytes(chance.randrange(60))

    def _event(self, now_ms: int) -> dict[str, Any]:
        chance = self.chance
        kind = chance.choice(EVENT_TYPES)
        fields: dict[str, Any] = {
            "event_id": f"e{chance.randrange(10**6)}",
            "type": kind,
            "ts": now_ms - chance.choice([0, 1, 1_000, 3_600_000, 10 * 86_400_000]),
            "user_id": chance.choice(USERS),
            "item_id": chance.choice([*ITEMS, "an item of nobody's", "x" * 64]),
            "session_id": chance.choice(["s1", "s2", "é"]),
            "surface": chance.choice(["home", "cart", "tel.0301234567"]),
            "context": chance.choice([{"country": "de"}, {"country": "ada@example.com"}]),
        }
        if kind == "search":
            fields["query"] = chance.choice(
                ["tea", "0134" * 60, "٠1.1-" * 50, "ada@example.com " * 10, "+49 30 1234567"]
            )
        return fields

    def _consent(self, now_ms: int) -> dict[str, Any]:
        chance = self.chance
        fields: dict[str, Any] = {
            "user_id": chance.choice(USERS),
            "level": chance.choice(["full", "full", "full", "session", "none"]),
            "ts": now_ms - chance.choice([0, 1, 10_000, 10**9]),
        }
        for name, value in {
            "granted": ["personalise", "train"],
            "denied": ["measure"],
            "expires_at": now_ms + 10_000,
            "tcf": "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
            "gpc": True,
            "jurisdiction": "de",
        }.items():
            if chance.random() < 0.15:
                fields[name] = value
        if fields["level"] == "none" and chance.random() < 0.3:
            fields["erase"] = True
        return fields

    def _command(self, now_ms: int) -> dict[str, Any]:
        chance = self.chance
        kind = chance.choice(["account", "kids", "key", "relink", "access", "reads", "some"])
        return {
            "kind": kind,
            "bucket": chance.choice([0, 1, 3, 4, -1]),
            "request": "r1",
            "user_id": chance.choice(USERS),
            "role": "officer",
            "purpose": "asked",
            "what": "profile",
            "change": "started",
            "kid": 1,
            "users": 3,
        }


def account_of(buckets: dict[int, Bucket], sent: Counter[str], letters: Counter[str]) -> None:
    """Asserts that every interaction and every consent is accounted for once."""
    accounts = [bucket.account for bucket in buckets.values()]
    assert sum(account.sent for account in accounts) == sent[INTERACTIONS]
    consents = sum(a.consents_applied + a.consents_replayed + a.consents_refused for a in accounts)
    assert consents == sent["decisions"]
    # A damaged record may name two users, who both withdraw.
    assert consents + letters[CONSENTS] >= sent[CONSENTS] - sent["marks"]
    assert sum(a.others_rejected for a in accounts) == letters[CONSENTS] + letters[CONTROL]


@pytest.mark.privacy
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.promise("dead-letters")
def test_garbage_neither_stops_the_job_nor_gets_lost(form: str) -> None:
    codec, encode_event, encode_consent = FORMATS[form]
    ingest = Ingest(TOPICS, codec, PSEUDONYMISER, list(range(BUCKETS)), ("surface", "context.country"))
    garbage = Garbage(SEED, encode_event, encode_consent)
    store = MoodyBucket().store
    buckets: dict[int, Bucket] = {key: MoodyBucket(store) for key in range(BUCKETS)}
    for key, bucket in buckets.items():
        bucket.keyed.key = key
    subtask = Subtask(buckets[0].harness.operator, {key: bucket.keyed for key, bucket in buckets.items()})
    sent: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    now_ms = BEGINNING
    for _ in range(RECORDS // len(FORMATS) // BATCH):
        now_ms += garbage.chance.choice([1, 50, 1_000, 20 * SECOND])
        records = [garbage.record(now_ms) for _ in range(BATCH)]
        sent.update(record.topic for record in records)
        sent["marks"] += sum(record.key == MARK_KEY and decode_mark(record.value) is not None for record in records)
        for bucket in buckets.values():
            bucket.keyed.now_ms = now_ms
        packed = ingest.pack(records)
        sent["decisions"] += sum(len(unpack(raw).consents) for _, raw in packed)
        for letter in side(subtask.take(packed), REJECTS):
            assert letter["reason"] != RejectReason.NOT_CARRIED_OUT, "a rule is missing"
            letters[letter["topic"]] += 1
        subtask.advance_to(now_ms)
    account_of(buckets, sent, letters)
    counts = buckets[0].keyed.counts
    assert counts["records_given_up_total"] == 0
    for name, _ in store.lists():
        [state] = [known for bucket in buckets.values() if (known := bucket.user(name)) is not None]
        assert state.level != Level.NONE
    assert counts['lists_total{outcome="written"}'] > RECORDS / 100, "enough was good"
