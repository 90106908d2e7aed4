"""Chooses the list to return, as bytes, and its ETag; lists are decoded only if filters need it."""

import re
from collections.abc import Collection
from typing import Final
from zlib import crc32

import msgspec

from schemas.lists import RecommendationList, UserList, decode_user_list
from serving.answers import EMPTY_LIST, Filter, Listed, Own, cut, decoded
from serving.catalogue import Catalogue
from serving.gateway.questions import Query
from serving.gateway.tenants import Tenant

_HEAD: Final = re.compile(
    rb'\{"v":([0-9]+),"epoch":([0-9]+),"model":("[^"\\]*(?:\\.[^"\\]*)*"),"at":([0-9]+),"reason":"([a-z]+)"'
)
_PLACE: Final = re.compile(rb'"at":([0-9]+),"partition":(-?[0-9]+),"offset":(-?[0-9]+)')


class Found(msgspec.Struct, frozen=True, gc=False):
    """An answer: its body, its ETag, and its reason for metrics."""

    body: bytes
    tag: bytes
    reason: str
    own_at_ms: int = 0
    """When a user's own list was made; 0 for lists of others."""


def choose(own: Own | None, tenant: Tenant, query: Query, now_ms: int) -> Found:
    """The first list that has items to show."""
    reader = tenant.reader
    if query.filters or (own is not None and _holds_any(own[0], tenant.catalogue.withdrawn)):
        return _filtered(own, reader.cached(query.segments), query, tenant)
    if own is not None:
        raw, consent = own
        try:
            tag, model, reason, at_ms = described(raw, consent)
            tenant.models[without_sequence(model)] = now_ms
            return Found(cut(raw, query.n), tag, reason, at_ms)
        except ValueError:  # treat an unreadable list as missing
            pass
    for listed in reader.cached(query.segments):
        return Found(cut(listed.raw, query.n), tag_of_shared(listed), "popular")
    return Found(EMPTY_LIST, tag_of(EMPTY_LIST, b""), "nothing")


class _Item(msgspec.Struct, frozen=True, gc=False):
    id: str


class _Items(msgspec.Struct, frozen=True, gc=False):
    """What is needed of a list to see which items it has."""

    items: tuple[_Item, ...]


_items: Final = msgspec.json.Decoder(_Items)


def _holds_any(raw: bytes, withdrawn: Collection[str]) -> bool:
    """Whether a list holds any of `withdrawn`, which is usually empty; False for what is not a list."""
    if not withdrawn:
        return False
    try:
        return any(item.id in withdrawn for item in _items.decode(raw).items)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _filtered(own: Own | None, popular: list[Listed], query: Query, tenant: Tenant) -> Found:
    keep = Filter(query.exclude, query.category, tenant.catalogue)
    mine = None if own is None else decoded(own[0])
    lists: list[tuple[bytes, bytes, RecommendationList]] = []
    if own is not None and mine is not None:
        lists.append((own[0], own[1], mine))
    lists += [(listed.raw, b"", listed.found) for listed in popular]
    for raw, consent, found in lists:
        items = tuple(filter(keep, found.items))[: query.n]
        if items or query.n == 0:
            body = msgspec.json.encode(msgspec.structs.replace(found, items=items))
            # Stock may change while the list does not.
            tag = b'%b.%x"' % (tag_of(raw, consent)[:-1], crc32(body))
            return Found(body, tag, found.reason, found.at if found is mine else 0)
    return Found(EMPTY_LIST, tag_of(EMPTY_LIST, b""), "nothing")


def user_list(own: Own | None) -> UserList | None:
    """A user's own list with what they met and bought, if it can be read."""
    try:
        return None if own is None else decode_user_list(own[0])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def shown(found: RecommendationList, query: Query, catalogue: Catalogue) -> RecommendationList:
    """The items of a list that a query asks for, without withdrawn ones."""
    keep = Filter(query.exclude, query.category, catalogue)
    return msgspec.structs.replace(found, items=tuple(filter(keep, found.items))[: query.n])


def without_sequence(model: bytes) -> bytes:
    """The name of a model as JSON without the sequence of an online one, which changes each second.

    >>> without_sequence(b'"online@1764489600000"'), without_sequence(b'"mine-1"')
    (b'"online"', b'"mine-1"')
    """
    name, found, _ = model.partition(b"@")
    return name + b'"' if found else model


def tag_of(raw: bytes, consent: bytes) -> bytes:
    """A strong ETag: version and epoch of a list, when it was made, and the place of the consent that allows it.

    Raises :class:`ValueError` if it is not a list.

    >>> consent = b'{"level":"full","expires_at":0,"at":12,"partition":0,"offset":5}'
    >>> tag_of(b'{"v":3,"epoch":7,"model":"m","at":9,"reason":"session","items":[]}', consent)
    b'"3.7.9.12-0-5"'
    """
    return described(raw, consent)[0]


def tag_of_shared(listed: Listed) -> bytes:
    """The ETag of a list that is nobody's own: that of the stored list, and another one without withdrawn items."""
    tag = tag_of(listed.raw, b"")
    return b'%b.%x"' % (tag[:-1], crc32(listed.raw)) if listed.shortened else tag


def described(raw: bytes, consent: bytes) -> tuple[bytes, bytes, str, int]:
    """The ETag of a list, the name of its model as JSON, its reason, and when it was made (ms).

    Raises :class:`ValueError` if it is not a list.
    """
    found = _HEAD.match(raw)
    if found is None:
        raise ValueError
    version, epoch, model, at, reason = found.groups()
    place = _PLACE.search(consent)
    tag = b'"%b.%b.%b.%b"' % (version, epoch, at, b"-".join(place.groups()) if place else b"")
    return tag, model, reason.decode(), int(at)
