"""Packed elements decode to the original."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rejects import RejectReason
from tests.support.examples import examples
from tests.support.vocabulary import a_command, a_consent, a_reject, an_interaction
from udfs.elements import Element, pack, unpack

elements = st.builds(
    Element,
    st.integers(0, 1023),
    st.lists(
        st.builds(
            an_interaction,
            user=st.text(min_size=1, max_size=5),
            item=st.none() | st.text(min_size=1),
            session=st.none() | st.text(),
            user_bit=st.integers(0, 63),
            segments=st.lists(st.text()).map(tuple),
        ),
        max_size=3,
    ),
    st.lists(st.builds(a_consent, level=st.sampled_from(["none", "session", "full"])), max_size=3),
    st.lists(st.builds(a_reject, st.sampled_from(RejectReason)), max_size=3),
    st.lists(st.builds(a_command), max_size=2),
    st.integers(0, 9),
)


@settings(max_examples=examples(30), deadline=None)
@given(elements)
def test_element_round_trips(element: Element) -> None:
    assert unpack(pack(element)) == element


def test_elements_share_nothing() -> None:
    Element(0).events.append(an_interaction())
    assert Element(0).events == []
