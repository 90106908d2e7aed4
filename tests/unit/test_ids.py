"""Which characters ids may contain: every script and every emoji, but nothing that only deceives."""

import doctest
import unicodedata
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.kafka.catalogue_topic import CatalogueFollower
from models.manifest import decode_items, encode_items
from schemas import ids
from schemas.audit import AccessEntry, is_name
from schemas.ids import is_free_text, is_id
from schemas.rejects import RejectReason
from schemas.wire.codecs import BadRecord, json_codec
from serving.accesses import AccessLog
from serving.gateway.problems import Problem
from serving.gateway.questions import purpose_of, user_of
from tests.support.vocabulary import (
    a_raw_command,
    a_raw_consent,
    a_raw_interaction,
    a_tombstone,
    an_ingest,
)
from udfs.elements import unpack

WRITTEN = {
    "a family": "👩‍👩‍👧‍👦",
    "a flag of letters and tags": "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "Persian with a non-joiner": "می‌روم",
    "Sinhala with a joiner": "ශ්‍රී",
    "French with no-break spaces": "où\u202fça\u00a0va",
    "Hebrew with a direction mark": "\u200fשלום\u200e",
    "ideographs with their space": "山田\u3000太郎",
    "a private-use letter": "\uf8ff-store",
    "decomposed": "e\u0301",
    "not assigned yet": "\U0001fbff\U0003fffd",
}
REFUSED = {
    "a line feed": "a\nb",
    "NUL": "\0",
    "C1": "a\x85b",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "an override": "a\u202eb",
    "an isolate": "\u2066a\u2069",
    "a byte order mark": "\ufeffa",
    "a noncharacter": "a\ufdd0",
    "the last noncharacter": "a\U0010ffff",
}
_DIRECTED = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_NAMED = frozenset(map(ord, "\ufeff\ufff9\ufffa\ufffb\u206a\u206b\u206c\u206d\u206e\u206f\U000e0001"))


def test_code_points_are_judged_by_their_unicode_properties() -> None:
    """The twin uses the Unicode database, and computes noncharacters as in the standard (23.7)."""
    for code in range(0x110000):
        character = chr(code)
        control = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
        deceives = unicodedata.bidirectional(character) in _DIRECTED or code in _NAMED
        assert is_id(f"a{character}") is not (control or noncharacter or deceives), hex(code)
        assert is_free_text(character) is not control, hex(code)


def taken(user: str, item: str = "tea") -> list[Any]:
    """The outcome of a user's interaction, consent and record without a value."""
    records = [a_raw_interaction(user, item=item), a_raw_consent(user), a_tombstone(user)]
    elements = [unpack(raw) for _, raw in an_ingest(4).pack(records)]
    return [(element.events, element.consents, element.rejects) for element in elements]


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_ids_of_any_script_are_accepted_unchanged(written: str) -> None:
    [(events, consents, rejects)] = taken(written, item=f"cup of {written}")
    assert (len(events), len(consents), rejects) == (1, 2, [])
    assert events[0].item == f"cup of {written}"
    for path in (quote(written, safe="").encode(), written.encode()):
        assert user_of(path) == written
    assert decode_items(encode_items([written, "tea"]), "items.txt") == [written, "tea"]
    assert in_catalogue(written)


@pytest.mark.parametrize("written", REFUSED.values(), ids=REFUSED)
def test_deceptive_ids_are_refused_everywhere(written: str) -> None:
    elements = taken(written)
    reasons = [reject.reason for _, _, rejects in elements for reject in rejects]
    assert reasons == [RejectReason.CONTROL_CHARACTER] * 3
    assert not any(events or consents for events, consents, _ in elements)
    for path in (quote(written, safe="").encode(), written.encode()):
        with pytest.raises(Problem, match="control character"):
            user_of(path)
    assert not in_catalogue(written)


