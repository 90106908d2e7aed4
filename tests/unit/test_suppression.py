"""No figure of fewer than k people is shown or derivable, even by a reader who knows the rule."""

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.rules.suppression import OTHERS, Cell, SuppressedTable, Tally


def a_table(counts: tuple[int, ...], of_one: tuple[bool, ...], k: int, closed: bool = True) -> SuppressedTable:
    """Cells with that many things to count, each of another person, or all of one."""
    tally, person = Tally(k), itertools.count()
    for cell, (count, one) in enumerate(zip(counts, of_one, strict=True)):
        for _ in range(count):
            tally.add(f"c{cell}", f"p1.one{cell}" if one else f"p1.{next(person)}")
    return tally.table([f"c{cell}" for cell in range(len(counts))] if closed else [])


def seen(table: SuppressedTable) -> tuple:
    return table.total, table.rest, *table.rows.items()


@pytest.mark.parametrize(("k", "cells"), [(3, 2), (4, 2), (5, 2), (3, 3)])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.promise("small-figures")
def test_small_figures_cannot_be_inferred_by_enumeration(k: int, cells: int, closed: bool):
    """Tries all tables up to a total, including every table that produces the same report."""
    possible: dict[tuple, list[tuple[tuple[int, ...], tuple[bool, ...]]]] = defaultdict(list)
    for counts in itertools.product(range(3 * k + 1), repeat=cells):
        if sum(counts) <= 3 * k:
            for of_one in itertools.product([False, True], repeat=cells):
                possible[seen(a_table(counts, of_one, k, closed))].append((counts, of_one))
    assert len(possible) > 5, "something is shown"
    for tables in possible.values():
        for cell in range(cells):
            small = any(0 < min(counts[cell], 1 if of_one[cell] else k) < k for counts, of_one in tables)
            assert not small or len({counts[cell] for counts, _ in tables}) > 1, tables


persons = st.tuples(st.sampled_from(["p1.", "p2."]), st.integers(0, 15)).map(lambda drawn: f"{drawn[0]}{drawn[1]}")
told = st.lists(st.tuples(st.sampled_from("abcd"), persons, st.integers(1, 3)), max_size=120)


def behind(entries: list[tuple[str, str, int]]) -> int:
    """The naive twin: complete sets of names, by key."""
    return max((len({name for _, name, _ in entries if name.startswith(key)}) for key in ("p1.", "p2.")), default=0)


@given(told, st.integers(3, 12))
def test_shown_figures_and_remainders_cover_k_persons(entries: list[tuple[str, str, int]], k: int):
    tally = Tally(k)
    for category, name, count in entries:
        tally.add(category, name, count)
    table = tally.table()
    total = sum(count for _, _, count in entries)
    assert table.total == (total if not entries or behind(entries) >= k else None)
    for category, figure in table.rows.items():
        mine = [entry for entry in entries if entry[0] == category]
        assert figure == sum(count for _, _, count in mine)
        assert behind(mine) >= k
    rest = [entry for entry in entries if entry[0] not in table.rows]
    if table.total is not None:
        assert table.rest == sum(count for _, _, count in rest)
        assert not rest or (behind(rest) >= k and len({category for category, _, _ in rest}) > 1)


def test_person_with_many_changes_counts_once():
    cell = Cell(10)
    for _ in range(50):
        cell.add("p1.ada")
    assert (cell.count, cell.figure) == (50, None)


def test_renamed_person_may_count_under_two_pseudonyms():
    cell = Cell(10)
    for n in range(9):
        cell.add(f"p1.{n}")
        cell.add(f"p2.{n}")
    assert cell.figure is None
    cell.add("p2.9")
    assert cell.figure == 19


def test_anonymous_events_count_individually():
    cell = Cell(10)
    cell.add(None, 9)
    assert cell.figure is None
    cell.add(None)
    assert cell.figure == 10


def figures(*counts: int) -> list[int | None]:
    return list(a_table(counts, (False,) * len(counts), 10).rows.values())


def test_next_smallest_figures_are_withheld_too():
    assert figures(30, 5, 20, 40) == [30, None, None, 40]
    assert figures(20, 5, 20, 40) == [None, None, None, 40]
    one_person = a_table((25, 20, 40, 15), (True, False, False, False), 10)
    assert list(one_person.rows.values()) == [None, 20, None, 15], "20 is no cover for one person's 25"


def test_zeros_are_shown_only_when_nothing_is_withheld():
    assert figures(10, 0) == [10, 0]
    assert figures(12, 0, 5, 11) == [12, None, None, None]
    assert figures(3, 0) == [None, None]


def test_excess_categories_are_grouped():
    tally = Tally(2, categories_max=3)
    for n in range(40):
        tally.add(f"c{n // 4}", f"p1.{n}")
    table = tally.table()
    assert (set(table.rows), table.total, table.rest) == ({"c0", "c1", "c2", OTHERS}, 40, 0)
    assert table.rows[OTHERS] == 28
