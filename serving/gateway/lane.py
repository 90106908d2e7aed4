"""The one hot route, `GET /v1/recommendations/{user}`: plain ASGI in front of the framework, which costs a multiple.

Who asks → within their limits → what they ask → the user's list, or what stands in → has the caller got it already?
A list goes out as the bytes that stand in Redis, cut to `n` items; only filters make it be decoded.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes
from zlib import crc32

import msgspec

from schemas.events import USER_ID_LENGTH_MAX
from schemas.lists import RecommendationList
from serving.answers import NONE_LISTED, Filter, Listed, Own, cut, decoded, segments_of
from serving.gateway.admission import Admission, Class, Limits, class_of
from serving.gateway.metrics import Meter
from serving.gateway.problems import Answer, Header, Headers, Problem, bad_request, fault, forbidden, place_of, too_many
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
NOBODY: Final = "none"
"""The role of who is not known, in metrics."""
REFUSED: Final = "refused"
"""The reason of what is no list, in metrics."""
logger = logging.getLogger("freshet.gateway")
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


class Asked(NamedTuple):
    """A request of the hot route that may be answered. `known` is what the caller has; `left` what its key has left."""

    role: str
    tenant: Tenant
    user_id: str
    query: Query
    of: Class
    now_ms: int
    known: bytes
    deadline_s: float | None
    left: int
    trace: str | None


class Flight(Protocol):
    """A request that the server hands over without a task of its own; to be landed once."""

    def land(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer it. Content-Length is among the headers."""
        ...


