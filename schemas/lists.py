"""Recommendation lists as they stand in Redis: ready-to-send JSON bytes.

``{"v": version, "epoch": ms, "model": …, "at": ms, "reason": "personalised|session|popular", "items": [{"id": …, "score": …}, …]}``

`v` and `epoch` come first, so that the write script reads them without parsing the whole.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

Reason = Literal["personalised", "session", "popular"]


class ListedItem(msgspec.Struct, frozen=True, gc=False):
    """One item of a list; `score` is the model's, comparable inside one list only."""

    id: str
    score: float


class RecommendationList(msgspec.Struct, frozen=True, gc=False):
    """A list: `v` counts the user's accepted changes, `epoch` is the job's submission time in ms."""

    v: int
    epoch: int
    model: str
    at: int
    reason: Reason
    items: tuple[ListedItem, ...]


_decoder = msgspec.json.Decoder(RecommendationList)


def decode_list(raw: bytes) -> RecommendationList:
    """The list behind `raw`; raises :class:`msgspec.DecodeError` on anything else."""
    return _decoder.decode(raw)


def item_fragment(item_id: str) -> bytes:
    """The JSON of one listed item up to its score: made once for each item of a vocabulary."""
    return b'{"id":' + msgspec.json.encode(item_id) + b',"score":'


def encode_list(
    version: int, epoch: int, model: bytes, at: int, reason: Reason, scored: Iterable[tuple[bytes, float]]
) -> bytes:
    """The bytes of a list from prepared parts: `model` as JSON, items as (:func:`item_fragment`, score).

    >>> encode_list(3, 7, b'"m"', 9, "popular", [(item_fragment("tea"), 0.5)])
    b'{"v":3,"epoch":7,"model":"m","at":9,"reason":"popular","items":[{"id":"tea","score":0.5}]}'
    """
    items = b",".join([b"%b%.6g}" % part for part in scored])
    head = b'{"v":%d,"epoch":%d,"model":%b,"at":%d,"reason":"%b","items":['
    return head % (version, epoch, model, at, reason.encode()) + items + b"]}"
