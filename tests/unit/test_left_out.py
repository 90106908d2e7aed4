"""What users are not to see, found for all of them at once, is what a loop finds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from udfs.left_out import PLACES, among

VALUES = st.one_of(
    st.integers(0, 5),
    st.integers(0, 3).map(lambda number: number * PLACES + 1),
    st.integers((1 << 32) - 3, (1 << 32) - 1),
)


@given(st.lists(st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.lists(VALUES, max_size=8)), min_size=1))
def test_items_are_left_out_of_the_lists_of_those_who_had_them_alone(users: list[tuple[list[int], list[int]]]) -> None:
    wanted = np.array([asked for asked, _ in users], np.int64)
    owned = [(user, value) for user, (_, values) in enumerate(users) for value in values]
    columns = np.array(owned, np.int64).reshape(-1, 2)
    expected = [[one in values for one in asked] for asked, values in users]
    assert among(wanted, columns[:, 0], columns[:, 1]).tolist() == expected


def test_more_values_than_places_are_still_told_apart() -> None:
    values = np.arange(0, 8 * PLACES, 2)
    found = among(np.arange(4 * PLACES)[None], np.zeros(len(values), np.int64), values)
    assert found[0, ::2].all() and not found[0, 1::2].any()
