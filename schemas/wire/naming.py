"""Finds the users named by an unreadable consent change, in its value or its key. Nothing here raises.

The result counts only towards a withdrawal, never towards a grant, so parsing can be lenient. Each function takes time
linear in the number of bytes.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from schemas.consents import ConsentChange

MAGIC: Final = 0
HEADER_BYTES: Final = 5
"""The size of a Confluent header: the zero byte and the schema id."""
TOKENS_MAX: Final = 10_000
"""The maximum number of texts and brackets of an invalid record that are examined."""
_LENGTH_BYTES_MAX: Final = 2
_AROUND_JSON: Final = " \t\r\n\0\ufeff"
_BYTES_AROUND_JSON: Final = _AROUND_JSON.encode()


class Named(NamedTuple):
    """The users named by an unreadable consent change.

    `whole`: it is syntactically valid, and only its content is wrong. `by_name`: the id is the value of `user_id`, so
    it is not a coincidence of bytes. `others`: further users named with equal right; then it is not syntactically
    valid.
    """

    user_id: str
    erase: bool
    whole: bool
    by_name: bool = False
    others: tuple[str, ...] = ()

    @property
    def users(self) -> tuple[str, ...]:
        """All named users."""
        return (self.user_id, *self.others)


class _Named(msgspec.Struct, gc=False):
    """The part of a consent change that identifies its user; all else may be invalid."""

    user_id: str
    erase: Any = False


_decode_named: Final = msgspec.json.Decoder(_Named).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_members: Final[Callable[[str], list[tuple[str, Any]]]] = json.JSONDecoder(
    object_pairs_hook=list, parse_int=str, parse_float=str, parse_constant=str, strict=False
).decode
"""The fields of an object in order, including repeated ones; numbers stay texts, so their size is not limited."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\[\s\S])*(?:"\s*:?)?|[\[\]{}]')
"""A text with the colon after it, or a bracket. An unterminated text extends to the end, so no text is read twice."""
_USER_ID: Final = re.compile(r'"user_id"\s*:\s*("(?:[^"\\]|\\.){1,1536}")')
"""A user id of 256 characters has at most 1,536 bytes if each is escaped."""
_FIELDS: Final = frozenset(ConsentChange.__struct_fields__)
_NO_LETTERS: Final = re.compile(r"[^\w\n]|_")


def _bare_names(names: Iterable[str]) -> set[str]:
    """Names without the differences between writers: case, width, spaces, hyphens, underscores and punctuation."""
    text = "\n".join([name.replace("\n", "") for name in names])
    return set(_NO_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold()).split("\n"))


_BARE_FIELDS: Final = _bare_names(_FIELDS)
_USER: Final = "userid"


def named_in_json(raw: bytes) -> Named | None:
    """The users named by the JSON `raw`, regardless of errors in or around it; None if it names nobody.

    >>> named_in_json(b'{"user_id":"ada","level":"some"}')
    Named(user_id='ada', erase=False, whole=True, by_name=True, others=())
    >>> named_in_json(b'{"user_id":"ada","user_id":"bob","lev')
    Named(user_id='ada', erase=False, whole=False, by_name=True, others=('bob',))
    """
    text = _json_text(raw)
    try:
        named = _decode_named(text.encode("utf-8", "surrogateescape"))
        members = _decode_members(text)
    except (ValueError, RecursionError):
        return _one_of(_members_least_deep(text) or _nearly_named(text))
    users = _users_in(members)
    if len(users) > 1:
        return _one_of(users)
    erase = all(value is True for name, value in members if name == "erase") and named.erase is True
    return Named(named.user_id, erase, True, True)


def _one_of(users: list[str]) -> Named | None:
    """One of `users`, because nobody can tell which is right."""
    return Named(users[0], False, False, True, tuple(users[1:])) if users else None


def _nearly_named(text: str) -> list[str]:
    """The users named by the JSON object `text`, which has no field `user_id`."""
    try:
        return _users_in(_decode_members(text)) if text.startswith("{") else []
    except (ValueError, RecursionError):
        return []


def _users_in(members: list[tuple[str, Any]]) -> list[str]:
    """The values of `user_id` and of fields that may mean it, without duplicates."""
    names = {name for name, _ in members}
    if _USER in _bare_names(names):
        names = {name for name in names if _USER in _bare_names([name])}
        return list(dict.fromkeys(value for name, value in members if name in names and isinstance(value, str)))
    return []


