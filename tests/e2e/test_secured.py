"""The job with a broker that requires TLS and a password, and a Redis behind TLS that requires an ACL user."""

import contextlib
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import redis

from adapters.secrets.key_rings import load_key_ring
from deploy.local import product
from deploy.local.errors import SubmitError
from deploy.local.stack import LocalStack
from deploy.package import build
from jobs.settings import load_settings
from models.random_model import random_model
from tests.support.certificates import Certificates, certificates
from tests.support.documented import job_rights
from tests.support.live import Live, until
from tests.support.tls_front import tls_front

BROKER_PASSWORD = "only-of-this-test-broker"
STORE_PASSWORD = "only-of-this-test-store"
DUMPED = Path(__file__).parents[1] / "support" / "dumped_job.py"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def key_store(folder: Path, certificate: Path, key: Path) -> Path:
    """The broker's key store as PEM: its key and its certificate in one file."""
    store = folder / "broker.pem"
    store.write_text(key.read_text() + certificate.read_text())
    return store


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("secured")
    made = certificates(directory / "certificates")
    stack = LocalStack(directory / "stack")
    listener = {
        "sasl.enabled.mechanisms": "PLAIN",
        "plain.sasl.jaas.config": f'{LOGIN} user_job="{BROKER_PASSWORD}";',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(key_store(directory, made.server, made.server_key)),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(made.authority),
        "ssl.client.auth": "required",
    }
    address = stack.kafka.add_listener("SASL_SSL", listener)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_BROKER_PASSWORD", BROKER_PASSWORD)
        patch.setenv("TEST_STORE_PASSWORD", STORE_PASSWORD)
        with (
            stack,
            tls_front(made.server, made.server_key, ("127.0.0.1", stack.redis.port)) as redis_port,
            contextlib.closing(submit(stack, directory, address, redis_port, made)) as live,
        ):
            yield live


def submit(stack: LocalStack, directory: Path, address: str, redis_port: int, made: Certificates) -> Live:
    random_model(directory / "model", items=60)
    product.make_keys(directory / "ring.json")
    plain, path = directory / "plain.toml", directory / "secured.toml"
    text = product.settings_text(stack, directory / "ring.json", directory / "model")
    plain.write_text(text)
    kafka = (
        f'bootstrap_servers = "{address}"\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\nusername = "job"\n'
        f'password_variable = "TEST_BROKER_PASSWORD"\nca_file = "{made.authority}"\n'
        f'cert_file = "{made.client}"\nkey_file = "{made.client_key}"\n'
    )
    store = (
        f'url = "rediss://127.0.0.1:{redis_port}/0"\nusername = "job"\n'
        f'password_variable = "TEST_STORE_PASSWORD"\nca_file = "{made.authority}"\n'
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


@pytest.mark.promise("secrets")
def test_click_arrives_through_tls_sasl_and_an_acl_user(secured: Live):
    in_an_hour = time.time_ns() // 1_000_000 + 3_600_000
    secured.consent(["ada"], expires_at=in_an_hour)
    secured.interact("ada", "item-00003")
    assert secured.wait_for_version("ada", 2).reason == "personalised"


def secrets_of(live: Live) -> dict[str, bytes]:
    """Everything that only workers may know, each under a name that may be shown."""
    folder = live.product.settings_path.parent
    ring = load_key_ring(live.product.endpoints["key_ring"])
    key = (folder / "certificates" / "client-key.pem").read_text().splitlines()[1]
    keys = {f"{domain} key": key.encode() for domain, kids in ring.keys.items() for key in kids.values()}
    signing = (folder / "signing-key").read_text().split()[-1]
    passwords = {"broker password": BROKER_PASSWORD.encode(), "store password": STORE_PASSWORD.encode()}
    return {**passwords, "private key": key.encode(), "routing key": ring.routing.encode(), **keys,
            "signing key": signing.encode()}  # fmt: skip


def leaks(live: Live, place: str, content: bytes) -> list[str]:
    return [f"{name} in {place}" for name, secret in secrets_of(live).items() if secret in content]


@pytest.mark.promise("secrets")
def test_logs_contain_no_secret(secured: Live):
    logs = [path for path in (secured.stack.directory / "log").iterdir() if path.is_file()]
    assert len(logs) >= 4
    assert [leak for path in logs for leak in leaks(secured, path.name, path.read_bytes())] == []


@pytest.mark.promise("secrets")
def test_flink_rest_and_snapshots_contain_no_secret(secured: Live):
    """Searches the submitted job graph, Flink's REST API, its checkpoints and a savepoint."""
    rest, job = secured.stack.rest, secured.job_id
    shown = {path: json.dumps(rest.get(path)).encode() for path in rest_paths(secured)}
    assert b"snapshot-guard" in shown[f"/jobs/{job}/plan"]
    assert [leak for path, text in shown.items() for leak in leaks(secured, path, text)] == []
    until(lambda: rest.checkpoints(job)["counts"]["completed"] >= 1, "a checkpoint")
    savepoint = Path(unquote(urlsplit(rest.stop_with_savepoint(job)).path))
    assert (savepoint / "_metadata").is_file()
    kept = [path for path in (secured.stack.directory / "flink").rglob("*") if path.is_file()]
    assert savepoint / "_metadata" in kept
    assert [leak for path in kept for leak in leaks(secured, path.name, path.read_bytes())] == []
    graph = dumped_graph(secured)
    assert b"raw-records" in graph and b"TEST_BROKER_PASSWORD" in graph, "the graph, with what stands for the password"
    assert leaks(secured, "the job graph", graph) == []


def rest_paths(live: Live) -> list[str]:
    """The REST paths of the job and of the cluster."""
    job = f"/jobs/{live.job_id}"
    vertices = [f"{job}/vertices/{vertex['id']}" for vertex in live.stack.rest.get(job)["vertices"]]
    parts = ("", "/plan", "/config", "/checkpoints", "/checkpoints/config", "/exceptions", "/accumulators")
    return [*(job + part for part in parts), *vertices, "/config", "/jobmanager/config", "/jobmanager/environment"]


def dumped_graph(live: Live) -> bytes:
    out = live.stack.directory / "graph.bin"
    zipped = live.stack.directory / "dumped.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(DUMPED, DUMPED.name)
    packages = [build(live.stack.directory / "freshet.zip"), zipped]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SubmitError):
        patch.setenv("TEST_DUMP", str(out))
        product.submit_module(live.stack, live.product.settings_path, DUMPED.stem, packages)
    return out.read_bytes()
