"""Recommendation lists as stored in Redis: JSON bytes, ready to send.

``{"v": version, "epoch": ms, "model": …, "at": ms, "reason": "personalised|session|popular|similar|trending",
"recommendation_id": …, "items": [{"id": …, "score": …}, …]}``

A list made in an arm of an experiment has ``"arm": …`` after its reason. A list with explored slots has
``"explored": [{"position": …, "propensity": …}, …]`` before its items.

A user's own list also has ``"viewed": […], "bought": […]`` at the end: the ids of the items that the user met and
bought last, newest first (:class:`UserList`).

`v` and `epoch` come first, so that the write script can read them without parsing the rest.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from schemas.exploration import ExploredSlot

UserReason = Literal["personalised", "session", "popular"]
"""What a list made for a user is based on."""
Reason = Literal["personalised", "session", "popular", "similar", "trending", "viewed", "bought"]
"""What any list is based on; nobody's own are `popular`, `similar` (to an item) and `trending`. Readers make lists with
`viewed` and `bought` from the ends of users' own."""
History = Literal["viewed", "bought"]
"""What a user's own list has besides recommendations."""


class ListedItem(msgspec.Struct, frozen=True, gc=False):
    """One item of a list; `score` is the model's, comparable only within a list."""

    id: str
    score: float


