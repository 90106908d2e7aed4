"""Answers to those who asked for what is held of a person, as JSON in the topic `answers`, which keeps them an hour.

The tag `kind` tells them apart. They hold whole profiles, so they stand in no topic that anything else is read from.
"""

import msgspec


class StateAnswer(msgspec.Struct, tag="state", tag_field="kind", frozen=True):
    """What the job keeps of one user, in answer to the command `access`: the fields of its state by name, or null."""

    request: str
    bucket: int
    pseudonym: str
    state: msgspec.Raw


Answer = StateAnswer

_encoder = msgspec.json.Encoder()
_decoder: "msgspec.json.Decoder[Answer]" = msgspec.json.Decoder(Answer)


def encode_answer(answer: Answer) -> bytes:
    """The JSON of `answer`."""
    return _encoder.encode(answer)


def decode_answer(raw: bytes) -> Answer:
    """The answer behind `raw`. Raises :class:`msgspec.DecodeError`."""
    return _decoder.decode(raw)
