"""The policy file of the settings: checked before submission, and applied by every worker."""

from pathlib import Path

import pytest

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from adapters.secrets.key_rings import write_key_ring
from jobs.personalise import main
from jobs.settings import ModelSettings, PrivacySettings, Settings, load_settings
from jobs.workers import open_ingest
from schemas.consents import Level
from schemas.errors import SettingsError
from tests.support.vocabulary import KEY_RING, a_raw_consent
from udfs.elements import unpack


def test_submission_refuses_unloadable_policy(tmp_path: Path) -> None:
    write_key_ring(KEY_RING, tmp_path / "ring.json")
    path = tmp_path / "freshet.toml"
    path.write_text(
        'kafka.bootstrap_servers = "b:1"\nredis.url = "redis://c"\nmodel.directory = "/no/model"\n'
        f'privacy.policy = "/nowhere.toml"\nprivacy.key_ring = "{tmp_path / "ring.json"}"\n'
    )
    assert load_settings(path).privacy.policy == "/nowhere.toml"
    with pytest.raises(SettingsError, match=r"privacy\.policy /nowhere\.toml cannot be read"):
        main(["--settings", str(path)])


def test_worker_loads_the_policy_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("default.gpc.level = 'none'")
    write_key_ring(KEY_RING, tmp_path / "ring.json")
    settings_of = Settings(
        KafkaSettings("nowhere:1", topic_prefix="t."),
        RedisSettings(url="redis://nowhere"),
        ModelSettings(directory="/no/model"),
        PrivacySettings(str(tmp_path / "ring.json"), policy=str(tmp_path / "policy.toml")),
    )
    [(_, element)] = open_ingest(settings_of, [100], 1).pack([a_raw_consent(gpc=True)])
    [change] = unpack(element).consents
    assert change.level == Level.NONE
