"""All routes except the hot one, in the order of the table in :mod:`serving.gateway.roles`."""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote_plus

import msgspec
from fastapi import Request, Response
from kafka.errors import KafkaError
from starlette.convertors import StringConvertor, register_url_convertor

from schemas.answers import CollectionFailed
from schemas.consents import ConsentChange
from schemas.errors import (
    ConsentRefused,
    FreshetError,
    InvalidConsent,
    InvalidEvent,
    JobSilent,
    NotAcknowledged,
    SettingsError,
    StoreMisconfigured,
    StoreUnavailable,
)
from schemas.events import Interaction
from schemas.ids import is_id
from schemas.lists import History, RecommendationList
from schemas.store import TRENDING, category_segment
from serving.answers import EMPTY_LIST, Listed, cut, for_cart, of_category, segments_of
from serving.consents import ParsedConsent, read_consent_or_withdrawal
from serving.events import RecordedEvent, read_event
from serving.gateway.bodies import (
    CART_MAX,
    Acknowledged,
    BeingCollected,
    Cart,
    EventResult,
    EventResults,
    Health,
    ServedModel,
    ServedModels,
)
from serving.gateway.caching import shared_headers
from serving.gateway.collecting import Question
from serving.gateway.lane import JSON
from serving.gateway.listing import shown, tag_of_shared, user_list
from serving.gateway.logs import record_headers
from serving.gateway.operations import NOT_MODIFIED, OperationRouter, Reply, json_of
from serving.gateway.parameters import (
    AccessParameters,
    HistoryParameters,
    ListHeaders,
    ListParameters,
    PopularParameters,
    SharedParameters,
)
from serving.gateway.problems import Problem, ProblemDetails, bad_request, unavailable
from serving.gateway.questions import Query, headers_by_name, is_known, item_of, purpose_of, read_query, user_of
from serving.gateway.tenants import Tenant
from serving.gateway.tracing import RecordHeaders
from serving.held_data import access_command
from serving.kept_answers import Ticket, read_ticket, requester

R = TypeVar("R")
EVENTS_MAX: Final = 500
COLLECTED_AFTER_S: Final = 2
"""When it is worth asking for collected data again."""
_cart: Final = msgspec.json.Decoder(Cart)
_raw_events: Final = msgspec.json.Decoder(list[msgspec.Raw])
logger = logging.getLogger("freshet.gateway")


class _IdInPath(StringConvertor):
    """Any characters, including decoded slashes and line breaks: the gate has checked the raw path."""

    regex = "(?s:.+)"


register_url_convertor("id", _IdInPath())
router = OperationRouter()


@router.answers(
    "The user's list, or a fallback",
    sends=RecommendationList,
    also=NOT_MODIFIED,
    query=ListParameters,
    headers=ListHeaders,
)
async def recommendations(request: Request) -> Response:
    """Get the user's list, or a popular list if there is none. There is always a list."""
    # Never called: the lane answers this route. It is here for the OpenAPI document.
    raise Problem(404, "not-found", "this route is served by the hot lane")


@router.answers("The items, newest first; none without a list", sends=RecommendationList, query=HistoryParameters)
async def recently_viewed(request: Request) -> Response:
    """Get the items that the user has met last, as of their list. Consent applies as for the list."""
    return await _history(request, "viewed")


@router.answers("The items, newest first; none without a list", sends=RecommendationList, query=HistoryParameters)
async def buy_again(request: Request) -> Response:
    """Get the items that the user has bought, as of their list. Consent applies as for the list."""
    return await _history(request, "bought")


async def _history(request: Request, of: History) -> Response:
    tenant, user_id, query = request.state.tenant, _user(request), read_query(request.scope["query_string"])
    if query.ignored:
        request.app.state.meter.ignored(request.scope["route"].name, query.ignored)
    own = await tenant.reader.own(user_id, ())
    found = user_list(own)
    if found is None:
        items = RecommendationList(0, 0, "", 0, of, ())
    else:
        tenant.note_read(user_id, request.state.role)
        items = shown(found.history(of), query, tenant.catalogue)
    return Response(msgspec.json.encode(items), headers={"cache-control": "no-store"}, media_type=JSON[1].decode())