def is_ambiguous(raw: bytes) -> bool:
    """Whether readers may differ on the JSON object `raw`: it has a repeated field, or one that may mean another.

    See :func:`may_mean_another_field`. Raises :class:`RecursionError` if it is nested too deeply, and
    :class:`ValueError` if it is not a JSON object.

    >>> is_ambiguous(b'{"level":"full","lev\\u0065l":"none"}'), is_ambiguous(b'{"a":{"ts":1},"ts":2}')
    (True, False)
    """
    text = raw.decode("utf-8", "surrogateescape").strip(_AROUND_JSON)
    if not text.startswith("{"):
        raise ValueError("this is no JSON object")
    members = _decode_members(text)
    names = {name for name, _ in members}
    return len(names) < len(members) or may_mean_another_field(names)


def may_mean_another_field(names: Iterable[str]) -> bool:
    """Whether an unknown name equals one of a consent's fields except for case, spaces, hyphens and underscores.

    Some readers accept `Level` for `level`, and `expiresAt` was meant to be `expires_at`.

    >>> may_mean_another_field(["expiresAt"]), may_mean_another_field([" level"]), may_mean_another_field(["source"])
    (True, True, False)
    """
    unknown = set(names) - _FIELDS
    return bool(unknown) and not _BARE_FIELDS.isdisjoint(_bare_names(unknown))


def looks_like_json(raw: bytes) -> bool:
    """Whether `raw` starts like JSON, after anything that producers put before it."""
    return _json_text(raw).startswith(("{", "[", '"'))


def named_in_key(key: bytes) -> list[str]:
    """The texts that may be the user id in the Kafka key `key`: unchanged, and in the forms written by serialisers.

    These write a JSON text, a JSON object, and each in a Confluent frame, where they also write bare text and Avro.

    >>> named_in_key(b"ada"), named_in_key(b'"ada"'), named_in_key(b"\\0\\0\\0\\0\\1\\6ada")
    (['ada'], ['"ada"', 'ada'], ['\\x06ada', 'ada'])
    """
    framed = key[:1] == bytes([MAGIC]) and len(key) > HEADER_BYTES
    payload = key[HEADER_BYTES:] if framed else key
    text = _bare(payload)
    found = [text, _unquoted(text), _avro_text(payload) if framed else None]
    if "user_id" in (text or ""):
        named = named_in_json(key)
        found += () if named is None else named.users
    return list(dict.fromkeys(one for one in found if one))


def _json_text(raw: bytes) -> str:
    """The JSON in `raw`: without its frame, in any UTF, and, if it is a text that contains JSON, that JSON."""
    within_frame = raw[HEADER_BYTES:].lstrip(_BYTES_AROUND_JSON) if raw[:1] == bytes([MAGIC]) else b""
    text = _decoded(within_frame if within_frame.startswith(b"{") else raw).strip(_AROUND_JSON)
    within = _unquoted(text)
    return text if within is None else within.strip(_AROUND_JSON)


def _decoded(raw: bytes) -> str:
    """Bytes that are not valid UTF become surrogates, which are not allowed in ids."""
    encoding = json.detect_encoding(raw)
    if not encoding.startswith("utf-8"):
        text = raw.decode(encoding, "replace").replace("\ufffd", "\udcff")
        if "user_id" in text:
            return text
    return raw.decode("utf-8", "surrogateescape")


def _bare(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _unquoted(text: str | None) -> str | None:
    """The value of the JSON text `text`, or None if it is none."""
    if text is None or not text.startswith('"'):
        return None
    try:
        return _decode_text(text)
    except (ValueError, RecursionError):
        return None


def _avro_text(payload: bytes) -> str | None:
    """An Avro string: its length in bytes, doubled, with seven bits per byte, and its UTF-8."""
    length = 0
    for at, byte in enumerate(payload[:_LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            text = payload[at + 1 :]
            return _bare(text) if length == 2 * len(text) else None
    return None


def _members_least_deep(text: str) -> list[str]:
    """The texts of `user_id` at the lowest nesting depth, without duplicates; else the first one found."""
    found = list(_members(text))
    if found:
        least = min(depth for depth, _ in found)
        return list(dict.fromkeys(user_id for depth, user_id in found if depth == least))
    by_eye = _USER_ID.search(text)
    user_id = _unquoted(by_eye[1]) if by_eye else None
    return [] if user_id is None else [user_id]


def _members(text: str) -> Iterator[tuple[int, str]]:
    """(depth, text) of each member `user_id`."""
    depth, is_next = 0, False
    for match in islice(_TOKEN.finditer(text), TOKENS_MAX):
        found = match[0]
        if found[0] != '"':
            depth += 1 if found in "{[" else -1
            is_next = False
            continue
        is_name = found.endswith(":")
        user_id = _unquoted(found.rstrip()) if is_next and not is_name else None
        if user_id is not None:
            yield depth, user_id
        is_next = is_name and found.startswith('"user_id"')
