"""Settings: read once, with precise errors and no default for secrets."""

import functools
import re
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from adapters.kafka.settings import KafkaSettings, python_kafka_options
from adapters.secrets.secret_files import read_secret_variable
from jobs.kafka_properties import flink_kafka_properties
from jobs.settings import Settings, load_policy, load_settings
from schemas import decoding, topics
from schemas.errors import InvalidConsent, SettingsError
from serving.consents import read_consent
from serving.gateway.gateway_settings import load_gateway_settings

ROOT = Path(__file__).parents[2]

SMALLEST = """
kafka.bootstrap_servers = "broker:9092"
redis.url = "redis://cache:6379/0"
model.directory = "/models/one"
"""
LATE = topics.RETENTION_CHECK_MAX_MS + topics.FILE_DELETE_DELAY_MS


def loaded(text: str, directory: Path) -> Settings:
    path = directory / "freshet.toml"
    path.write_text(text)
    return load_settings(path)


def test_minimal_settings_are_enough(tmp_path: Path) -> None:
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
        (SMALLEST.replace("redis.url", "redis.prefix"), r"`urls` .*exactly one of them - at `\$.redis`"),
        (SMALLEST + "job.buckets = 'many'", r"Expected `int`, got `str` - at `\$.job.buckets`"),
        (SMALLEST + "job.buckets = 0", r"`int` >= 1 - at `\$.job.buckets`"),
        (SMALLEST + "job.buckets = 16\njob.max_parallelism = 8", "job.buckets must not exceed job.max_parallelism"),
        (SMALLEST + "kafka.security_protocol = 'TLS'", r"Invalid enum value 'TLS' - at `\$.kafka.security_protocol`"),
        (SMALLEST + "profile.event_ids_max = 0", r"at `\$.profile.event_ids_max`"),
        (SMALLEST + "profile.counts_half_life_ms = 0", r"at `\$.profile.counts_half_life_ms`"),
        (SMALLEST + "explore.slots = 5\nlists.items = 5", "explore.slots must be below lists.items"),
        (SMALLEST + "explore.slots = 1\nevents.publish = false", "explore.slots needs events.publish"),
        (SMALLEST + "explore.share = 0", r"at `\$.explore.share`"),
        (SMALLEST + "lists.items = 0", r"at `\$.lists.items`"),
        (SMALLEST + "lists.exclude_recent = -1", r"at `\$.lists.exclude_recent`"),
        (SMALLEST + "refresh.list_ttl_ms = 0", r"at `\$.refresh.list_ttl_ms`"),
        (SMALLEST + "popularity.users_min = 65", r"`int` <= 64 - at `\$.popularity.users_min`"),
        (SMALLEST + "popularity.publish_every_ms = 0", r"at `\$.popularity.publish_every_ms`"),
        (SMALLEST + "audit.heads_every_ms = 7200000", r"`int` <= 3600000 - at `\$.audit.heads_every_ms`"),
        (SMALLEST + "model.versions = 's3://key:secret@shop/models'", "model.versions must hold no credentials"),
        (SMALLEST + "redis.timeout_ms = 0", r"at `\$.redis.timeout_ms`"),
        (SMALLEST + "kafka.topic_prefix = 'a b/'", r"freshet.toml: kafka\.topic_prefix may contain only"),
        (SMALLEST + "kafka.group_id = ''", "kafka.group_id must not be empty"),
        (SMALLEST.replace("broker:9092", "broker:65536"), "kafka.bootstrap_servers must be host:port"),
        (SMALLEST.replace("broker:9092", "a..b:1"), "kafka.bootstrap_servers must be host:port"),
        (SMALLEST.replace("redis://cache", "redis://a..b"), "the address of Redis is not of the form"),
        ("kafka = [", "freshet.toml"),
    ],
)
def test_an_error_names_the_file_and_the_setting(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        loaded(text, tmp_path)
    assert "freshet.toml" in str(caught.value)


PATTERN = re.compile(r"pattern=(\S+?)[,)]")
INTERNAL = {'"^[0-9a-f]{12}$"'}
"""Patterns of what only the job itself writes."""


def test_no_message_shows_a_regular_expression() -> None:
    """Every pattern that users must match has words, so a new one needs an entry in `schemas/decoding.py`."""
    names = {
        found
        for folder in ("schemas", "serving", "udfs", "adapters", "jobs", "models")
        for path in (ROOT / folder).rglob("*.py")
        for found in PATTERN.findall(path.read_text())
        if "Meta(" in path.read_text()
    }
    assert names - INTERNAL and all(getattr(decoding, name) in decoding.WORDS for name in names - INTERNAL)
    for pattern, words in decoding.WORDS.items():
        kind = msgspec.defstruct("Kind", [("label", Annotated[str, msgspec.Meta(pattern=pattern)])])
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(b'{"label": "\\u0000"}', type=kind)
        assert decoding.described(caught.value) == f"Expected {words} - at `$.label`"


def test_missing_field_is_reported_with_an_example_that_exists(tmp_path: Path) -> None:
    written = tmp_path / "empty.toml"
    written.write_text("")
    policy = functools.partial(load_policy, str(written))
    for load in (lambda: load_settings(written), lambda: load_gateway_settings(written), policy):
        with pytest.raises(
            SettingsError, match=r"empty.toml: missing required field `\w+` \(for an example, see "
        ) as caught:
            load()
        assert (ROOT / str(caught.value).rpartition("see ")[2].rstrip(")")).is_file()


def test_invalid_record_is_described_in_words() -> None:
    with pytest.raises(InvalidConsent, match=r"^Expected ASCII letters, digits, .* - at `\$.jurisdiction`$"):
        read_consent(b'{"user_id": "ada", "level": "full", "ts": 1700000000000, "jurisdiction": "a b"}')


def test_tombstone_outlives_snapshots_and_topics(tmp_path: Path) -> None:
    day = 24 * 3_600_000
    assert loaded(SMALLEST, tmp_path).tombstone_ms() == 8 * day, "snapshots are kept for 7 days"
    assert loaded(SMALLEST + f"privacy.snapshots_kept_ms = {day}", tmp_path).tombstone_ms() == 5 * day + LATE, (
        "an interaction lives for 4 days and an hour"
    )
    assert loaded(SMALLEST + f"privacy.tombstone_ms = {9 * day}", tmp_path).tombstone_ms() == 9 * day
    with pytest.raises(SettingsError, match=r"privacy\.tombstone_ms must be at least 691200000 "):
        loaded(SMALLEST + f"privacy.tombstone_ms = {8 * day - 1}", tmp_path)


def test_transactions_stay_open_as_long_as_a_snapshot_may_be_restored(tmp_path: Path) -> None:
    hour, day = 3_600_000, 86_400_000
    assert loaded(SMALLEST, tmp_path).transaction_timeout_ms() == 7 * day
    short = SMALLEST + f"privacy.snapshots_kept_ms = {hour}\n"
    assert loaded(short, tmp_path).transaction_timeout_ms() == hour + hour // 4, "and as long as any outage of Redis"
    assert loaded(short + "redis.outage_max_ms = 60000", tmp_path).transaction_timeout_ms() == hour
    longest = loaded(SMALLEST + f"privacy.snapshots_kept_ms = {90 * day}", tmp_path)
    assert longest.transaction_timeout_ms() == 2**31 - 1, "Kafka's own limit"
    assert loaded(SMALLEST + "kafka.transaction_timeout_ms = 20000", tmp_path).transaction_timeout_ms() == 20_000


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.toml")


def test_secret_is_read_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "hush")
    assert read_secret_variable("TEST_SECRET") == "hush"
    assert read_secret_variable(None) is None
    monkeypatch.delenv("TEST_SECRET")
    with pytest.raises(SettingsError, match="TEST_SECRET, named by a setting, is not set"):
        read_secret_variable("TEST_SECRET")


