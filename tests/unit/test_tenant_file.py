"""One file holds the settings that a tenant's job, gateways and producers share."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.files.tenant_file import load_tenant
from adapters.secrets.key_rings import new_key_ring
from jobs.settings import load_settings
from schemas.errors import SettingsError
from schemas.topics import PREFIX_LENGTH_MAX, TOPICS, prefixed
from schemas.wire.codec_choice import InputSettings
from serving.accesses import AccessLog
from serving.catalogue import Catalogue
from serving.consents import Consents
from serving.events import EventProducer
from serving.gateway.gateway_settings import load_gateway_settings

DAY = 86_400_000
EXAMPLE = Path(__file__).parents[2] / "deploy" / "tenant.toml"
TENANT = f"""
key_ring = "keys/ring.json"
topic_prefix = "shop."
redis_prefix = "shop:"
tombstone_ms = {9 * DAY}
input.format = "avro"
input.interactions_schema_id = 7
"""
JOB = 'kafka.bootstrap_servers = "h:1"\nkafka.group_id = "g"\nredis.url = "redis://h:2"\nmodel.directory = "m"\n'
GATEWAY = 'kafka.bootstrap_servers = "h:1"\nredis.url = "redis://h:2"\nauth.api_keys = "k"\n'
WITH_OPTIONS = (
    functools.partial(AccessLog, role="shop", purpose="recommend"),
    lambda kafka, **how: Consents("redis://127.0.0.1:1", kafka, new_key_ring(), tombstone_ms=DAY, **how),
)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    return written(tmp_path / "tenant.toml", TENANT)


def test_job_and_gateway_read_the_same_values_of_one_file(tenant: Path) -> None:
    job = load_settings(written(tenant.with_name("freshet.toml"), f'tenant = "{tenant}"\n{JOB}'))
    gateway = load_gateway_settings(written(tenant.with_name("gateway.toml"), f'{GATEWAY}tenants.shop = "{tenant}"'))
    of = gateway.tenant("shop")
    assert (job.kafka.topic("consents"), job.redis.prefix, job.kafka.group()) == ("shop.consents", "shop:", "g")
    assert (of.topic_prefix, of.redis_prefix) == (job.kafka.topic_prefix, job.redis.prefix)
    assert of.tombstone_life_ms() == job.tombstone_ms() == 9 * DAY
    assert of.key_ring == job.privacy.key_ring == str(tenant.parent / "keys" / "ring.json"), "from the tenant's folder"
    assert (job.input, of.input.format, of.input.interactions_schema_id) == (InputSettings("avro"), "avro", 7)


def test_life_of_tombstones_follows_the_snapshots_for_all_readers(tenant: Path) -> None:
    tenant.write_text(f"snapshots_kept_ms = {20 * DAY}")
    job = load_settings(written(tenant.with_name("freshet.toml"), f'tenant = "{tenant}"\n{JOB}'))
    assert load_tenant(tenant).tombstone_life_ms() == job.tombstone_ms() == 21 * DAY
    assert job.privacy.snapshots_kept_ms == 20 * DAY


@pytest.mark.parametrize(
    "line",
    [
        'kafka.topic_prefix = "freshet."',
        'redis.prefix = ""',
        'privacy.key_ring = "ring.json"',
        f"privacy.tombstone_ms = {9 * DAY}",
        f"privacy.snapshots_kept_ms = {DAY}",
        'input.format = "avro"',
    ],
)
def test_setting_of_the_tenant_file_is_refused_in_job_settings(tenant: Path, line: str) -> None:
    path = written(tenant.with_name("freshet.toml"), f'tenant = "{tenant}"\n{JOB}{line}\n')
    with pytest.raises(
        SettingsError, match=rf"{line.partition(' =')[0]} is for the tenant file {tenant}: move it there"
    ):
        load_settings(path)
    path.write_text(f"{JOB}{line}\n")
    load_settings(path)  # a job without a tenant file says so itself


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tombstone_ms = 1000", r"tenant\.toml: tombstone_ms must be at least 691200000 "),
        ('prefix = "shop."', "unknown field `prefix`"),
        ("key_ring = 7", r"Expected `str \| null`, got `int` - at `\$\.key_ring`"),
        ("key_ring", r"tenant\.toml: "),
        ('topic_prefix = "a b/"', r"tenant\.toml: topic_prefix may contain only ASCII letters, digits, "),
        ('topic_prefix = "shöp."', r"tenant\.toml: topic_prefix may contain only "),
        ('topic_prefix = "shop.\\n"', r"tenant\.toml: topic_prefix may contain only "),
        (f'topic_prefix = "{"x" * 300}"', r"tenant\.toml: topic_prefix has 300 characters, and may have at most 237"),
    ],
)
def test_tenant_file_that_cannot_be_used_is_named(tenant: Path, text: str, complaint: str) -> None:
    tenant.write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        load_tenant(tenant)


def test_longest_prefix_leaves_room_for_the_longest_name_of_a_topic() -> None:
    names = [prefixed("x" * PREFIX_LENGTH_MAX, topic.name) for topic in TOPICS]
    assert max(map(len, names)) == 249, "Kafka accepts no longer one"


@pytest.mark.parametrize("prefix", ["a b/", "x" * 238])
@pytest.mark.parametrize("opened", [Catalogue, EventProducer, *WITH_OPTIONS])
def test_client_refuses_a_topic_prefix_that_kafka_would_refuse(opened: Callable[..., object], prefix: str) -> None:
    with pytest.raises(SettingsError, match="topic_prefix"):
        opened({"bootstrap_servers": "127.0.0.1:1"}, topic_prefix=prefix)


def test_tenant_file_that_is_missing_is_named_by_the_job(tmp_path: Path) -> None:
    path = written(tmp_path / "freshet.toml", f'tenant = "{tmp_path}/nowhere.toml"\n{JOB}')
    with pytest.raises(SettingsError, match=r"tenant file .*/nowhere\.toml cannot be read"):
        load_settings(path)


def test_example_can_be_used_also_with_what_is_commented_out(tmp_path: Path) -> None:
    assert load_tenant(EXAMPLE).key_ring == str(EXAMPLE.with_name("key-ring.json"))
    text = EXAMPLE.read_text().replace("\n# topic", "\ntopic").replace("\n# redis", "\nredis")
    tenant = load_tenant(
        written(tmp_path / "t.toml", text.replace("\n# tomb", "\ntomb").replace("\n# input", "\ninput"))
    )
    assert (tenant.topic_prefix, tenant.redis_prefix, tenant.input.format) == ("shop.", "shop:", "avro")