@router.answers("A popular list", sends=RecommendationList, also=NOT_MODIFIED, query=PopularParameters)
async def popular(request: Request) -> Response:
    """Get the popular list of a surface or segment, or of a category. It is the same for everybody.

    If a category has no list yet, the answer has those of its items that are in the popular list of the surface or
    segment.
    """
    query, shared = _shared_query(request, with_category=True)
    if query.category is None:
        return await _first_popular(request, query.segments, query.n, shared)
    tenant: Tenant = request.state.tenant
    own = category_segment(query.category)
    if found := await tenant.reader.popular_lists([own]):
        return _shared_list(request, found[0], [own], query.n, shared)
    others = await tenant.reader.popular_lists(query.segments)
    for listed in (of_category(one, query.category, tenant.catalogue) for one in others):
        if listed.found.items:
            return _shared_list(request, listed, [own, *query.segments], query.n, shared)
    return _nothing()


@router.answers(
    "Similar items, or popular ones if none are known",
    sends=RecommendationList,
    also=NOT_MODIFIED,
    query=SharedParameters,
)
async def similar(request: Request) -> Response:
    """Get the items most similar to an item. They are the same for everybody.

    If none are known, the answer is a popular list without the item; its `reason` is then `popular`.
    """
    reader = request.state.tenant.reader
    item = item_of(request.scope["raw_path"].split(b"/")[3])
    query, shared = _shared_query(request)
    own = await reader.similar_list(item, query.segments)
    if own is not None:
        return _shared_list(request, own, (), query.n, shared)
    if not reader.is_up() or not (popular := reader.cached(query.segments)):
        # A cache that stored this would lose a better list.
        raw = _without({item}, reader.cached(query.segments)[:1])
        return Response(cut(raw, query.n), headers={"cache-control": "no-store"}, media_type=JSON[1].decode())
    return _shared_list(
        request, popular[0]._replace(raw=_without({item}, popular[:1])), query.segments, query.n, shared
    )


def _without(left_out: Collection[str], popular: list[Listed]) -> bytes:
    """The first of `popular` without the items `left_out`."""
    for _, found, _ in popular:
        items = tuple(one for one in found.items if one.id not in left_out)
        return msgspec.json.encode(msgspec.structs.replace(found, items=items))
    return EMPTY_LIST


@router.answers(
    "Trending items, or popular ones if none are", sends=RecommendationList, also=NOT_MODIFIED, query=SharedParameters
)
async def trending(request: Request) -> Response:
    """Get the items that rise at the moment. They are the same for everybody.

    If none do, the answer is a popular list; its `reason` is then `popular`.
    """
    query, shared = _shared_query(request)
    return await _first_popular(request, (TRENDING, *query.segments), query.n, shared)


@router.answers("Items that go with those of the cart", 413, 415, sends=RecommendationList, body=Cart)
async def cart(request: Request) -> Response:
    """Get items that are similar to those of a cart, for anybody. Nothing of the request is stored or logged.

    If none are known, the answer is a popular list without the items of the cart; its `reason` is then `popular`.
    """
    reader = request.state.tenant.reader
    wanted = _read_cart(await _json_body(request))
    segments, items = segments_of(wanted.surface, wanted.segment), dict.fromkeys(wanted.items)
    found = await asyncio.gather(*(reader.similar_list(item, segments) for item in items))
    body = for_cart([one.found for one in found if one is not None], items.keys(), wanted.n)
    raw = msgspec.json.encode(body) if body else _without(items.keys(), await reader.popular_lists(segments))
    return Response(cut(raw, wanted.n), headers={"cache-control": "no-store"}, media_type=JSON[1].decode())


def _read_cart(body: bytes) -> Cart:
    try:
        found = _cart.decode(body)
    except (ValueError, RecursionError):
        raise bad_request(f"the body must be a cart as JSON: 1 to {CART_MAX} items, see /openapi.json") from None
    if not all(is_id(item) for item in found.items):
        raise bad_request("an item id must not contain control characters")
    return found