def test_plaintext_kafka_needs_an_address_only() -> None:
    kafka = KafkaSettings("a:1,b:2")
    assert flink_kafka_properties(kafka) == {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"}
    assert python_kafka_options(kafka) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
        "bootstrap_timeout_ms": 5_000,
    }


PROVIDERS = "org.apache.flink.kafka.shaded.org.apache.kafka.common.config.provider"


@pytest.mark.privacy
def test_a_private_key_stays_in_its_file(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(f"PEM of the {name}")
    files = {"ca_file": str(tmp_path / "ca"), "cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key")}
    kafka = KafkaSettings("a:1", security_protocol="SSL", **files)
    assert flink_kafka_properties(kafka) == {
        "bootstrap.servers": "a:1",
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": files["ca_file"],
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": f"${{directory:{tmp_path}:cert}}",
        "ssl.keystore.key": f"${{directory:{tmp_path}:key}}",
        "config.providers": "directory",
        "config.providers.directory.class": f"{PROVIDERS}.DirectoryConfigProvider",
        "config.providers.directory.param.allowed.paths": str(tmp_path),
    }
    options = python_kafka_options(kafka)
    assert (options["ssl_cafile"], options["ssl_keyfile"]) == (files["ca_file"], files["key_file"])


def test_a_certificate_that_cannot_be_read_is_an_error_of_settings(tmp_path: Path) -> None:
    kafka = KafkaSettings("a:1", security_protocol="SSL", cert_file="/nowhere.pem", key_file="/nowhere.pem")
    with pytest.raises(SettingsError, match=r"kafka\.cert_file /nowhere\.pem cannot be read"):
        flink_kafka_properties(kafka)
    strange = tmp_path / "a:b.pem"
    strange.touch()
    with pytest.raises(SettingsError, match="resolves no path with one of"):
        flink_kafka_properties(msgspec.structs.replace(kafka, cert_file=str(strange), key_file=str(strange)))