def in_catalogue(item_id: str) -> bool:
    found: list[str] = []
    follower = CatalogueFollower.__new__(CatalogueFollower)
    follower.unread, follower._on_item = 0, lambda name, item: found.append(name)
    follower._take(item_id.encode("utf-8", "replace"), b"")
    follower._take(None, msgspec.json.encode({"item_id": item_id, "name": "tea"}))
    return item_id in found


def test_ids_are_not_normalised_so_two_spellings_are_two_users() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert unicodedata.normalize("NFC", decomposed) == composed
    names = {events[0].pseudonym for user in (composed, decomposed) for events, _, _ in taken(user) if events}
    assert len(names) == 2


@given(st.text(min_size=1, max_size=64))
def test_gateway_and_job_agree_on_every_text(text: str) -> None:
    try:
        user_of(quote(text, safe="").encode())
        in_a_path = True
    except Problem:
        in_a_path = False
    value = msgspec.json.encode({"user_id": text, "level": "full", "ts": 1_750_000_000_000})
    try:
        in_a_record = json_codec().consent(value)[0].user_id == text
    except BadRecord:
        in_a_record = False
    assert in_a_path == in_a_record == is_id(text)


def test_examples_run() -> None:
    result = doctest.testmod(ids)
    assert result.attempted and not result.failed


VISIBLE_FORMATS = frozenset([*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD])
"""Signs of numbers and of the end of a verse, which enclose the digits after them."""
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"


def test_names_require_visible_allowed_characters() -> None:
    for code in range(0x110000):
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] == "Z" or (kind in ("Cc", "Cs", "Cf") and code not in VISIBLE_FORMATS) or character in BLANK_LETTERS:
            assert not is_name(character) and not is_name(character * 3), ascii(character)
        elif kind[0] in "LNPS":
            assert is_name(character) and is_name(f" {character}\u200d "), ascii(character)
        if not is_id(character):
            assert not is_name(f"a{character}b"), ascii(character)


@pytest.mark.parametrize("text", ["request 47", "privacy officer", *WRITTEN.values()])
def test_names_of_any_script_are_accepted(text: str) -> None:
    assert is_name(text) and is_name("x" * 128) and not is_name(text + "x" * 128)
    assert purpose_of(text) == text


@pytest.mark.parametrize(
    "text", ["", " ", "\u3000", "\0", "a\nb", "a\n", "\u202e", "a\u202eb", "\u200b", "x" * 129], ids=ascii
)
def test_blank_purpose_is_a_bad_request(text: str) -> None:
    with pytest.raises(Problem) as raised:
        purpose_of(text)
    assert raised.value.status == 400


@pytest.mark.parametrize("text", ["", " ", "\0", "\u202e", "a\u202eb", "x" * 129], ids=ascii)
@pytest.mark.parametrize(("kind", "field"), [
    ("access", "role"), ("access", "purpose"), ("reads", "role"), ("reads", "purpose"), ("reads", "what")
])  # fmt: skip
def test_command_with_blank_names_becomes_a_dead_letter(kind: str, field: str, text: str) -> None:
    body = {"kind": kind, "user_id": "ada", "role": "r", "purpose": "p"}
    body |= {"request": "r1"} if kind == "access" else {"what": "list"}
    for command, refused in ((body, 0), (body | {field: text}, 1)):
        [(_, raw)] = an_ingest(4).pack([a_raw_command()._replace(value=msgspec.json.encode(command))])
        element = unpack(raw)
        assert (len(element.rejects), len(element.accesses) + len(element.access_requests)) == (refused, 1 - refused)


def test_older_trail_with_blank_names_is_still_read() -> None:
    for text in ("", " ", "\0", "\u202e"):
        entry = AccessEntry(text, text, text)
        assert msgspec.json.decode(msgspec.json.encode(entry), type=AccessEntry) == entry


def test_access_log_with_blank_names_is_refused() -> None:
    for names in ({"role": " "}, {"purpose": "\0"}, {"what": ""}):
        with pytest.raises(ValueError, match="visible"):
            AccessLog({}, **{"role": "r", "purpose": "p", "what": "list"} | names)