async def _first_popular(request: Request, segments: Sequence[str], n: int, shared: bool) -> Response:
    found = await request.state.tenant.reader.popular_lists(segments)
    return _shared_list(request, found[0], segments, n, shared) if found else _nothing()


def _nothing() -> Response:
    """The response without a list: a cache that stored it would lose a list that it has."""
    return Response(EMPTY_LIST, headers={"cache-control": "no-store"}, media_type=JSON[1].decode())


def _shared_list(request: Request, listed: Listed, segments: Sequence[str], n: int, shared: bool) -> Response:
    """The response with a list, or that the client has it; `segments` as for :func:`shared_headers`."""
    tag, reason = tag_of_shared(listed), listed.found.reason
    if reason != "popular":  # a URL may have had a popular list of the same version
        tag = b'%b.%b"' % (tag[:-1], reason.encode())
    headers = shared_headers(request.app.state.cache, request.state.tenant.name, segments, tag, shared)
    if is_known(tag, headers_by_name(request.scope["headers"]).get(b"if-none-match", b"")):
        return Response(status_code=304, headers=headers)
    return Response(cut(listed.raw, n), headers=headers, media_type="application/json")


def _shared_query(request: Request, with_category: bool = False) -> tuple[Query, bool]:
    """The query, and whether shared caches may keep the answer: not if tenants share the URL."""
    tenant: Tenant = request.state.tenant
    raw = request.scope["query_string"]
    parts = [part for part in raw.split(b"&") if part]
    named = [part for part in parts if part.startswith(b"tenant=")]
    if any(unquote_plus(part[7:].decode("ascii", "replace")) != tenant.name for part in named):
        raise Problem(403, "other-tenant", "these credentials belong to another tenant")
    query = read_query(b"&".join(part for part in parts if part not in named))
    if query.exclude or (query.category is not None and not with_category):
        more = ", category" if with_category else ""
        raise bad_request(f"this list is the same for everybody: it accepts only n, surface, segment{more} and tenant")
    if query.ignored:
        request.app.state.meter.ignored(request.scope["route"].name, query.ignored)
    return query, bool(named) or len(request.app.state.tenants) == 1


@router.answers(
    "The position of the interaction, or the result for each of an array",
    413,
    415,
    503,
    status=202,
    body=Interaction | list[Interaction],
)
async def events(request: Request) -> Acknowledged | EventResults:
    """Record one interaction, or up to 500 in a JSON array. Each is accepted or rejected separately."""
    body = await _json_body(request)
    with request.app.state.tracing.post(request.scope["headers"]) as headers:
        return await _events(request, body, headers)


async def _events(request: Request, body: bytes, headers: RecordHeaders) -> Acknowledged | EventResults:
    send_all = partial(request.state.tenant.events.send_all, headers=headers)
    if body.lstrip()[:1] != b"[":
        try:
            positions = await _in_thread(request, send_all, [read_event(body)])
        except InvalidEvent as error:
            raise Problem(400, "invalid-event", str(error), reason=error.reason) from None
        return Acknowledged("accepted", *positions[0])
    verdicts = _read_events(body)
    checked = [one for one in verdicts if isinstance(one, Interaction)]
    positions = await _in_thread(request, send_all, checked) if checked else []
    return _results(verdicts, positions)


def _read_events(body: bytes) -> list[Interaction | InvalidEvent]:
    try:
        raws = _raw_events.decode(body)
    except (ValueError, RecursionError):
        raise bad_request("the body must be an interaction or an array of interactions, as JSON") from None
    if not 0 < len(raws) <= EVENTS_MAX:
        raise bad_request(f"an array must have 1 to {EVENTS_MAX} interactions")
    verdicts: list[Interaction | InvalidEvent] = []
    for raw in raws:
        try:
            verdicts.append(read_event(bytes(raw)))
        except InvalidEvent as error:
            verdicts.append(error)
    return verdicts