class RecommendationList(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A list: `v` counts the user's accepted changes, `epoch` is the job's submission time in ms.

    `v` of a list that is nobody's own counts up with each that is published. `arm` is that of an experiment, if any.
    Frontends send `recommendation_id` back as `request_id` of impressions and clicks
    (:mod:`schemas.recommendation_ids`). The items of `explored` positions were drawn by chance.
    """

    v: int
    epoch: int
    model: str
    at: int
    reason: Reason
    items: tuple[ListedItem, ...]
    arm: str = ""
    recommendation_id: str = ""
    explored: tuple[ExploredSlot, ...] = ()


class UserList(RecommendationList, frozen=True, gc=False, kw_only=True):
    """A user's own list: also what the user met last, and bought last, newest first. Those of 0.1.0 have neither."""

    viewed: tuple[str, ...] = ()
    bought: tuple[str, ...] = ()

    def history(self, of: History) -> RecommendationList:
        """These items as a list, scored by their place."""
        ids = self.viewed if of == "viewed" else self.bought
        items = tuple(ListedItem(item, round(1 / place, 4)) for place, item in enumerate(ids, 1))
        return RecommendationList(self.v, self.epoch, self.model, self.at, of, items)


_user_decoder = msgspec.json.Decoder(UserList)
_HISTORY = b'],"viewed":'
"""Where the items of a user's own list end. In the text of an id, quotation marks would be escaped."""
_BETWEEN = b"},"
NO_HISTORY = b"]}"
"""How a list ends that has neither what its user viewed nor what they bought."""
_decoder = msgspec.json.Decoder(RecommendationList)
_encoder = msgspec.json.Encoder()


def decode_list(raw: bytes) -> RecommendationList:
    """The list in `raw`; raises :class:`msgspec.DecodeError` if it is not one."""
    return _decoder.decode(raw)


def decode_user_list(raw: bytes) -> UserList:
    """A user's own list in `raw`; raises :class:`msgspec.DecodeError` if it is not one."""
    return _user_decoder.decode(raw)


class _Met(msgspec.Struct, gc=False):
    viewed: Sequence[str]
    bought: Sequence[str]


def history_endings(met: Iterable[tuple[Sequence[str], Sequence[str]]]) -> list[bytes]:
    """How lists end that have what their users viewed, and bought, newest first: for all lists of a batch at once.

    >>> history_endings([(["tea"], []), ([], ["cup"])])
    [b'],"viewed":["tea"],"bought":[]}', b'],"viewed":[],"bought":["cup"]}']
    """
    # No line break is left in JSON: those of an id are escaped.
    lines = _encoder.encode_lines([_Met(viewed, bought) for viewed, bought in met]).split(b"\n")
    return [b"]," + line[1:] for line in lines[:-1]]


def with_history(raw: bytes, viewed: Sequence[str], bought: Sequence[str]) -> bytes:
    """The bytes of a list with what the user met and bought, newest first.

    >>> with_history(b'{"v":1,"items":[]}', ["tea"], [])
    b'{"v":1,"items":[],"viewed":["tea"],"bought":[]}'
    """
    [ending] = history_endings([(viewed, bought)])
    return raw[:-2] + ending


def without_history(raw: bytes) -> bytes:
    """The bytes of a list without what the user met and bought: what a frontend gets that asked for recommendations.

    >>> without_history(with_history(b'{"v":1,"items":[]}', ["tea"], []))
    b'{"v":1,"items":[]}'
    """
    end = raw.find(_HISTORY)
    return raw if end < 0 else raw[:end] + b"]}"


def item_fragment(item_id: str) -> bytes:
    """The JSON that ends the previous item and starts this one, up to its score: computed once per item."""
    return _BETWEEN + b'{"id":' + msgspec.json.encode(item_id) + b',"score":'


def id_of_fragment(fragment: bytes) -> str:
    """The id behind what :func:`item_fragment` returned.

    >>> id_of_fragment(item_fragment('a "good" tea'))
    'a "good" tea'
    """
    text = fragment[len(_BETWEEN + b'{"id":') : -len(b',"score":')]
    return text[1:-1].decode() if b"\\" not in text else msgspec.json.decode(text, type=str)


def encode_scores(scores: Sequence[float]) -> list[bytes]:
    """Finite scores as JSON numbers: for all lists of a batch at once, which costs a tenth of encoding them singly.

    >>> encode_scores([0.5, 2.0]), encode_scores([])
    ([b'0.5', b'2.0'], [])
    """
    return _encoder.encode(scores)[1:-1].split(b",") if scores else []


class ListForm:
    """Joins the bytes of lists that are made at one moment by one `model`, given as JSON, in one `arm`.

    `arm` needs no escaping (:data:`schemas.control.Slug`). What these lists share is encoded once for each reason:
    writing lists is the most frequent operation, and this costs half as much as encoding one object per item.
    """

    def __init__(self, epoch: int, model: bytes, at: int, arm: str = "") -> None:
        self._shared = b',"epoch":%d,"model":%b,"at":%d,"reason":"' % (epoch, model, at)
        self._arm = b'","arm":"%b' % arm.encode() if arm else b""
        self._middles: dict[Reason, bytes] = {}

    def join(
        self,
        version: int,
        reason: Reason,
        fragments: Sequence[bytes],
        numbers: Sequence[bytes],
        recommendation_id: bytes = b"",
        ending: bytes = NO_HISTORY,
        explored: Sequence[ExploredSlot] = (),
    ) -> bytes:
        """The bytes of a list: items as :func:`item_fragment`, and their encoded scores.

        Without a `recommendation_id` the list has none. `ending` is one of :func:`history_endings`.

        >>> ListForm(7, b'"m"', 9).join(3, "popular", [item_fragment("tea")], [b"0.5"])
        b'{"v":3,"epoch":7,"model":"m","at":9,"reason":"popular","items":[{"id":"tea","score":0.5}]}'
        """
        middle = self._middles.get(reason) or self._middle(reason)
        made = b'"recommendation_id":"%b",' % recommendation_id if recommendation_id else b""
        if explored:
            made += b'"explored":%b,' % _encoder.encode(explored)
        head = b'{"v":%d%b%b"items":[' % (version, middle, made)
        if not fragments:
            return head + ending
        parts: list[bytes] = [head] * (2 * len(fragments) + 2)
        parts[1:-1:2] = fragments
        parts[2:-1:2] = numbers
        parts[1] = fragments[0][len(_BETWEEN) :]
        parts[-1] = b"}" + ending
        return b"".join(parts)

    def _middle(self, reason: Reason) -> bytes:
        middle = self._middles[reason] = b'%b%b%b",' % (self._shared, reason.encode(), self._arm)
        return middle


def join_list(
    version: int,
    epoch: int,
    model: bytes,
    at: int,
    reason: Reason,
    fragments: Sequence[bytes],
    numbers: Sequence[bytes],
    arm: str = "",
    recommendation_id: bytes = b"",
) -> bytes:
    """The bytes of one list, see :class:`ListForm`.

    >>> join_list(3, 7, b'"m"', 9, "popular", [item_fragment("tea")], [b"0.5"])
    b'{"v":3,"epoch":7,"model":"m","at":9,"reason":"popular","items":[{"id":"tea","score":0.5}]}'
    """
    return ListForm(epoch, model, at, arm).join(version, reason, fragments, numbers, recommendation_id)


def encode_list(
    version: int,
    epoch: int,
    model: bytes,
    at: int,
    reason: Reason,
    fragments: Sequence[bytes],
    scores: Sequence[float],
    recommendation_id: bytes = b"",
) -> bytes:
    """:func:`join_list` for a single list whose scores are not encoded yet."""
    return join_list(version, epoch, model, at, reason, fragments, encode_scores(scores), "", recommendation_id)