def sasl(password: str, patch: pytest.MonkeyPatch) -> dict[str, str]:
    patch.setenv("TEST_SECRET", password)
    kafka = KafkaSettings(
        "a:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        username='a"da',
        password_variable="TEST_SECRET",
    )
    assert python_kafka_options(kafka)["sasl_plain_password"] == password
    return flink_kafka_properties(kafka)


@pytest.mark.privacy
def test_a_password_stays_in_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = sasl('pass"word', monkeypatch)
    assert properties["sasl.mechanism"] == "SCRAM-SHA-512"
    module = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule"
    expected = f"""{module} required username="a\\"da" password='${{env:TEST_SECRET}}';"""
    assert properties["sasl.jaas.config"] == expected
    assert 'password="${env:TEST_SECRET}"' in sasl("pass'word", monkeypatch)["sasl.jaas.config"]
    assert not any("word" in value.replace("password=", "") for value in properties.values())
    assert properties["config.providers"] == "env"
    assert properties["config.providers.env.param.allowlist.pattern"] == "TEST_SECRET"


@pytest.mark.parametrize("password", ["back\\slash", "both'\"", "line\nbreak"])
def test_password_misread_by_java_is_refused(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="the password in TEST_SECRET has") as caught:
        sasl(password, monkeypatch)
    assert password not in str(caught.value)


@pytest.mark.privacy
def test_password_in_redis_url_is_refused_without_echo(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"redis\.url \(or urls\) must hold no password") as caught:
        loaded(SMALLEST.replace("redis://cache", "redis://me:hush@cache"), tmp_path)
    assert "hush" not in str(caught.value)


def test_deployments_have_separate_groups_by_default(tmp_path: Path) -> None:
    one, other = (loaded(SMALLEST + f"kafka.topic_prefix = '{name}'", tmp_path).kafka for name in ("a.", "b."))
    assert one.group() != other.group()
    assert loaded(SMALLEST, tmp_path).kafka.group() == "freshet-personalise", "transactions of the release before"