def _results(verdicts: list[Interaction | InvalidEvent], positions: list[RecordedEvent]) -> EventResults:
    places = iter(positions)
    results = [
        EventResult("rejected", reason=one.reason, detail=str(one))
        if isinstance(one, InvalidEvent)
        else EventResult("accepted", *next(places))
        for one in verdicts
    ]
    return EventResults(len(positions), len(verdicts) - len(positions), results)


@router.answers("Acknowledged", 409, 413, 415, 503, body=ConsentChange)
async def consent(request: Request) -> Acknowledged:
    """Record a consent change. A withdrawal is in effect with the response; a grant when the job has read it.

    An invalid record that names its user counts as a withdrawal; if it does not ask for one, the response is 400.
    """
    body = await _json_body(request)
    try:
        return await _recorded(request, read_consent_or_withdrawal(body, time.time_ns() // 1_000_000))
    except InvalidConsent as error:
        raise Problem(400, "invalid-consent", str(error), reason=error.reason) from None


@router.answers("Acknowledged", 409, 413, 503)
async def erasure(request: Request) -> Acknowledged:
    """Erase a user (GDPR, article 17). No later response is personalised."""
    user_id = _user(request)
    return await _recorded(
        request, ParsedConsent(ConsentChange(user_id, "none", time.time_ns() // 1_000_000, erase=True))
    )


@router.answers(
    "Collecting; `Location` says where to get the data", 503, status=202, sends=BeingCollected, query=AccessParameters
)
async def access(request: Request) -> Response:
    """Request all data about a user (GDPR, articles 15 and 20). Fetch it by the id in the response.

    `purpose` is recorded in the audit trail with your role. The same request, repeated while the data is being
    collected, gets the same id from any gateway.
    """
    user_id = _user(request)
    purpose = purpose_of(request.query_params.get("purpose", ""))
    tenant, role = request.state.tenant, request.state.role
    pseudonym = tenant.names(user_id)[0]
    who = requester(request.state.subject, role, pseudonym, purpose)
    question = Question(pseudonym, who, access_command(user_id, role, purpose))
    ticket = await _in_thread(request, partial(request.app.state.collecting.ask, tenant), question)
    return _being_collected(ticket, request.scope["raw_path"])


@router.answers(
    "The user's data",
    404,
    410,
    503,
    sends=dict,
    also={202: Reply("Still collecting; `Retry-After` says when to ask again", BeingCollected)},
)
async def answer(request: Request) -> Response:
    """Get the data collected about a user, for an hour, with the credentials that requested it."""
    tenant, collecting, ticket = (
        request.state.tenant,
        request.app.state.collecting,
        read_ticket(request.path_params["id"]),
    )
    not_there = Problem(404, "not-found", "you have not requested data of this user under this id in the last hour")
    if ticket is None:
        raise not_there
    user_id, subject, role = _user(request), request.state.subject, request.state.role
    owners = [requester(subject, role, pseudonym).owner for pseudonym in tenant.names(user_id)]
    if collecting.is_under_way(ticket, owners):
        return _being_collected(ticket)
    standing = await _in_thread(request, partial(tenant.answers.look_up, ticket), owners)
    if standing is None:
        raise not_there
    if standing.answer is None:
        return _being_collected(ticket)
    if isinstance(standing.answer, CollectionFailed):
        raise Problem(410, "not-collected", standing.answer.why)
    if await _in_thread(request, partial(tenant.is_erased_since, user_id), standing.taken_in_ms):
        raise Problem(410, "not-collected", "the user was erased: data collected before is not returned")
    return Response(standing.answer, headers={"cache-control": "no-store"}, media_type=JSON[1].decode())


def _being_collected(ticket: Ticket, asked_at: bytes | None = None) -> Response:
    """The response while data is being collected; includes its location if this is the request at path `asked_at`."""
    response = json_of(BeingCollected(ticket.id, "collecting"), 202)
    response.headers["retry-after"] = str(COLLECTED_AFTER_S)
    if asked_at is not None:
        response.headers["location"] = f"{asked_at.decode('ascii')}/{ticket.id}"
    return response


async def _recorded(request: Request, parsed: ParsedConsent) -> Acknowledged:
    try:
        headers = record_headers(request.scope["headers"])
        at = await _in_thread(request, partial(request.state.tenant.consents.record_parsed, headers=headers), parsed)
    except ConsentRefused as error:
        raise Problem(409, "older-than-withdrawal", str(error)) from None
    invalid = parsed.invalid
    place = at.append_ts, at.partition, at.offset
    if invalid is None:
        return Acknowledged("acknowledged", *place)
    return Acknowledged("acknowledged", *place, "withdrawal", invalid.reason, str(invalid))


def _user(request: Request) -> str:
    """The user in `/v1/users/{user}…`, from the raw path: in the decoded path, %2F looks like a slash."""
    return user_of(request.scope["raw_path"].split(b"/")[3])


@router.answers("The models")
async def model(request: Request) -> ServedModels:
    """List the models whose lists this process has served, and when it last did."""
    served = request.state.tenant.models
    return ServedModels([ServedModel(msgspec.json.decode(name), at) for name, at in served.items()])


@router.answers("Metrics in the text format of Prometheus", sends=str)
async def metrics(request: Request) -> Response:
    """Get the metrics of all workers, for Prometheus."""
    return Response(request.app.state.exposition(), media_type="text/plain; version=0.0.4")


@router.answers("The process is alive")
async def livez(_: Request) -> Health:
    """Check that this process is alive."""
    return Health("live")


@router.answers("Ready for requests", also={503: Reply("Shutting down", ProblemDetails)})
async def readyz(request: Request) -> Health:
    """Check that this process is ready for requests. Without Redis it serves popular lists, and is ready."""
    if request.app.state.draining:
        raise unavailable("this process is shutting down")
    readers = [tenant.reader for tenant in request.app.state.tenants.values()]
    states = {reader.state() for reader in readers}
    worst = next(state for state in ("away", "closed", "up") if state in states)
    complaints = list(dict.fromkeys(line for reader in readers for line in reader.complaints()))
    return Health("ready", worst, complaints)


async def _in_thread(request: Request, call: Callable[[Any], R], argument: Any) -> R:
    """Run a call that waits for Kafka in a thread for this kind of request. Raises :class:`Problem` (503).

    A thread cannot be interrupted: if the request is given up, its capacity stays reserved until the thread has ended.
    """
    state, kind = request.app.state, request.state.admitted
    work = state.threads[kind].submit(call, argument)
    try:
        return await asyncio.wrap_future(work)
    except asyncio.CancelledError:
        state.admission.reserve_until_done(kind, work)
        raise
    except NotAcknowledged as error:
        logger.warning("%s", error)
        raise unavailable("this may not have been recorded: send it again (sending is idempotent)") from None
    except (JobSilent, StoreUnavailable, StoreMisconfigured, SettingsError, KafkaError) as error:
        logger.warning("%s", error if isinstance(error, FreshetError) else type(error).__name__)
        raise unavailable("a backend of the gateway does not respond: try again") from None


async def _json_body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "unsupported-media-type", "the body must be JSON, with Content-Type: application/json")
    codings = [coding.strip().lower() for coding in request.headers.get("content-encoding", "identity").split(",")]
    if codings not in (["identity"], ["gzip"]):
        accepted = [("Accept-Encoding", "gzip, identity")]
        raise Problem(415, "unsupported-encoding", "Content-Encoding must be gzip, once, or absent", accepted)
    body = await request.body()
    return body if codings == ["identity"] else unzipped(body, request.app.state.body_bytes_max)


def unzipped(body: bytes, bytes_max: int) -> bytes:
    """Decompress a gzip file with one member.

    Raises :class:`Problem`: 413 beyond `bytes_max`, 400 if it is not gzip.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = decoder.decompress(body, bytes_max + 1)
    except zlib.error:
        raise bad_request("the body is not gzip as Content-Encoding says") from None
    if len(content) > bytes_max:
        raise Problem(413, "too-large", "the decompressed body is too large: send less at a time")
    if not decoder.eof or decoder.unused_data:
        raise bad_request("the body is not gzip as Content-Encoding says: it must be one complete member")
    return content
