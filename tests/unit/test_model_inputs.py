"""The inputs of a model from profiles."""

import numpy as np
import pytest

from models.contract import PROFILE
from schemas.events import EVENT_TYPES
from udfs.had_items import with_item
from udfs.model_inputs import ModelInputs
from udfs.profile import RECENT_ITEMS_MAX, ProfileBounds
from udfs.state import Profile, Session

SUNDAY_MS = 1_735_484_400_000
"""2024-12-29T15:00:00Z."""
INDEX = {"tea": 1, "cup": 2}


def a_profile() -> Profile:
    had = with_item(with_item(with_item(b"", "tea", 9), "tea", 9), "pot", 9)
    recents = [("tea", SUNDAY_MS - 60_000, 0), ("pot", SUNDAY_MS - 30_000, 0), ("cup", SUNDAY_MS, 4)]
    counts = [float(kind) for kind in range(len(EVENT_TYPES))]
    return Profile(recents, [], counts, SUNDAY_MS, session=Session(b"", 0, 0, 7), had=had)


def test_features_are_those_of_the_contract() -> None:
    users = [a_profile(), Profile(counts=[1.0])]
    inputs = ModelInputs(INDEX, tuple(PROFILE), ProfileBounds()).of(users, SUNDAY_MS + 90_000)
    assert set(inputs.features) == set(PROFILE)
    for name, feature in PROFILE.items():
        assert inputs.features[name].shape == (2, feature.width or RECENT_ITEMS_MAX), name
    found = {name: inputs.features[name][0] for name in PROFILE}
    assert inputs.items[0, -2:].tolist() == [1, 2], "an item that the model does not know leaves no gap"
    assert found["kinds"][-3:].tolist() == [0, 1, 5]
    assert found["ages_s"][-3:].tolist() == [0, 60, 0]
    assert found["had_counts"][-3:].tolist() == [0, 2, 0]
    assert found["had_items"].tolist() == [2]
    assert found["kind_counts"].tolist() == list(range(len(EVENT_TYPES)))
    assert found["session_events"].tolist() == [7]
    assert found["idle_s"].tolist() == [90]
    assert (found["hour"].tolist(), found["weekday"].tolist()) == ([15], [6])


def test_user_without_a_history_has_zeros() -> None:
    [profile] = [Profile(counts=[1.0])]
    inputs = ModelInputs(INDEX, ("kinds", "had_counts", "session_events", "kind_counts"), ProfileBounds()).of(
        [profile], SUNDAY_MS
    )
    assert not any(inputs.features[name].any() for name in ("kinds", "had_counts", "session_events"))
    assert inputs.features["kind_counts"][0, :2].tolist() == [1, 0], "a state of a release with fewer types"


def test_only_what_the_model_takes_is_computed() -> None:
    assert ModelInputs(INDEX, (), ProfileBounds()).of([a_profile()], SUNDAY_MS).features == {}


def test_event_before_the_clock_of_the_job_is_not_idle_for_less_than_nothing() -> None:
    inputs = ModelInputs(INDEX, ("idle_s",), ProfileBounds()).of([a_profile()], SUNDAY_MS - 5_000)
    assert inputs.features["idle_s"].tolist() == [[0]]


def test_unknown_feature_is_an_error() -> None:
    with pytest.raises(ValueError, match="no feature age"):
        ModelInputs(INDEX, ("age",), ProfileBounds()).of([a_profile()], SUNDAY_MS)


def test_batch_gives_each_user_what_they_have_alone() -> None:
    users = [a_profile(), Profile(), a_profile()]
    together = ModelInputs(INDEX, tuple(PROFILE), ProfileBounds()).of(users, SUNDAY_MS)
    for place, profile in enumerate(users):
        alone = ModelInputs(INDEX, tuple(PROFILE), ProfileBounds()).of([profile], SUNDAY_MS)
        for name, values in together.features.items():
            assert np.array_equal(values[place], alone.features[name][0]), name
