"""Sets up Freshet on the stack: topics, a key ring, settings, and the job submitted with `flink run`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from adapters.kafka.settings import KafkaSettings
from adapters.secrets.key_rings import new_key_ring, write_key_ring
from adapters.secrets.signing_keys import write_signing_key
from deploy.local.escaping import toml_of
from deploy.local.files import write_atomically
from deploy.local.stack import LocalStack
from deploy.package import build
from deploy.releases import FOLDER, Release, keep
from jobs.settings import Settings, load_settings
from jobs.topic_creation import create_topics

RAW_PARTITIONS = 4


class Product(NamedTuple):
    """A running product: the addresses as in endpoints.json, the job's settings, their file, and its id in Flink."""

    endpoints: dict[str, str]
    settings: Settings
    settings_path: Path
    job_id: str


def start(
    stack: LocalStack,
    *,
    model_directory: Path | None = None,
    is_small: bool = False,
    before_submission: Callable[[Settings], None] = lambda settings: None,
    report: Callable[[str], None] = lambda line: None,
    more_settings: str = "",
) -> Product:
    """Create what the job needs, submit it, wait until it runs, and publish the addresses.

    Without a `model_directory`, the model learns in the stream. `is_small`: users would soon have met all items, so
    lists have them again. `before_submission` is called when the topics exist. `more_settings` are further tables of
    the settings file.
    """
    key_ring = stack.directory / "key-ring.json"
    make_keys(key_ring)
    tenant, settings_path = stack.directory / "tenant.toml", stack.directory / "freshet.toml"
    write_atomically(tenant, f"key_ring = {toml_of(key_ring.name)}\n")
    text = settings_text(stack, key_ring, model_directory, tenant, is_small) + "\n" + more_settings
    if settings_path.exists() and settings_path.read_text("utf-8") != text:
        before = settings_path.rename(settings_path.with_name("freshet.toml.before"))
        report(
            f"{settings_path.name} is written anew: what it was is in {before.name}; `--more TOML` adds tables to it"
        )
    write_atomically(settings_path, text)
    settings = load_settings(settings_path)
    create_local_topics(settings.kafka)
    before_submission(settings)
    report("submitting the job")
    return publish_when_running(stack, submit(stack, settings_path))


def publish_when_running(stack: LocalStack, job_id: str) -> Product:
    """Wait until the job runs, and add its addresses to the published ones."""
    settings_path, key_ring = stack.directory / "freshet.toml", stack.directory / "key-ring.json"
    settings = load_settings(settings_path)
    stack.rest.wait_running(job_id)
    product = {"topic_prefix": settings.kafka.topic_prefix, "key_ring": str(key_ring), "settings": str(settings_path)}
    endpoints = {**stack.endpoints(), **stack.addresses, **product}
    stack.publish_endpoints(**{name: value for name, value in endpoints.items() if name not in stack.addresses})
    return Product(endpoints, settings, settings_path, job_id)


def make_keys(key_ring: Path) -> None:
    """Create a key ring and the key that signs the audit trail next to it; existing ones are kept."""
    if not key_ring.exists():
        write_key_ring(new_key_ring(), key_ring)
    if not _signing_key(key_ring).exists():
        write_signing_key(_signing_key(key_ring))


def _signing_key(key_ring: Path) -> Path:
    return key_ring.with_name("signing-key")


def settings_text(
    stack: LocalStack, key_ring: Path, model: Path | None, tenant: Path | None = None, is_small: bool = False
) -> str:
    """The settings file of a local job: addresses and paths; everything else has its default.

    If there is a `tenant`, its file contains the key ring.
    """
    paths = map(str, (key_ring, _signing_key(key_ring)))
    kafka, redis, ring, signing = map(toml_of, (stack.kafka.bootstrap_servers, stack.redis.url, *paths))
    frozen = "" if model is None else f"directory = {toml_of(str(model.resolve()))}\n"
    small = _SMALL if is_small or model is not None else ""
    head, privacy = ("", f"[privacy]\nkey_ring = {ring}\n\n")
    if tenant is not None:
        head, privacy = f"tenant = {toml_of(str(tenant))}\n\n", ""
    return (
        f"{head}[kafka]\nbootstrap_servers = {kafka}\n\n[redis]\nurl = {redis}\n\n"
        f"{privacy}[audit]\nsigning_key = {signing}\n\n"
        f"[model]\nversions = {toml_of(str(stack.directory / 'versions'))}\n{frozen}{small}"
    )


_SMALL: Final = "\n# The shop is small: shoppers would soon have met all of it.\n[lists]\nexclude_had = false\n"


def submit(stack: LocalStack, settings_path: Path, options: tuple[str, ...] = ()) -> str:
    """`flink run` as a data engineer would type it; `options` are put before the job's own. Returns the job's id."""
    package = build(stack.directory / "freshet.zip")
    job = submit_module(stack, settings_path, "jobs.personalise", [package], options)
    keep(stack.directory / FOLDER, job, Release(package, settings_path, python=sys.executable))
    return job


def submit_module(
    stack: LocalStack, settings_path: Path, module: str, packages: list[Path], options: tuple[str, ...] = ()
) -> str:
    """`flink run` of a module in one of `packages`, zips that are shipped to the cluster. Returns the job's id."""
    files = ",".join(map(str, packages))
    command = [*options, "-pyfs", files, "-pyexec", sys.executable, "-pyclientexec", sys.executable]
    return stack.flink_run([*command, "-pym", module, "--settings", str(settings_path)])


def create_local_topics(kafka: KafkaSettings) -> None:
    """Create all topics, on the only broker."""
    create_topics(kafka, RAW_PARTITIONS, replicas=1)
