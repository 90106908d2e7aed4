"""Answers to requests for a person's data, as JSON in the topic `answers`, which keeps them for an hour.

The tag `kind` distinguishes them. They contain whole profiles, so they have a topic of their own.
"""

import msgspec


class StateAnswer(msgspec.Struct, tag="state", tag_field="kind", frozen=True):
    """The response to the command `access`: the state the job keeps of one user, as fields by name, or null."""

    request: str
    bucket: int
    pseudonym: str
    state: msgspec.Raw


class CollectionStarted(msgspec.Struct, tag="taken_in", tag_field="kind", frozen=True):
    """A gateway starts to collect the data of the user whose pseudonym is this record's key.

    `nonce` identifies the collection in later records. `owner` is a digest of the requester, `same` one of requester
    and purpose.
    """

    nonce: str
    owner: str
    same: str


class DocumentPart(msgspec.Struct, tag="part", tag_field="kind", frozen=True):
    """One of `parts` pieces, numbered from 0, of the document collected for `nonce`."""

    nonce: str
    number: int
    parts: int
    content: bytes


class CollectionFailed(msgspec.Struct, tag="not_collected", tag_field="kind", frozen=True):
    """There is no document for `nonce`; `why` is the reason, without any content of the request or of the data."""

    nonce: str
    why: str


Answer = StateAnswer | CollectionStarted | DocumentPart | CollectionFailed

_encoder = msgspec.json.Encoder()
_decoder: "msgspec.json.Decoder[Answer]" = msgspec.json.Decoder(Answer)


def encode_answer(answer: Answer) -> bytes:
    """The JSON of `answer`."""
    return _encoder.encode(answer)


def decode_answer(raw: bytes) -> Answer:
    """The answer in `raw`. Raises :class:`msgspec.DecodeError`."""
    return _decoder.decode(raw)
