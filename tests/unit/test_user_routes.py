"""The bucket of a pseudonym is found from the raw ids, under every key of the ring."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.secrets.key_rings import begin_rotation, new_key_ring
from privacy.user_routes import BYTES_EACH, sorted_routes
from schemas.pseudonyms import Pseudonymiser, digest_of
from tests.support.vocabulary import BEGINNING

pytestmark = pytest.mark.privacy
PSEUDONYMISER = Pseudonymiser(begin_rotation(new_key_ring(), BEGINNING))


@given(known=st.lists(st.text(), unique=True), strangers=st.lists(st.text()))
def test_pseudonym_under_any_key_has_the_route_that_ingest_takes(known: list[str], strangers: list[str]) -> None:
    names = {name: user for user in known for name in PSEUDONYMISER.all(user)}
    rows = [digest_of(name) + PSEUDONYMISER.route(user).to_bytes(4, "big") for name, user in names.items()]
    assert all(len(row) == BYTES_EACH for row in rows)
    routes = sorted_routes(b"".join([*rows, *rows[:2]]))
    for name, user in names.items():
        assert routes.of(name) == PSEUDONYMISER.route(user)
    for user in set(strangers) - set(known):
        assert routes.of(PSEUDONYMISER.user(user)) is None


def test_pseudonyms_that_share_half_of_their_hash_are_told_apart() -> None:
    names = ["p1." + text for text in ("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0OEA")]
    routes = sorted_routes(b"".join(digest_of(name) + bytes([0, 0, 0, n]) for n, name in enumerate(names)))
    assert [routes.of(name) for name in names] == [0, 1]
    assert routes.high.dtype == np.uint64
