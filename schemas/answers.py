"""Answers to requests for a person's data, as JSON in the topic `answers`, which keeps them for an hour.

The tag `kind` tells them apart. They hold whole profiles, so they are in no topic that anything else is read from.
"""

import msgspec


class StateAnswer(msgspec.Struct, tag="state", tag_field="kind", frozen=True):
    """What the job keeps of one user, in answer to the command `access`: the fields of its state by name, or null."""

    request: str
    bucket: int
    pseudonym: str
    state: msgspec.Raw


class TakenIn(msgspec.Struct, tag="taken_in", tag_field="kind", frozen=True):
    """A gateway begins to collect what is held of the user whose pseudonym is the key of this record.

    `nonce` names it to records behind it. `owner` is a digest of who asks, `same` one of that and the purpose.
    """

    nonce: str
    owner: str
    same: str


class Part(msgspec.Struct, tag="part", tag_field="kind", frozen=True):
    """One of `parts` pieces, from 0 on, of the document that was collected for `nonce`."""

    nonce: str
    number: int
    parts: int
    content: bytes


class NotCollected(msgspec.Struct, tag="not_collected", tag_field="kind", frozen=True):
    """There is no document for `nonce`, and `why`; nothing that was asked, or is held, is in it."""

    nonce: str
    why: str


Answer = StateAnswer | TakenIn | Part | NotCollected

_encoder = msgspec.json.Encoder()
_decoder: "msgspec.json.Decoder[Answer]" = msgspec.json.Decoder(Answer)


def encode_answer(answer: Answer) -> bytes:
    """The JSON of `answer`."""
    return _encoder.encode(answer)


def decode_answer(raw: bytes) -> Answer:
    """The answer behind `raw`. Raises :class:`msgspec.DecodeError`."""
    return _decoder.decode(raw)
