"""Parses a request of the hot route from its path, query and headers, or refuses it with the reason."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from schemas import audit
from schemas.events import ID_LENGTH_MAX, USER_ID_LENGTH_MAX
from schemas.ids import is_id
from schemas.traces import sampled_trace
from serving.answers import segments_of
from serving.gateway.admission import urgency_of
from serving.gateway.parameters import (
    DEADLINE_MS_MAX,
    EXCLUDED_MAX,
    N_DEFAULT,
    N_MAX,
    NAME_LENGTH_MAX,
    ListParameters,
)
from serving.gateway.problems import bad_request

PREFIX: Final = b"/v1/recommendations/"
"""The path of the hot route, before the user id."""
DEADLINE_DIGITS_MAX: Final = 9
"""Python refuses to read numbers of thousands of digits."""
QUERIES_CACHED_MAX: Final = 4_096
QUERY_CACHED_BYTES_MAX: Final = 128
"""Longer queries are not cached, so that the cache is bounded in bytes, too."""
PARAMETERS: Final = frozenset(name.encode() for name in ListParameters.__annotations__)


class Query(msgspec.Struct, frozen=True):
    """The parameters of a read, without the user; `ignored` is the number of unknown parameters."""

    n: int
    segments: tuple[str, ...]
    exclude: frozenset[str]
    category: str | None
    ignored: int = 0

    @property
    def filters(self) -> bool:
        """Whether any items must be filtered out."""
        return bool(self.exclude or self.category is not None)


class RequestHead(msgspec.Struct, frozen=True):
    """The headers that matter to the hot route; names in `lines` are lower case."""

    lines: Mapping[bytes, bytes]
    urgency: int
    known: bytes
    deadline: bytes | None
    trace: str | None


def headers_by_name(headers: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Headers by name. Repeated `If-None-Match` headers are joined; repeated credentials are ambiguous, so become
    empty.

    >>> keys = [(b"x-api-key", b"a"), (b"x-api-key", b"b")]
    >>> headers_by_name([(b"if-none-match", b'"1"'), (b"if-none-match", b'"2"'), *keys])
    {b'if-none-match': b'"1", "2"', b'x-api-key': b''}
    """
    lines = dict(headers)
    if len(lines) < len(headers):
        known = [value for name, value in headers if name == b"if-none-match"]
        if known:
            lines[b"if-none-match"] = b", ".join(known)
        for credentials in (b"authorization", b"x-api-key"):
            if sum(name == credentials for name, _ in headers) > 1:
                lines[credentials] = b""
    return lines


def is_known(tag: bytes, known: bytes) -> bool:
    """Whether `If-None-Match: known` matches the ETag `tag`.

    >>> is_known(b'"1"', b'"2", W/"1"'), is_known(b'"1"', b"*"), is_known(b'"1"', b"")
    (True, True, False)
    """
    return tag in known or known.strip() == b"*"


def parse_head(lines: Mapping[bytes, bytes]) -> RequestHead:
    """Parse the headers that matter to the hot route."""
    return RequestHead(
        lines,
        urgency_of(lines.get(b"priority")),
        lines.get(b"if-none-match", b""),
        lines.get(b"freshet-deadline-ms"),
        trace_of(lines.get(b"traceparent")),
    )


def user_in_path(raw_path: bytes) -> str:
    """The user id in a path of the hot route. Raises :class:`Problem` (400)."""
    return user_of(raw_path[len(PREFIX) :])


def user_of(raw: bytes) -> str:
    """Decode a user id in a path, where a slash is written %2F. Raises :class:`Problem` (400)."""
    return _id_of(raw, "user", USER_ID_LENGTH_MAX)


def item_of(raw: bytes) -> str:
    """Decode an item id in a path, where a slash is written %2F. Raises :class:`Problem` (400)."""
    return _id_of(raw, "item", ID_LENGTH_MAX)


