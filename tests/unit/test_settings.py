"""Settings: read once, with precise errors and no default for a secret."""

from pathlib import Path

import pytest

from jobs.settings import Settings, flink_kafka_properties, load_settings
from schemas.errors import SettingsError
from schemas.kafka_settings import KafkaSettings, python_kafka_options
from schemas.secret_files import secret

SMALLEST = """
kafka.bootstrap_servers = "broker:9092"
redis.url = "redis://cache:6379/0"
model.directory = "/models/one"
"""


def loaded(text: str, directory: Path) -> Settings:
    path = directory / "freshet.toml"
    path.write_text(text)
    return load_settings(path)


def test_three_lines_are_enough(tmp_path: Path) -> None:
    settings = loaded(SMALLEST, tmp_path)
    assert settings.topic_names() == ("freshet.interactions", "freshet.consents", "freshet.control")
    assert (settings.privacy.key_ring, settings.redis.password_variable, settings.kafka.password_variable) == (
        None,
    ) * 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SMALLEST + "kafak.x = 1", "unknown field `kafak`"),
        (SMALLEST + "kafka.bootstrap = 'x'", r"unknown field `bootstrap` - at `\$.kafka`"),
        (SMALLEST + "redis.password = 'x'", r"unknown field `password` - at `\$.redis`"),
        (SMALLEST.replace("kafka.bootstrap_servers", "kafka.group_id"), "missing required field `bootstrap_servers`"),
        (SMALLEST.replace("redis.url", "redis.prefix"), r"`urls` .*one of the two - at `\$.redis`"),
        (SMALLEST + "job.buckets = 'many'", r"Expected `int`, got `str` - at `\$.job.buckets`"),
        (SMALLEST + "job.buckets = 0", r"`int` >= 1 - at `\$.job.buckets`"),
        (SMALLEST + "job.buckets = 16\njob.max_parallelism = 8", "job.buckets must not exceed job.max_parallelism"),
        (SMALLEST + "kafka.security_protocol = 'TLS'", r"Invalid enum value 'TLS' - at `\$.kafka.security_protocol`"),
        (SMALLEST + "profile.event_ids_max = 0", r"at `\$.profile.event_ids_max`"),
        (SMALLEST + "profile.counts_half_life_ms = 0", r"at `\$.profile.counts_half_life_ms`"),
        (SMALLEST + "lists.items = 0", r"at `\$.lists.items`"),
        (SMALLEST + "lists.exclude_recent = -1", r"at `\$.lists.exclude_recent`"),
        (SMALLEST + "refresh.list_ttl_ms = 0", r"at `\$.refresh.list_ttl_ms`"),
        (SMALLEST + "popularity.users_min = 65", r"`int` <= 64 - at `\$.popularity.users_min`"),
        (SMALLEST + "popularity.publish_every_ms = 0", r"at `\$.popularity.publish_every_ms`"),
        (SMALLEST + "audit.heads_every_ms = 7200000", r"`int` <= 3600000 - at `\$.audit.heads_every_ms`"),
        (SMALLEST + "redis.timeout_ms = 0", r"at `\$.redis.timeout_ms`"),
        ("kafka = [", "freshet.toml"),
    ],
)
def test_an_error_names_the_file_and_the_setting(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        loaded(text, tmp_path)
    assert "freshet.toml" in str(caught.value)


def test_a_tombstone_lives_longer_than_what_could_bring_anything_back(tmp_path: Path) -> None:
    day = 24 * 3_600_000
    assert loaded(SMALLEST, tmp_path).tombstone_ms() == 8 * day, "snapshots are kept for 7 days"
    assert loaded(SMALLEST + f"privacy.snapshots_kept_ms = {day}", tmp_path).tombstone_ms() == 4 * day
    assert loaded(SMALLEST + f"privacy.tombstone_ms = {9 * day}", tmp_path).tombstone_ms() == 9 * day
    with pytest.raises(SettingsError, match=r"privacy\.tombstone_ms must be at least 691200000 "):
        loaded(SMALLEST + f"privacy.tombstone_ms = {8 * day - 1}", tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.toml")


def test_a_secret_comes_from_the_variable_that_a_setting_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "hush")
    assert secret("TEST_SECRET") == "hush"
    assert secret(None) is None
    monkeypatch.delenv("TEST_SECRET")
    with pytest.raises(SettingsError, match="TEST_SECRET, named by a setting, is not set"):
        secret("TEST_SECRET")


def test_plain_kafka_needs_no_more_than_an_address() -> None:
    kafka = KafkaSettings("a:1,b:2")
    assert flink_kafka_properties(kafka) == {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"}
    assert python_kafka_options(kafka) == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}


def test_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text(f"PEM of the {name}")
    files = {"ca_file": "/ca.pem", "cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key")}
    kafka = KafkaSettings("a:1", security_protocol="SSL", **files)
    assert flink_kafka_properties(kafka) == {
        "bootstrap.servers": "a:1",
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "/ca.pem",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": "PEM of the cert",
        "ssl.keystore.key": "PEM of the key",
    }
    options = python_kafka_options(kafka)
    assert (options["ssl_cafile"], options["ssl_keyfile"]) == ("/ca.pem", files["key_file"])


def test_a_certificate_that_cannot_be_read_is_an_error_of_settings() -> None:
    kafka = KafkaSettings("a:1", security_protocol="SSL", cert_file="/nowhere.pem", key_file="/nowhere.pem")
    with pytest.raises(SettingsError, match=r"kafka\.cert_file /nowhere\.pem cannot be read"):
        flink_kafka_properties(kafka)


def test_sasl_with_a_password_that_has_quotes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", 'pass"word\\')
    kafka = KafkaSettings(
        "a:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        username="ada",
        password_variable="TEST_SECRET",
    )
    properties = flink_kafka_properties(kafka)
    assert properties["sasl.mechanism"] == "SCRAM-SHA-512"
    module = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule"
    assert properties["sasl.jaas.config"] == f'{module} required username="ada" password="pass\\"word\\\\";'
    assert python_kafka_options(kafka)["sasl_plain_password"] == 'pass"word\\'


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("kafka.security_protocol = 'SASL_SSL'", "SASL_SSL needs kafka.sasl_mechanism, username and password_variable"),
        ("kafka.sasl_mechanism = 'PLAIN'", "kafka.sasl_mechanism needs kafka.security_protocol SASL_SSL or SASL_PLAIN"),
        ("kafka.cert_file = '/c.pem'", "kafka.cert_file and kafka.key_file go together"),
    ],
)
def test_security_settings_that_do_not_go_together_are_refused(lines: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=complaint):
        loaded(SMALLEST + lines, tmp_path)
