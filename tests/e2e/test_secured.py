"""The job against a broker that wants TLS and a password, and a Redis behind TLS that wants a user of its own."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from deploy.local import product
from deploy.local.stack import LocalStack
from jobs.settings import load_settings
from models.random_model import random_model
from tests.support.live import Live
from tests.support.readme import job_rights
from tests.support.tls_front import tls_front

BROKER_PASSWORD = "only-of-this-test-broker"
STORE_PASSWORD = "only-of-this-test-store"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def keytool(*words: str) -> None:
    java = shutil.which("java")
    assert java is not None
    tool = Path(java).resolve().with_name("keytool")
    subprocess.run([str(tool), *words], check=True, capture_output=True)


def certificate(directory: Path) -> tuple[Path, Path, Path]:
    """A key store for servers on the loopback, and as PEM its certificate and its key."""
    store, pem, key = directory / "broker.p12", directory / "ca.pem", directory / "key.pem"
    opened = ["-keystore", str(store), "-storepass", BROKER_PASSWORD, "-alias", "broker"]
    names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"]
    keytool("-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12", *names, *opened)
    keytool("-exportcert", "-rfc", "-file", str(pem), *opened)
    private_key, _, _ = pkcs12.load_key_and_certificates(store.read_bytes(), BROKER_PASSWORD.encode())
    assert private_key is not None
    key.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return store, pem, key


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("secured")
    store, pem, key = certificate(directory)
    stack = LocalStack(directory / "stack")
    listener = {
        "sasl.enabled.mechanisms": "PLAIN",
        "plain.sasl.jaas.config": f'{LOGIN} user_job="{BROKER_PASSWORD}";',
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": BROKER_PASSWORD,
    }
    address = stack.kafka.add_listener("SASL_SSL", listener)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_BROKER_PASSWORD", BROKER_PASSWORD)
        patch.setenv("TEST_STORE_PASSWORD", STORE_PASSWORD)
        with (
            stack,
            tls_front(pem, key, ("127.0.0.1", stack.redis.port)) as redis_port,
            contextlib.closing(submit(stack, directory, address, redis_port, pem)) as live,
        ):
            yield live


def submit(stack: LocalStack, directory: Path, address: str, redis_port: int, pem: Path) -> Live:
    random_model(directory / "model", items=60)
    product.make_keys(directory / "ring.json")
    plain, path = directory / "plain.toml", directory / "secured.toml"
    text = product.settings_text(stack, directory / "ring.json", directory / "model")
    plain.write_text(text)
    kafka = (
        f'bootstrap_servers = "{address}"\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\nusername = "job"\n'
        f'password_variable = "TEST_BROKER_PASSWORD"\nca_file = "{pem}"\n'
    )
    store = (
        f'url = "rediss://127.0.0.1:{redis_port}/0"\nusername = "job"\n'
        f'password_variable = "TEST_STORE_PASSWORD"\nca_file = "{pem}"\n'
    )
    old_kafka, old_store = f'bootstrap_servers = "{stack.kafka.bootstrap_servers}"\n', f'url = "{stack.redis.url}"\n'
    path.write_text(text.replace(old_kafka, kafka).replace(old_store, store))
    settings = load_settings(path)
    assert settings.redis.urls[0].startswith("rediss:")
    product.create_local_topics(settings.kafka)
    endpoints = {**stack.addresses, "key_ring": str(directory / "ring.json")}
    with redis.Redis.from_url(stack.redis.url) as client:
        client.execute_command("ACL", "SETUSER", "job", "on", f">{STORE_PASSWORD}", "~*", *job_rights())
    job = product.submit(stack, path)
    stack.rest.wait_running(job)
    return Live(stack, product.Product(endpoints, load_settings(plain), path, job))


def test_a_click_arrives_through_tls_sasl_and_an_acl_user(secured: Live):
    in_an_hour = time.time_ns() // 1_000_000 + 3_600_000
    secured.consent(["ada"], expires_at=in_an_hour)
    secured.interact("ada", "item-00003")
    assert secured.wait_for_version("ada", 2).reason == "personalised"


def test_no_password_is_in_any_log(secured: Live):
    logs = [path for path in (secured.stack.directory / "log").iterdir() if path.is_file()]
    assert len(logs) >= 4
    for path in logs:
        text = path.read_text(errors="replace")
        assert BROKER_PASSWORD not in text, path.name
        assert STORE_PASSWORD not in text, path.name
