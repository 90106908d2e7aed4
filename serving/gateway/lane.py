"""The one hot route, `GET /v1/recommendations/{user}`: plain ASGI in front of the framework, which costs a multiple.

Who asks → within their limits → what they ask → the user's list, or what stands in → has the caller got it already?
A list goes out as the bytes that stand in Redis, cut to `n` items; only filters make it be decoded.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes
from zlib import crc32

import msgspec

from schemas.events import USER_ID_LENGTH_MAX
from schemas.lists import RecommendationList
from serving.answers import NONE_LISTED, Filter, Listed, Own, cut, decoded, segments_of
from serving.async_reader import AsyncReader
from serving.gateway.admission import Admission, Class, Limits, class_of
from serving.gateway.metrics import Meter
from serving.gateway.problems import Answer, Headers, Problem, bad_request, forbidden, too_many
from serving.gateway.security import Authenticator, Principal
from serving.gateway.tenants import Tenant, tenant_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIX: Final = "/v1/recommendations/"
_RAW_PREFIX: Final = PREFIX.encode()
N_DEFAULT: Final = 10
N_MAX: Final = 100
NAME_LENGTH_MAX: Final = 100
EXCLUDED_MAX: Final = 200
DEADLINE_MS_MAX: Final = 10_000
QUERIES_HELD_MAX: Final = 4_096
PRIVATE: Final = (b"cache-control", b"private, no-cache")
"""A cache of the user's own may keep the answer, and must ask each time whether it may still use it."""
VARY: Final = (b"vary", b"authorization, x-api-key")
JSON: Final = (b"content-type", b"application/json")
SEND_WHOLE: Final = "freshet.send_whole"
"""Where a scope has what :meth:`serving.gateway.protocol.BoundedProtocol.send_whole` does, if it has it."""
SHED: Final = (b"freshet-shed", b"overload")


_HEAD: Final = re.compile(rb'\{"v":(\d+),"epoch":(\d+),"model":("(?:[^"\\]|\\.)*"),"at":(\d+),"reason":"(\w+)"')
_PLACE: Final = re.compile(rb'"at":(\d+),"partition":(-?\d+),"offset":(-?\d+)')


class Query(NamedTuple):
    """What is asked for, but for the user."""

    n: int
    segments: tuple[str, ...]
    exclude: frozenset[str]
    in_stock: bool
    category: str | None

    @property
    def filters(self) -> bool:
        """Whether items are to be taken out."""
        return bool(self.exclude or self.in_stock or self.category is not None)


class Found(NamedTuple):
    """What is answered: the bytes, what tells it from any other answer, and what it was for metrics."""

    body: bytes
    tag: bytes
    reason: str