class Lane:
    """Answers the hot route and passes everything else on to `app`.

    Where the server can do that it hands requests over by :meth:`board`, which takes no task for what is answered by
    one look into Redis; everywhere else :meth:`serve` does the same by ASGI.
    """

    def __init__(
        self,
        app: App,
        authenticator: Authenticator,
        tenants: Mapping[str, Tenant],
        admission: Admission,
        limits: Limits,
        meter: Meter,
        slow_s: float,
    ) -> None:
        self._slow_s = slow_s
        self._app = app
        self._authenticator = authenticator
        self._tenants = tenants
        self._admission = admission
        self._limits = limits
        self._meter = meter
        self._flying: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX) or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        await self.serve(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the hot route by ASGI."""
        begun_s, role, asked = time.perf_counter(), NOBODY, None
        try:
            headers = dict(scope["headers"])
            principal = self._authenticator.principal(headers)
            role = principal.role
            asked = self._look(principal, headers, scope["raw_path"], scope["query_string"])
            answer, reason = await self._answer(asked)
        except Problem as problem:
            answer, reason = problem.answer(), REFUSED
        except Exception as error:
            answer, reason = _fault(error), REFUSED
        status, answered, body = answer
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self._note(role, reason, status, begun_s, asked)

    def board(self, flight: Flight, raw_path: bytes, query: bytes, raw_headers: list[tuple[bytes, bytes]]) -> None:
        """The same for a request without a body, which is landed now or later."""
        begun_s, role = time.perf_counter(), NOBODY
        try:
            headers = dict(raw_headers)
            principal = self._authenticator.principal(headers)
            role = principal.role
            asked = self._look(principal, headers, raw_path, query)
        except Problem as problem:
            self._land(flight, problem.answer(), REFUSED, role, begun_s, None)
            return
        except Exception as error:
            self._land(flight, _fault(error), REFUSED, role, begun_s, None)
            return
        own = None
        if asked.deadline_s is None and self._admission.takes(asked.of):
            own = asked.tenant.reader.ask_own(asked.user_id, asked.query.segments, asked.now_ms)
        if own is None:
            self._fly(flight, asked, begun_s)
            return
        self._admission.under_way += 1
        own.add_done_callback(lambda done: self._arrived(flight, asked, begun_s, done))

    def _arrived(self, flight: Flight, asked: Asked, begun_s: float, own: "asyncio.Future[Any]") -> None:
        """Redis has answered, or has not: then what is held stands in, and what takes longer takes a task."""
        self._admission.under_way -= 1
        failed = own.cancelled() or own.exception() is not None
        if failed or own.result() is None:
            held = asked.tenant.reader.held(asked.query.segments)
            if not held or (failed and asked.tenant.reader.is_up()):
                self._fly(flight, asked, begun_s)
                return
        try:
            answer, reason = self._answered(asked, None if failed else own.result())
        except Exception as error:
            answer, reason = _fault(error), REFUSED
        self._land(flight, answer, reason, asked.role, begun_s, asked)

    def _fly(self, flight: Flight, asked: Asked, begun_s: float) -> None:
        """Answer in a task."""
        task = asyncio.ensure_future(self._flown(flight, asked, begun_s))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _flown(self, flight: Flight, asked: Asked, begun_s: float) -> None:
        try:
            answer, reason = await self._answer(asked)
        except Exception as error:
            answer, reason = _fault(error), REFUSED
        self._land(flight, answer, reason, asked.role, begun_s, asked)

    def _land(
        self, flight: Flight, answer: Answer, reason: str, role: str, begun_s: float, asked: Asked | None
    ) -> None:
        flight.land(*answer)
        self._note(role, reason, answer.status, begun_s, asked)

    def _note(self, role: str, reason: str, status: int, begun_s: float, asked: Asked | None) -> None:
        """Count it; log what was slow, and what is part of a trace that somebody samples."""
        seconds = time.perf_counter() - begun_s
        self._meter.read(role, reason, status, seconds)
        trace = None if asked is None else asked.trace
        if seconds > self._slow_s or trace is not None:
            told = {"route": "recommendations", "reason": reason, "status": status, "role": role, "trace": trace}
            logger.info("recommendations %d", status, extra={**told, "ms": round(1000 * seconds, 1)})

    def _look(self, principal: Principal, headers: Mapping[bytes, bytes], raw_path: bytes, query: bytes) -> Asked:
        """What is asked, by whom. Raises :class:`Problem`."""
        if "recommendations" not in principal.allowed:
            raise forbidden("recommendations")
        now_s = time.time()
        left = self._limits.take(principal.subject, now_s)
        if left < 0:
            raise too_many(self._limits.again_in_s(principal.subject, now_s), "this key has used up its requests")
        deadline = headers.get(b"freshet-deadline-ms")
        return Asked(
            principal.role,
            tenant_of(self._tenants, principal.tenant),
            user_in(raw_path),
            read_query(query),
            class_of(principal, headers.get(b"priority")),
            int(now_s * 1000),
            headers.get(b"if-none-match", b""),
            None if deadline is None else deadline_s(deadline),
            left,
            trace_of(headers.get(b"traceparent")),
        )

    async def _answer(self, asked: Asked) -> tuple[Answer, str]:
        """The user's list, or what stands in; who is shed waits for that, and Redis is not asked."""
        admission, reader = self._admission, asked.tenant.reader
        if not admission.takes(asked.of):
            await admission.pause()
            return self._answered(asked, None, (SHED,))
        admission.under_way += 1
        try:
            own = reader.own(asked.user_id, asked.query.segments, asked.now_ms)
            return self._answered(
                asked, await own if asked.deadline_s is None else await _within(asked.deadline_s, own)
            )
        finally:
            admission.under_way -= 1

    def _answered(self, asked: Asked, own: Own | None, more: Sequence[Header] = ()) -> tuple[Answer, str]:

        found = choose(own, asked.tenant, asked.query, asked.now_ms)
        if found.reason in ("personalised", "session"):
            asked.tenant.note_read(asked.user_id, asked.role)
        status, body = (304, b"") if found.tag in asked.known else (200, found.body)
        headers = [
            JSON, PRIVATE, VARY, (b"ratelimit-policy", self._limits.policy), (b"ratelimit", b'"key";r=%d' % asked.left),
            (b"etag", found.tag), (b"content-length", b"%d" % len(found.body)), *more,
        ]  # fmt: skip
        return Answer(status, headers, body), found.reason


def _fault(error: Exception) -> Answer:
    # Neither its text nor its values: both may hold what a request held.
    logger.error("a request of the hot route failed", extra={"error": type(error).__name__, "at": place_of(error)})
    return fault().answer()


async def _within(seconds: float, own: Awaitable[Own | None]) -> Own | None:
    """What is held stands in for a list that does not come in time."""
    try:
        async with asyncio.timeout(seconds):
            return await own
    except TimeoutError:
        return None


def choose(own: Own | None, tenant: Tenant, query: Query, now_ms: int) -> Found:
    """The first list of which something may be shown."""
    reader = tenant.reader
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


_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")


def trace_of(header: bytes | None) -> str | None:
    """The trace id in a `traceparent` (W3C Trace Context) of a trace that is sampled; None for any other.

    >>> trace_of(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01") == "a" * 32, trace_of(b"nonsense"), trace_of(None)
    (True, None, None)
    """
    found = None if header is None else _TRACEPARENT.fullmatch(header)
    return None if found is None or not int(found[2], 16) & 1 else found[1].decode()


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
