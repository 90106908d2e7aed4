"""TCF and GPP strings, checked with our own writer and with published strings."""

import tracemalloc
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consents import ConsentChange, gpc_of
from tests.support.examples import examples
from tests.support.iab import LETTERS, base64url, fibonacci, gpp, number, tcf_core, usnat
from tests.support.vocabulary import BEGINNING
from udfs.signals import OptOut, Signals, Unread, read_gpp, read_tcf, signals_of

pytestmark = pytest.mark.privacy

MISSING, UNREADABLE = Unread.MISSING, Unread.UNREADABLE
NOTHING_KNOWN = Signals(UNREADABLE, UNREADABLE, UNREADABLE)
SPECIFIED = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"
"""The TCF string in the examples of the GPP specification: consent to nothing."""

purposes = st.frozensets(st.integers(1, 24))
segments = st.text(LETTERS, min_size=1, max_size=12)
opt_outs = st.fixed_dictionaries({name: st.integers(0, 2) for name in get_args(OptOut)})


def a_change(**fields: object) -> ConsentChange:
    return ConsentChange("ada", "full", BEGINNING, **fields)  # type: ignore[arg-type]


@given(purposes, purposes, st.lists(segments, max_size=3))
def test_tcf_consent_excludes_legitimate_interest(
    consented: frozenset[int], legitimate: frozenset[int], others: list[str]
) -> None:
    text = ".".join([tcf_core(consented, legitimate=legitimate), *others])
    assert read_tcf(text) == consented


@pytest.mark.parametrize(
    ("text", "consented"),
    [
        ("COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA", {1, 2, 3}),
        ("COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA.ZAAgH9794ulA", {1, 2, 3}),
        (SPECIFIED, set()),
    ],
)
def test_published_tcf_strings_decode_as_in_other_implementations(text: str, consented: set[int]) -> None:
    assert read_tcf(text) == consented


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="no core"),
        pytest.param(tcf_core(version=1), id="version 1"),
        pytest.param(tcf_core(version=3), id="version 3"),
        pytest.param("BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA", id="a string of TCF 1"),
        pytest.param(tcf_core([1])[:43], id="cut off"),
        pytest.param(tcf_core([1]) + "=", id="padded"),
        pytest.param("+" + tcf_core([1])[1:], id="the other base64"),
        pytest.param("C" + "ü" * 60, id="not ASCII"),
    ],
)
@pytest.mark.promise("policy-narrows")
def test_invalid_tcf_string_is_unreadable(text: str) -> None:
    assert read_tcf(text) is UNREADABLE


section_ids = st.frozensets(st.integers(1, 60), max_size=12)


@given(section_ids, purposes, opt_outs, st.none() | st.booleans(), st.booleans(), st.sampled_from([1, 2]))
def test_gpp_sections_are_read_beside_others(
    ids: frozenset[int],
    consented: frozenset[int],
    opted: dict[str, int],
    gpc: bool | None,
    groups: bool,
    version: int,
) -> None:
    known = {2: tcf_core(consented), 7: usnat(opted, gpc, version)}
    text = gpp({each: known.get(each, "1YNN") for each in ids}, groups=groups)
    expected = frozenset(name for name, value in opted.items() if value == 1)
    assert read_gpp(text) == Signals(
        7 in ids and gpc is True, consented if 2 in ids else MISSING, expected if 7 in ids else MISSING
    )


ALL_OUT = frozenset(get_args(OptOut))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"DBABMA~{SPECIFIED}", Signals(False, frozenset(), MISSING)),
        (f"DBABM~{SPECIFIED}", Signals(False, frozenset(), MISSING)),
        (f"DBACNYA~{SPECIFIED}~1YNN", Signals(False, frozenset(), MISSING)),
        (f"DBABjw~{SPECIFIED}~1YNN", Signals(False, MISSING, MISSING)),  # the Canadian section, 5
        ("DBAA", Signals(False, MISSING, MISSING)),
        ("DBABLA~BVVVVVVVVWA", Signals(False, MISSING, ALL_OUT)),
        ("DBABLA~BVVVVVVVVWA.YA", Signals(True, MISSING, ALL_OUT)),
        ("DBABLA~BVVVkkkkkpFY.YA", Signals(True, MISSING, ALL_OUT)),
        ("DBABLA~BVQqAAAACg", Signals(False, MISSING, frozenset())),
        ("DBABLA~BAAAAAAAAABA.QA", Signals(False, MISSING, frozenset())),
        ("DBABLA~CAAAAAAAAAWA.Q", Signals(False, MISSING, frozenset())),
        ("DBACLMA~BVVqAAEABCA~BVoYYYI", Signals(False, MISSING, frozenset())),
        ("DBABrGA~BVVqAAEABCA~BVoYYZoI~BVoYYYI~BVoYYQg~BVaGGGCA~BVoYYYQg", Signals(False, MISSING, frozenset())),
    ],
)
def test_published_gpp_strings_decode_as_in_other_implementations(text: str, said: Signals) -> None:
    assert read_gpp(text) == said