def _id_of(raw: bytes, whose: str, length_max: int) -> str:
    try:
        found = raw.decode() if b"%" not in raw else _unquoted(raw)
    except UnicodeDecodeError:
        raise bad_request(f"the {whose} id in the path is not UTF-8") from None
    if not 0 < len(found) <= length_max or b"/" in raw:
        raise bad_request(f"the {whose} id in the path must have 1 to {length_max} characters, with a slash as %2F")
    if not is_id(found):
        raise bad_request(f"the {whose} id in the path must not contain control characters")
    return found


def purpose_of(text: str) -> str:
    """Validate the purpose of a request for a person's data. Raises :class:`Problem` (400)."""
    if not audit.is_name(text):
        raise bad_request(
            f"purpose says what this is read for, in 1 to {audit.NAME_LENGTH_MAX} characters, one of them visible and "
            "none a control"
        )
    return text


_ESCAPED: Final = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*")


def _unquoted(raw: bytes) -> str:
    if _ESCAPED.fullmatch(raw) is None:
        raise bad_request("a % in a path must be written %25")
    return unquote_to_bytes(raw).decode()


def trace_of(header: bytes | None) -> str | None:
    """The trace id in a `traceparent` header (W3C Trace Context) of a sampled trace; None for any other.

    >>> trace_of(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01") == "a" * 32, trace_of(b"nonsense"), trace_of(None)
    (True, None, None)
    """
    found = sampled_trace(header)
    return None if found is None else found.partition("-")[0]


def deadline_s(header: bytes) -> float:
    """The caller's deadline; raises :class:`Problem` (400)."""
    if not header.isdigit() or len(header) > DEADLINE_DIGITS_MAX or not 0 < int(header) <= DEADLINE_MS_MAX:
        raise bad_request(f"Freshet-Deadline-Ms must be an integer from 1 to {DEADLINE_MS_MAX}")
    return int(header) / 1000


def read_query(raw: bytes) -> Query:
    """Parse the parameters of the hot route. Raises :class:`Problem` (400) for invalid ones.

    Undocumented parameters, such as those that campaigns and ingresses add, are ignored.
    """
    return _cached_query(raw) if len(raw) <= QUERY_CACHED_BYTES_MAX else _read_query(raw)


def _read_query(raw: bytes) -> Query:
    if not raw:
        return Query(N_DEFAULT, segments_of(), frozenset(), None)
    pairs, ignored = _known_pairs(raw)
    exclude = [value for name, value in pairs if name == "exclude"]
    single = {name: value for name, value in pairs if name != "exclude"}
    if len(single) + len(exclude) < len(pairs):
        raise bad_request("only exclude may be given more than once")
    texts = [single.get(name) for name in ("surface", "segment", "category")]
    if any(text is not None and not 0 < len(text) <= NAME_LENGTH_MAX for text in [*texts, *exclude]):
        raise bad_request(f"surface, segment, category and exclude must have 1 to {NAME_LENGTH_MAX} characters")
    if len(exclude) > EXCLUDED_MAX:
        raise bad_request(f"exclude may be given at most {EXCLUDED_MAX} times")
    surface, segment, category = texts
    return Query(_n(single.get("n")), segments_of(surface, segment), frozenset(exclude), category, ignored)


_cached_query: Final = lru_cache(QUERIES_CACHED_MAX)(_read_query)


def _known_pairs(raw: bytes) -> tuple[list[tuple[str, str]], int]:
    """The documented parameters, decoded, and the number of others."""
    parts = raw.split(b"&")
    known = [part for part in parts if _name_in(part) in PARAMETERS]
    if b"" in parts:
        raise bad_request("the query is not of the form name=value&name=value")
    try:
        pairs = [
            pair
            for part in known
            for pair in parse_qsl(part.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
        ]
    except (ValueError, UnicodeDecodeError):
        raise bad_request("the query is not of the form name=value&name=value") from None
    return pairs, len(parts) - len(known)


def _name_in(part: bytes) -> bytes:
    name, _, _ = part.partition(b"=")
    return name if b"%" not in name else unquote_to_bytes(name)


def _n(text: str | None) -> int:
    if text is None:
        return N_DEFAULT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= N_MAX and len(text) < 9):
        raise bad_request(f"n must be an integer from 1 to {N_MAX}")
    return int(text)
