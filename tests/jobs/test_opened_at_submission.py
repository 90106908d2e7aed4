"""The client refuses what a worker could not open, before submission, with the reason in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.secrets.key_rings import write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from jobs.personalise import main
from jobs.settings import load_settings
from jobs.workers import check_openable
from models.random_model import random_model
from schemas.errors import FreshetError
from tests.support.vocabulary import KEY_RING

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A settings file with which everything opens, plus the given additions."""
    write_key_ring(KEY_RING, tmp_path / "ring.json")
    write_signing_key(tmp_path / "signing-key")
    random_model(tmp_path / "model", items=100)
    (tmp_path / "schemas").mkdir()
    good = {
        "kafka.bootstrap_servers": "localhost:1",
        "redis.url": "redis://localhost:1",
        "model.directory": str(tmp_path / "model"),
        "privacy.key_ring": str(tmp_path / "ring.json"),
        "audit.signing_key": str(tmp_path / "signing-key"),
    }

    def written_with(more: str) -> Path:
        path = tmp_path / "freshet.toml"
        lines = [f"{name} = {value!r}" for name, value in good.items() if name not in more]
        path.write_text("\n".join([*lines, more.replace("DIR", str(tmp_path))]))
        return path

    return written_with


@pytest.mark.parametrize(
    "more", ["", 'input = { format = "avro", framing = "confluent", schema_source = "DIR/schemas" }']
)
def test_submission_opens_everything_else_while_redis_is_down(written: Written, more: str) -> None:
    check_openable(load_settings(written(more)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('input = { format = "avro", framing = "confluent" }', "is required with confluent framing"),
        ('input = { format = "avro", schema_source = "DIR/schemas" }', "is required with confluent framing"),
        ('input = { framing = "confluent", schema_source = "DIR/schemas" }', "JSON has no framing"),
        (
            'input = { format = "avro", framing = "confluent", schema_source = "DIR/none" }',
            "no directory of schemas: .*none",
        ),
        (
            'input = { format = "protobuf", framing = "confluent", schema_source = "http://localhost:1" }',
            "registry did not answer",
        ),
        ('redis.url = "localhost:6379"', "redis://host:port"),
        ('redis.password_variable = "NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE"),
        ('redis.url = "rediss://localhost:1"\nredis.ca_file = "/none.pem"', "TLS files of Redis"),
        ('kafka.bootstrap_servers = "broker"', "kafka.bootstrap_servers must be host:port"),
        ('kafka.security_protocol = "SSL"\nkafka.ca_file = "/none.pem"', "kafka.ca_file /none.pem cannot be read"),
        (
            'kafka.security_protocol = "SASL_SSL"\nkafka.sasl_mechanism = "PLAIN"\nkafka.username = "u"\n'
            'kafka.password_variable = "NO_SUCH_VARIABLE"',
            "NO_SUCH_VARIABLE",
        ),
        ('model.directory = "DIR/none"', "none"),
        ('privacy.key_ring = "DIR/none.json"', "key ring .*none.json cannot be read"),
        ('privacy.key_ring = "DIR/model/manifest.json"', "is not a key ring"),
        ('audit.signing_key = "DIR/none"', "none"),
        ('privacy.policy = "DIR/none.toml"', "privacy.policy .*none.toml cannot be read"),
    ],
)
def test_submission_refuses_what_workers_cannot_open(written: Written, more: str, said: str) -> None:
    with pytest.raises(FreshetError, match=said):
        main(["--settings", str(written(more))])


def test_model_without_graph_is_refused(written: Written, tmp_path: Path) -> None:
    (tmp_path / "model" / "model.onnx").unlink()
    with pytest.raises(FreshetError, match=r"model\.onnx"):
        main(["--settings", str(written(""))])
