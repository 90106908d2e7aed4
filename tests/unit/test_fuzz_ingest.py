"""Texts that are hard to mask, in every free-text field, through ingest alone, in every format.

`make fuzz` sends a million of them, `make test` 3,000 (see `tests/operators/test_fuzz.py` for other garbage).
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bench.masking import made
from schemas.consents import ConsentChange
from schemas.events import EVENT_TYPES, Interaction
from schemas.rejects import RejectReason
from schemas.wire import avro_codec, protobuf_codec
from schemas.wire.codecs import Codec, json_codec
from tests.support.vocabulary import BEGINNING, CONSENTS, INTERACTIONS, PSEUDONYMISER, TOPICS
from udfs.elements import Element, unpack
from udfs.ingest import Ingest, RawRecord

RECORDS = int(os.environ.get("FRESHET_FUZZ_RECORDS", "3000"))
SEED = int(os.environ.get("FRESHET_FUZZ_SEED", "1"))
BUCKETS = 4
BATCH = 50
FORMATS: dict[str, tuple[Codec, Callable[[Any], bytes]]] = {
    "json": (json_codec(), msgspec.json.encode),
    "avro": (avro_codec.avro_codec(), avro_codec.encode),
    "protobuf": (protobuf_codec.protobuf_codec(), protobuf_codec.encode),
}


class Hard:
    """Makes raw records, determined by the seed, of users whose ids occur in no text by chance."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self.chance, self._encode = random.Random(SEED), encode
        self._number = 0

    def record(self) -> tuple[RawRecord, str]:
        """A record, and its user."""
        self._number += 1
        user = f"~{self._number:x}~{self._text(8)}~Q"
        told = self._event(user) if self.chance.random() < 0.8 else self._consent(user)
        topic = INTERACTIONS if isinstance(told, Interaction) else CONSENTS
        return RawRecord(topic, 0, self._number, BEGINNING, user.encode(), self._encode(told)), user

    def _text(self, longest: int) -> str:
        return made(self.chance, [], self.chance.randint(4, max(4, longest)))[:longest]

    def _event(self, user: str) -> Interaction:
        chance, number = self.chance, self._number
        query = self._text(256)
        if chance.random() < 0.3:
            query = f"{query[:100]} {user} {query[:100]}"
        return Interaction(
            f"e{number}", chance.choice(EVENT_TYPES), BEGINNING, user, item_id=self._text(64),
            session_id=self._text(64), request_id=self._text(64), query=query,
            context={"country": self._text(64), "other": user},
        )  # fmt: skip

    def _consent(self, user: str) -> ConsentChange:
        return ConsentChange(user, "full", BEGINNING, method=self._text(32), notice_version=self._text(32))


def places(element: Element) -> Counter[int]:
    """How often each record occurs in an element, by offset."""
    taken = [record.offset for record in (*element.events, *element.consents)]
    return Counter([*taken, *(reject.origin.offset for reject in element.rejects)])


@pytest.mark.privacy
@pytest.mark.parametrize("form", FORMATS)
def test_random_texts_do_not_raise_get_lost_or_leak(form: str) -> None:
    codec, encode = FORMATS[form]
    ingest = Ingest(TOPICS, codec, PSEUDONYMISER, list(range(BUCKETS)), ("surface", "context.country"))
    hard, reasons, taken = Hard(encode), Counter[RejectReason](), 0
    for _ in range(RECORDS // len(FORMATS) // BATCH):
        records = [hard.record() for _ in range(BATCH)]
        packed = [raw for _, raw in ingest.pack(record for record, _ in records)]
        elements = [unpack(raw) for raw in packed]
        found = sum(map(places, elements), Counter[int]())
        assert found == Counter(record.offset for record, _ in records), "each is in one place, once"
        reasons.update(reject.reason for element in elements for reject in element.rejects)
        taken += sum(len(element.events) + len(element.consents) for element in elements)
        for _, user in records:
            written = (user.encode(), msgspec.json.encode(user)[1:-1])
            assert not any(form_ in raw for raw in packed for form_ in written), ascii(user)
    assert reasons[RejectReason.NOT_CARRIED_OUT] == 0, "a rule is missing"
    assert taken > RECORDS / len(FORMATS) / 5, "enough was good"
