"""A real Redis Cluster of two primaries, and a primary and replica watched by a Sentinel, for contract tests."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

from adapters.redis.address import RedisAddress
from adapters.waiting import until
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.processes import ProcessTable
from deploy.local.redis import executable
from tests.support.standstill import standing_still
from tests.support.tcp_front import TcpFront

START_TIMEOUT_S = 120
HALF = 8_192
CLUSTER_BUS_ABOVE = 10_000


class Node:
    """A server with `options`, initially empty."""

    def __init__(self, table: ProcessTable, name: str, *options: str, sentinel: str | None = None) -> None:
        in_cluster = "--cluster-enabled" in options
        self.port, self._table = free_port(CLUSTER_BUS_ABOVE if in_cluster else 0), table
        folder = table.directory / name
        folder.mkdir(parents=True)
        words = [executable()]
        if sentinel is not None:
            config = folder / "sentinel.conf"
            config.write_text(sentinel)
            words += [str(config), "--sentinel"]
        words += ["--port", str(self.port), "--bind", LOOPBACK, "--dir", str(folder), *options]
        self._record = table.start(name, words, {})
        self.client: Any = redis.Redis(LOOPBACK, self.port)
        until(self._answers, name, START_TIMEOUT_S, every_s=0.02)

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def kill(self) -> None:
        """End it as a crash would."""
        self._table.kill(self._record)

    def paused(self) -> AbstractContextManager[None]:
        """Pause it during the block."""
        return standing_still(self._record.pid)

    def end(self) -> None:
        """End it."""
        self.client.close()
        self._table.end([self._record], grace_s=1)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@contextmanager
def running_cluster(directory: Path) -> Iterator[list[Node]]:
    """Two primaries with half of the slots each."""
    table = ProcessTable(directory)
    nodes = [Node(table, f"node-{number}", "--cluster-enabled", "yes", "--save", "") for number in (1, 2)]
    try:
        first, second = nodes
        first.client.execute_command("CLUSTER", "ADDSLOTS", *range(HALF))
        second.client.execute_command("CLUSTER", "ADDSLOTS", *range(HALF, 2 * HALF))
        # Otherwise both have epoch 0, and the owner of a moving slot is undefined.
        for epoch, node in enumerate(nodes, start=1):
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        first.client.execute_command("CLUSTER", "MEET", LOOPBACK, second.port)
        for node in nodes:
            until(lambda node=node: _is_whole(node), "the cluster", START_TIMEOUT_S, every_s=0.02)
        yield nodes
    finally:
        for node in nodes:
            node.end()


def _is_whole(node: Node) -> bool:
    info = node.client.execute_command("CLUSTER INFO")
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "2")


def move_slot(nodes: list[Node], slot: int) -> None:
    """Move an empty slot from the first node to the second."""
    first, second = nodes
    target = second.client.execute_command("CLUSTER", "MYID")
    for node in (second, first):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target)


@contextmanager
def a_pair(directory: Path) -> Iterator[tuple[Node, Node]]:
    """A primary and its replica, in sync."""
    table = ProcessTable(directory)
    primary = Node(table, "primary", "--save", "")
    replica = Node(table, "replica", "--save", "", "--replicaof", LOOPBACK, str(primary.port))
    try:
        until(lambda: replica.client.info("replication")["master_link_status"] == "up", "the replica", START_TIMEOUT_S)
        yield primary, replica
    finally:
        for node in (replica, primary):
            node.end()


def fail_over(old: Node, new: Node, front: TcpFront) -> None:
    """Promote the replica; new connections to the address lead to it, existing ones stay where they are."""
    new.client.replicaof("NO", "ONE")
    old.client.replicaof(LOOPBACK, new.port)
    front.lead_to(new.port)


KINDS = ("server", "sentinel", "cluster")


@contextmanager
def running_kind(kind: str, directory: Path) -> Iterator[RedisAddress]:
    """The address of a Redis of one kind, initially empty."""
    if kind == "cluster":
        with running_cluster(directory) as nodes:
            yield RedisAddress(tuple(node.url for node in nodes), kind="cluster", timeout_ms=2_000)
    elif kind == "sentinel":
        watched = Watched(directory)
        try:
            yield RedisAddress((watched.sentinel.url,), kind="sentinel", service="lists", timeout_ms=2_000)
        finally:
            watched.end()
    else:
        table = ProcessTable(directory)
        node = Node(table, "server", "--save", "")
        try:
            yield RedisAddress((node.url,), timeout_ms=2_000)
        finally:
            node.end()


class Watched:
    """A primary and its replica, and the Sentinel that watches them."""

    def __init__(self, directory: Path) -> None:
        table = ProcessTable(directory)
        self.primary = Node(table, "primary", "--save", "")
        self.replica = Node(table, "replica", "--save", "", "--replicaof", LOOPBACK, str(self.primary.port))
        watch = (
            f"sentinel monitor lists {LOOPBACK} {self.primary.port} 1\n"
            "sentinel down-after-milliseconds lists 500\nsentinel failover-timeout lists 2000\n"
        )
        self.sentinel = Node(table, "sentinel", sentinel=watch)
        until(self._knows_replica, "the replica", START_TIMEOUT_S, every_s=0.05)

    def _knows_replica(self) -> bool:
        return len(self.sentinel.client.execute_command("SENTINEL", "replicas", "lists")) == 1

    def end(self) -> None:
        """End all."""
        for node in (self.sentinel, self.replica, self.primary):
            node.end()
