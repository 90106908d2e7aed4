"""The testbed: a stack of its own in `.local/bench`, on which jobs are started and cancelled."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis

from deploy.local import product
from deploy.local.paths import LOCAL, ROOT
from deploy.local.stack import LocalStack, is_up
from deploy.package import build, write_zip
from jobs.settings import Settings, load_settings
from models.manifest import MANIFEST_FILE

DIRECTORY = LOCAL / "bench"
ABLATION_FILES = ("__init__.py", "ablation.py", "ablated_job.py")
MODEL_ITEMS, MODEL_NEIGHBOURS, MODEL_TOP_K = 10_000, 64, 50
Say = Callable[[str], None]


class BenchTenant(NamedTuple):
    """The topics of one job and its settings."""

    settings: Settings
    path: Path


class Testbed:
    """A running stack, and the operations that benchmarks need."""

    def __init__(self, stack: LocalStack, more_settings: str, say: Say) -> None:
        self.stack = stack
        self.say = say
        self._more_settings = more_settings
        self._key_ring = stack.directory / "key-ring.json"
        product.make_keys(self._key_ring)
        self._model = stack.directory / "model"
        if not (self._model / MANIFEST_FILE).exists():
            from models.random_model import random_model  # scipy and pandas take seconds to import, once

            say(f"making a model of {MODEL_ITEMS:,} items")
            random_model(self._model, MODEL_ITEMS, MODEL_NEIGHBOURS, MODEL_TOP_K)
        self.redis = redis.Redis.from_url(stack.redis.url)
        # A rewrite of the append-only file would fall into either side's time at random.
        self.redis.config_set("auto-aof-rewrite-percentage", 0)

    @property
    def servers(self) -> str:
        """Kafka's address."""
        return self.stack.kafka.bootstrap_servers

    def tenant(self, name: str, more_settings: str = "", online: bool = False) -> BenchTenant:
        """Topics with the prefix `name` and settings for them; all tenants share the key ring and the model.

        An `online` one learns its model in the stream.
        """
        text = product.settings_text(self.stack, self._key_ring, None if online else self._model)
        text = text.replace("[kafka]\n", f'[kafka]\ntopic_prefix = "{name}."\ngroup_id = "{name}"\n', 1)
        path = self.stack.directory / f"{name}.toml"
        path.write_text(f"{text}\n{more_settings}\n{self._more_settings}", encoding="utf-8")
        settings = load_settings(path)
        product.create_local_topics(settings.kafka)
        return BenchTenant(settings, path)

    def submit(self, tenant: BenchTenant) -> str:
        """Run the job on the tenant's topics; returns its id once all its tasks run."""
        job = product.submit(self.stack, tenant.path)
        self.stack.rest.wait_running(job)
        return job

    def submit_ablation(self, tenant: BenchTenant) -> str:
        """Run the job without consent checks on the tenant's topics; returns its id once all its tasks run."""
        directory = self.stack.directory
        ablation = write_zip(directory / "ablation.zip", [ROOT / "bench" / name for name in ABLATION_FILES])
        packages = [build(directory / "freshet.zip"), ablation]
        job = product.submit_module(self.stack, tenant.path, "bench.ablated_job", packages)
        self.stack.rest.wait_running(job)
        return job

    def empty_redis(self) -> None:
        """Delete all lists, also from the append-only file."""
        self.redis.flushall()
        self.redis.bgrewriteaof()
        while self.redis.info("persistence")["aof_rewrite_in_progress"]:
            pass

    def pids(self, *names: str) -> dict[str, int]:
        """Process ids of parts of the stack, by name; a name may be a prefix.

        For a TaskManager, it is the id of its Java process, not of the supervisor that restarts it.
        """
        found = {record.name: record.pid for record in self.stack.processes() if record.name.startswith(names)}
        for name in found:
            if name.startswith("taskmanager"):
                [java] = psutil.Process(found[name]).children()
                found[name] = java.pid
        return found


@contextlib.contextmanager
def open_testbed(
    flink_settings: Mapping[str, str], more_settings: str, say: Say, task_managers: int = 1
) -> Iterator[Testbed]:
    """A testbed that leaves no process behind, in any case."""
    stack = LocalStack(DIRECTORY, task_managers, flink_settings, say)
    if is_up(DIRECTORY):
        say("ending what an earlier run left behind")
        stack.stop()
        stack = LocalStack(DIRECTORY, task_managers, flink_settings, say)
    say("starting Kafka, Redis and Flink below .local/bench")
    with stack:
        yield Testbed(stack, more_settings, say)


@contextlib.contextmanager
def python(*arguments: str, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A Python process of ours with pipes for standard input and output; it ends with the block at the latest."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