HEADER = number(3, 6) + number(1, 6)
BLOATED = HEADER + number(1, 12) + "1" + fibonacci(7) + fibonacci(4000)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("DBA", id="a header cut off"),
        pytest.param("DBABMA", id="a section that is not there"),
        pytest.param(f"DBAA~{SPECIFIED}", id="a section without an id"),
        pytest.param(f"DBABMA~{SPECIFIED}~1YNN", id="one section too many"),
        pytest.param(f"EBABMA~{SPECIFIED}", id="another type"),
        pytest.param(f"DCABMA~{SPECIFIED}", id="another version"),
        pytest.param(f"DBABMB~{SPECIFIED}", id="something behind the range"),
        pytest.param(f"DBABAA~{SPECIFIED}", id="a code word without an end"),
        pytest.param(base64url(BLOATED) + "~A", id="a group of thousands"),
        pytest.param(base64url(HEADER + number(1, 12) + "0" + "0" * 30 + "11") + "~A", id="an id of millions"),
        pytest.param(SPECIFIED, id="a TCF string"),
        pytest.param("1YNN", id="a US privacy string"),
    ],
)
def test_gpp_string_with_unreadable_header_is_unreadable(text: str) -> None:
    assert read_gpp(text) == NOTHING_KNOWN


def test_gpp_section_count_is_bounded() -> None:
    groups = ("1" + fibonacci(1) + fibonacci(6_000)) * 1_000
    text = base64url(HEADER + number(1_000, 12) + groups)
    tracemalloc.start()
    try:
        assert read_gpp(f"{text}~A") == NOTHING_KNOWN
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize(
    "section",
    [
        pytest.param("", id="empty"),
        pytest.param("B", id="cut off"),
        pytest.param(usnat({})[:9], id="a letter short"),
        pytest.param(usnat({}, version=2)[:11], id="as long as version 1"),
        pytest.param("D" + usnat({})[1:], id="version 3"),
        pytest.param(usnat({"sale": 3}), id="an opt-out of 3"),
        pytest.param(usnat({}) + ".", id="an empty sub-section"),
        pytest.param(usnat({}) + ".4", id="a sub-section of type 3"),
        pytest.param(usnat({}) + ".Y=", id="a padded sub-section"),
    ],
)
def test_unreadable_section_does_not_affect_others(section: str) -> None:
    assert read_gpp(gpp({2: tcf_core([1]), 7: section})) == Signals(UNREADABLE, frozenset({1}), UNREADABLE)
    assert read_gpp(gpp({2: section, 7: usnat({"sale": 1})})) == Signals(False, UNREADABLE, frozenset({"sale"}))


gpp_strings = st.builds(
    lambda known, at, letter: known[:at] + letter + known[at + 1 :],
    st.sampled_from([gpp({2: tcf_core([1, 5]), 7: usnat({"sale": 1}, True)}), "DBABLA~BVVVVVVVVWA.YA"]),
    st.integers(0, 80),
    st.sampled_from([*LETTERS, "~", ".", ""]),
)


@settings(max_examples=examples(150), deadline=None)
@given(st.text(max_size=60) | st.text(LETTERS + "~.", max_size=60) | gpp_strings)
def test_arbitrary_text_does_not_raise(text: str) -> None:
    assert isinstance(read_tcf(text), frozenset | Unread)
    assert isinstance(read_gpp(text), Signals)


@given(purposes, purposes)
def test_two_tcf_strings_are_intersected(one: frozenset[int], other: frozenset[int]) -> None:
    in_gpp = gpp({2: tcf_core(other)})
    assert signals_of(a_change(tcf=tcf_core(one), gpp=in_gpp)).tcf == one & other
    assert signals_of(a_change(tcf=tcf_core(one))).tcf == one
    assert signals_of(a_change(gpp=in_gpp)).tcf == other
    assert signals_of(a_change(tcf="?", gpp=in_gpp)).tcf is UNREADABLE
    assert signals_of(a_change(tcf=tcf_core(one), gpp="?")).tcf is UNREADABLE


@pytest.mark.parametrize("header", [None, False, True])
@pytest.mark.parametrize("in_string", [None, False, True])
def test_gpc_is_set_by_header_or_string(header: bool | None, in_string: bool | None) -> None:
    change = a_change(gpc=header, gpp=gpp({7: usnat({}, in_string)}))
    assert signals_of(change).gpc is (header is True or in_string is True)


def test_gpc_header_holds_with_unreadable_string() -> None:
    assert signals_of(a_change(gpc=True, gpp="?")).gpc is True
    assert signals_of(a_change(gpc=False, gpp="?")).gpc is UNREADABLE


def test_empty_strings_are_missing() -> None:
    assert signals_of(a_change(tcf="", gpp="")) == (False, MISSING, MISSING)


@given(st.none() | st.text(max_size=3))
def test_sec_gpc_is_set_by_exactly_the_value_one(header: str | None) -> None:
    assert gpc_of(header) is (header == "1")
    assert gpc_of("1")
    assert not any(map(gpc_of, ("0", "", " 1", "1 ", "11", "1, 1", "true", "?1", "\uff11")))