class Lane:
    """Answers the hot route and passes everything else on to `app`."""

    def __init__(
        self,
        app: App,
        authenticator: Authenticator,
        tenants: Mapping[str, Tenant],
        admission: Admission,
        limits: Limits,
        meter: Meter,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._tenants = tenants
        self._admission = admission
        self._limits = limits
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX) or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        await self.serve(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the hot route."""
        begun_s = time.perf_counter()
        admission = self._admission
        admission.under_way += 1
        role, reason = "none", "refused"
        try:
            headers = dict(scope["headers"])
            principal = self._authenticator.principal(headers)
            role = principal.role
            answer, reason = await self._answer(scope, headers, principal)
        except Problem as problem:
            answer = problem.answer()
        finally:
            admission.under_way -= 1
        await _send(scope, send, answer)
        self._meter.read(role, reason, answer.status, time.perf_counter() - begun_s)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], principal: Principal) -> tuple[Answer, str]:
        if "recommendations" not in principal.allowed:
            raise forbidden("recommendations")
        now_s = time.time()
        left = self._limits.take(principal.subject, now_s)
        if left < 0:
            raise too_many(self._limits.again_in_s(principal.subject, now_s), "this key has used up its requests")
        query = read_query(scope["query_string"])
        user_id = user_in(scope["raw_path"])
        tenant = tenant_of(self._tenants, principal.tenant)
        of = class_of(principal, headers.get(b"priority"))
        answered: Headers = [
            JSON, PRIVATE, VARY, (b"ratelimit-policy", self._limits.policy), (b"ratelimit", b'"key";r=%d' % left),
        ]  # fmt: skip
        found = await self._read(tenant, user_id, query, of, principal.role, headers, int(now_s * 1000), answered)
        answered.append((b"etag", found.tag))
        if found.tag in headers.get(b"if-none-match", b""):
            return Answer(304, answered, b""), found.reason
        return Answer(200, answered, found.body), found.reason

    async def _read(
        self,
        tenant: Tenant,
        user_id: str,
        query: Query,
        of: Class,
        role: str,
        headers: dict[bytes, bytes],
        now_ms: int,
        answered: Headers,
    ) -> Found:
        reader = tenant.reader
        if not self._admission.takes(of):
            answered.append(SHED)
            await self._admission.shed_turn()
            return choose(None, reader, query, tenant, now_ms)
        deadline = headers.get(b"freshet-deadline-ms")
        if deadline is None:
            own = await reader.own(user_id, query.segments, now_ms)
        else:
            own = await _within(deadline_s(deadline), reader.own(user_id, query.segments, now_ms))
        found = choose(own, reader, query, tenant, now_ms)
        if found.reason in ("personalised", "session"):
            tenant.note_read(user_id, role)
        return found


async def _send(scope: Scope, send: Send, answer: Answer) -> None:
    """In one write where the server can do that, which costs a third of what the two messages of ASGI do."""
    status, headers, body = answer
    headers.append((b"content-length", b"%d" % len(body)))
    if scope["method"] == "HEAD":
        body = b""
    send_whole = scope.get(SEND_WHOLE)
    if send_whole is None or not send_whole(status, headers, body):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _within(seconds: float, own: Awaitable[Own | None]) -> Own | None:
    """What is held stands in for a list that does not come in time."""
    try:
        async with asyncio.timeout(seconds):
            return await own
    except TimeoutError:
        return None


def choose(own: Own | None, reader: AsyncReader, query: Query, tenant: Tenant, now_ms: int) -> Found:
    """The first list of which something may be shown."""
    if query.filters:
        return _filtered(own, reader.held(query.segments), query, tenant)
    if own is not None:
        raw, consent = own
        try:
            tag, model, reason = described(raw, consent)
            tenant.models[model] = now_ms
            return Found(cut(raw, query.n), tag, reason)
        except ValueError:  # a list that cannot be read is as good as none
            pass
    for listed in reader.held(query.segments):
        return Found(cut(listed.raw, query.n), tag_of(listed.raw, b""), "popular")
    return Found(NONE_LISTED, tag_of(NONE_LISTED, b""), "nothing")


def _filtered(own: Own | None, popular: list[Listed], query: Query, tenant: Tenant) -> Found:
    keep = Filter(query.exclude, query.in_stock, query.category, tenant.catalogue)
    mine = None if own is None else decoded(own[0])
    lists: list[tuple[bytes, bytes, RecommendationList]] = []
    if own is not None and mine is not None:
        lists.append((own[0], own[1], mine))
    lists += [(listed.raw, b"", listed.found) for listed in popular]
    for raw, consent, found in lists:
        items = tuple(filter(keep, found.items))[: query.n]
        if items or query.n == 0:
            body = msgspec.json.encode(msgspec.structs.replace(found, items=items))
            # What is sold out may change while the list does not.
            tag = b'%b.%x"' % (tag_of(raw, consent)[:-1], crc32(body))
            return Found(body, tag, found.reason)
    return Found(NONE_LISTED, tag_of(NONE_LISTED, b""), "nothing")


def tag_of(raw: bytes, consent: bytes) -> bytes:
    """A strong ETag: version and epoch of a list, when it was made, and the place of the consent it stands under.

    Raises :class:`ValueError` for what is no list.

    >>> consent = b'{"level":"full","expires_at":0,"at":12,"partition":0,"offset":5}'
    >>> tag_of(b'{"v":3,"epoch":7,"model":"m","at":9,"reason":"session","items":[]}', consent)
    b'"3.7.9.12-0-5"'
    """
    return described(raw, consent)[0]


def described(raw: bytes, consent: bytes) -> tuple[bytes, bytes, str]:
    """The ETag of a list, the name of its model as JSON, and its reason. Raises :class:`ValueError` for no list."""
    found = _HEAD.match(raw)
    if found is None:
        raise ValueError
    version, epoch, model, at, reason = found.groups()
    place = _PLACE.search(consent)
    tag = b'"%b.%b.%b.%b"' % (version, epoch, at, b"-".join(place.groups()) if place else b"")
    return tag, model, reason.decode()


def user_in(raw_path: bytes) -> str:
    """The user id of a path, which may have a slash in it if that is written %2F. Raises :class:`Problem` (400)."""
    raw = raw_path[len(_RAW_PREFIX) :]
    try:
        user_id = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError:
        raise bad_request("the user id in the path is not UTF-8") from None
    if not 0 < len(user_id) <= USER_ID_LENGTH_MAX or b"/" in raw:
        raise bad_request(f"the path ends with a user id of 1 to {USER_ID_LENGTH_MAX} characters, a slash as %2F")
    return user_id


def deadline_s(header: bytes) -> float:
    """The caller's deadline; raises :class:`Problem` (400)."""
    if not header.isdigit() or not 0 < int(header) <= DEADLINE_MS_MAX:
        raise bad_request(f"Freshet-Deadline-Ms is a whole number from 1 to {DEADLINE_MS_MAX}")
    return int(header) / 1000


@lru_cache(QUERIES_HELD_MAX)
def read_query(raw: bytes) -> Query:
    """The parameters of the hot route. Raises :class:`Problem` (400) for those that are not of the documented form."""
    if not raw:
        return Query(N_DEFAULT, segments_of(), frozenset(), False, None)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise bad_request("the query is not of the form name=value&name=value") from None
    exclude = [value for name, value in pairs if name == "exclude"]
    single = {name: value for name, value in pairs if name != "exclude"}
    if len(single) + len(exclude) < len(pairs):
        raise bad_request("a parameter but exclude was given twice")
    if unknown := single.keys() - {"n", "surface", "segment", "in_stock", "category"}:
        raise bad_request(f"{len(unknown)} parameters are not known here: see /openapi.json")
    texts = [single.get(name) for name in ("surface", "segment", "category")]
    if any(text is not None and not 0 < len(text) <= NAME_LENGTH_MAX for text in [*texts, *exclude]):
        raise bad_request(f"surface, segment, category and exclude have 1 to {NAME_LENGTH_MAX} characters")
    if len(exclude) > EXCLUDED_MAX:
        raise bad_request(f"exclude is given at most {EXCLUDED_MAX} times")
    surface, segment, category = texts
    return Query(
        _n(single.get("n")), segments_of(surface, segment), frozenset(exclude), _flag(single.get("in_stock")), category
    )


def _n(text: str | None) -> int:
    if text is None:
        return N_DEFAULT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= N_MAX and len(text) < 9):
        raise bad_request(f"n is a whole number from 1 to {N_MAX}")
    return int(text)


def _flag(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise bad_request("in_stock is true or false")
    return text == "true"
