"""Features on real parts: Feast reads those of the profile that the running job has."""

import uuid
from pathlib import Path

import msgspec
import pytest

from jobs.feature_repository import write_repository
from jobs.settings import FeatureSettings
from privacy.erasure_search import in_redis
from privacy.push_features import push
from schemas import topics
from tests.support.feast import READ, feast, feast_apply, feast_or_skip
from tests.support.features import naive_features
from tests.support.live import Live, until

SHOPPERS = ("fay-of-features", "gus-of-features", "hal-of-features")


@pytest.mark.promise("features-consent")
def test_feast_reads_the_features_of_the_jobs_profile_until_consent_ends(live: Live, tmp_path: Path) -> None:
    feast_or_skip()
    # A URL of its own, so that an erasure is searched for there.
    features = FeatureSettings(live.product.endpoints["redis"], project=f"p{uuid.uuid4().hex[:8]}")
    settings = msgspec.structs.replace(live.settings, features=features)
    write_repository(settings, tmp_path / "feast", None)
    applied = feast_apply(tmp_path / "feast")
    assert applied.returncode == 0, applied.stdout + applied.stderr

    live.consent(SHOPPERS)
    kinds = ("view", "click", "purchase", "impression", "view")
    for user in SHOPPERS:
        for number, kind in enumerate(kinds):
            live.interact(user, f"item-{1 + number % 3:05d}", kind, session_id=f"{user}-session")
    names = [live.pseudonymiser.user(user) for user in SHOPPERS]

    def published() -> bool:
        told = [name.encode() for name in names]
        return sum(any(name in one.value for name in told) for one in live.records(topics.EVENTS)) == 15

    until(published, "clean events")
    push(settings, True, False, lambda line: None)
    states = live.plain_states(SHOPPERS)
    for name, found in zip(names, feast(READ, folder=str(tmp_path / "feast"), users=names), strict=True):
        wanted = naive_features(states[name]["profile"], settings.profile.recents_half_life_ms)
        assert found.keys() == wanted.keys()
        for feature, value in wanted.items():
            is_exact = isinstance(value, int) or feature.endswith("items")
            assert found[feature] == (value if is_exact else pytest.approx(value)), feature
    assert in_redis(settings, [names[2]])["redis.features"] == 2

    live.consent([SHOPPERS[1]], level="none")
    live.consent([SHOPPERS[2]], level="none", erase=True)
    push(settings, True, False, lambda line: None)
    fay, gus, hal = feast(READ, folder=str(tmp_path / "feast"), users=names)
    assert fay["items"] and set(gus.values()) == set(hal.values()) == {None}
    assert "redis.features" not in in_redis(settings, [names[2]])
