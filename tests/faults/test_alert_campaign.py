"""The fault of each alert, caused for real: the alert fires, reaches the receiver through Alertmanager, and resolves.

`make alerts` runs it in about ten minutes, `make soak` the half hour without an alert; `make test` causes three faults
in tests/e2e/test_alerting.py. Durations of the rules are a fifteenth (tests/support/monitoring.py).
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.local import product
from deploy.local.stack import LocalStack
from jobs.open_transactions import end_transactions_left_open
from schemas import topics
from tests.faults.test_crash_before_commit import crash_before_commit, go_on
from tests.faults.test_model_faults import HANGS, NAMES, NAN, adopted
from tests.support.examples import CAMPAIGN
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.kafka_front import KafkaFront
from tests.support.live import Live, small_model, start_live, until
from tests.support.monitoring import RULES, Monitoring, Shoppers, monitored, needs_prometheus, quicker, shopping
from tests.support.runbook import alerts

pytestmark = [needs_prometheus, pytest.mark.skipif(not CAMPAIGN, reason="make alerts, and make soak")]
FLINK = {
    "metrics.reporters": "prometheus",
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.min-pause": "100 ms",
}
ALWAYS_LISTS = "exclude_recent = 0\n"
"""In the table `lists`, with which the local settings end: the model has no items but those that users met last."""
QUICK_TO_ALARM = "[drift]\nallowance = 0.5\nthreshold = 2.0\n"
EASY_TO_LOAD = "[admission]\nlow_max = 1\n"
FIRES_S = 60
RESOLVES_S = 150
LAG = 12_000
SOAK_S = float(os.environ.get("FRESHET_SOAK_S", "1800"))
fired: set[str] = set()
"""The alerts that have fired and resolved so far."""


class Shop:
    """A stack with a gateway and shoppers, and what watches it."""

    def __init__(self, live: Live, gateway: RunningGateway, monitoring: Monitoring, shoppers: Shoppers) -> None:
        self.live, self.gateway, self.monitoring, self.shoppers = live, gateway, monitoring, shoppers

    def process(self, name: str) -> psutil.Process:
        """The process of a part of the stack."""
        [found] = [record.process() for record in self.live.stack.processes() if record.name == name]
        assert found is not None
        return found

    @contextlib.contextmanager
    def expecting(self, *names: str) -> Iterator[None]:
        """The block causes a fault: each of these alerts fires before it ends, and resolves after it."""
        begun_s = time.monotonic()
        count = len(self.monitoring.told)
        yield
        new = self.monitoring.told[count:]
        after = {told.name: told.at_s - begun_s for told in reversed(new) if told.status == "firing"}
        assert set(names) <= after.keys()
        mended_s = time.monotonic()
        self.monitoring.wait_until_resolved(set(names), RESOLVES_S)
        took_s = time.monotonic() - mended_s
        for name in names:
            print(f"{name}: fired {after[name]:.0f} s after the fault began")
        print(f"resolved within {took_s:.0f} s after it ended")
        fired.update(names)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with opened_shop(tmp_path_factory, quicker(RULES.read_text()), QUICK_TO_ALARM, EASY_TO_LOAD) as shop:
        yield shop


@contextlib.contextmanager
def opened_shop(
    tmp_path_factory: pytest.TempPathFactory, rules: str, settings: str = "", gateway_settings: str = ""
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("alerts")
    live = start_live(folder, flink_settings=FLINK, model=adopted, more_settings=ALWAYS_LISTS + settings)
    kafka, tenant = live.settings.kafka.bootstrap_servers, str(live.settings.tenant)
    folder, redis = tmp_path_factory.mktemp("gateway"), live.product.endpoints["redis"]
    try:
        with (
            running_gateway(folder, redis, kafka=kafka, more=gateway_settings, default=tenant) as gateway,
            shopping(live, gateway, NAMES[:30]) as shoppers,
            monitored(tmp_path_factory.mktemp("monitoring"), live, gateway, rules) as monitoring,
        ):
            yield Shop(live, gateway, monitoring, shoppers)
    finally:
        live.close()
        live.stack.stop()


def test_redis_does_not_answer(shop: Shop) -> None:
    """Lists, checkpoints and consents wait; events pile up; the gateway has popular lists, and takes no consents."""
    live, redis = shop.live, shop.process("redis")
    waiting = ("FreshetRedisUnavailable", "FreshetCheckpointsStopped", "FreshetLagGrows", "FreshetConsentUnread")
    of_gateway = ("FreshetGatewayPopularOnly", "FreshetGatewayErrors")
    live.consent(["gone-1", "gone-2"])
    ended = threading.Event()

    def refuse() -> None:
        while not ended.wait(0.2):
            with contextlib.suppress(Exception):
                change = {"user_id": "someone", "level": "full", "ts": time.time_ns() // 1_000_000}
                shop.gateway.ask("POST", "/v1/consent", "producer", json=change)

    with shop.expecting(*waiting, *of_gateway, "FreshetWithdrawalSlow", "FreshetListsSlow"):
        redis.suspend()
        try:
            withdrawal = {"level": "none", "ts": time.time_ns() // 1_000_000}
            records = [(user, json.dumps({"user_id": user, **withdrawal})) for user in ("gone-1", "gone-2")]
            live.send(topics.CONSENTS, [(key.encode(), value.encode()) for key, value in records])
            events = [live.event(shop.shoppers.users[n % 8], NAMES[n % 30]) for n in range(200)]
            events += [live.event(f"stranger-{n}", "item-00001") for n in range(LAG)]
            live.send(topics.INTERACTIONS, [(b"", event) for event in events])
            threading.Thread(target=refuse, daemon=True).start()
            shop.monitoring.wait_until_fired({*waiting, *of_gateway}, FIRES_S + 30)
        finally:
            ended.set()
            redis.resume()
        shop.monitoring.wait_until_fired({"FreshetWithdrawalSlow", "FreshetListsSlow"}, FIRES_S)


def test_redis_is_full(shop: Shop) -> None:
    expected = {"FreshetRedisFull", "FreshetNoListsWritten"}
    with shop.expecting(*expected):
        shop.live.redis.config_set("maxmemory", "1")
        try:
            shop.monitoring.wait_until_fired(expected, FIRES_S)
        finally:
            shop.live.redis.config_set("maxmemory", "0")


def test_a_producer_sends_garbage(shop: Shop) -> None:
    with shop.expecting("FreshetRejectsHigh"):
        shop.live.send(topics.INTERACTIONS, [(b"garbage", b"{")] * 2_000)
        shop.monitoring.wait_until_fired({"FreshetRejectsHigh"}, FIRES_S)


def test_a_model_fails(shop: Shop, tmp_path: Path) -> None:
    """First the default, which has no other to fall back to, has scores that are no numbers; then a version hangs that
    is rolled out."""
    unlucky = ["unlucky-1", "unlucky-2", "unlucky-3"]
    shop.live.consent(unlucky)
    with shop.expecting("FreshetModelFailing"):
        ended = threading.Event()

        def click() -> None:
            while not ended.wait(0.1):
                for user in unlucky:
                    shop.live.interact(user, NAMES[NAN - 1])

        clicking = threading.Thread(target=click)
        clicking.start()
        try:
            shop.monitoring.wait_until_fired({"FreshetModelFailing"}, FIRES_S)
        finally:
            ended.set()
            clicking.join()
    adopted(tmp_path / "faulty", "faulty-2")  # by the name of the default, it would be the default
    freshet_model(shop, "push", str(tmp_path / "faulty"), "--licence", "none")
    freshet_model(shop, "activate", "faulty-2")
    with shop.expecting("FreshetModelFellBack"):
        shop.live.interact(unlucky[0], NAMES[HANGS - 1])
        shop.monitoring.wait_until_fired({"FreshetModelFellBack"}, FIRES_S)


def freshet_model(shop: Shop, *words: str) -> None:
    command = [sys.executable, "-m", "freshet", "model", *words, "--settings", str(shop.live.product.settings_path)]
    subprocess.run(command, capture_output=True, text=True, check=True)


def test_readers_ask_too_often(shop: Shop) -> None:
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            shop.gateway.get("/v1/recommendations/watched-1", priority="u=7")

    with shop.expecting("FreshetGatewaySheds"), ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(8)]
        try:
            shop.monitoring.wait_until_fired({"FreshetGatewaySheds"}, FIRES_S)
        finally:
            ended.set()
        for reader in readers:
            reader.result()


def test_a_gateway_hangs(shop: Shop) -> None:
    gateway = psutil.Process(shop.gateway.process.pid)
    with shop.expecting("FreshetTargetDown"):
        gateway.suspend()
        try:
            shop.monitoring.wait_until_fired({"FreshetTargetDown"}, FIRES_S)
        finally:
            gateway.resume()


def test_a_task_manager_collects_garbage_all_the_time(shop: Shop) -> None:
    """Flink tells the mean of a minute."""
    task_manager, ended = java_of_task_manager(shop), threading.Event()
    with shop.expecting("FreshetHeapFull"):

        def collect() -> None:
            while not ended.is_set():
                subprocess.run(["jcmd", str(task_manager), "GC.run"], capture_output=True, check=False)

        collectors = [threading.Thread(target=collect) for _ in range(3)]
        for collector in collectors:
            collector.start()
        try:
            shop.monitoring.wait_until_fired({"FreshetHeapFull"}, 2 * FIRES_S)
        finally:
            ended.set()
            for collector in collectors:
                collector.join()


def java_of_task_manager(shop: Shop) -> int:
    """The process id of the TaskManager that runs, or is about to: a supervisor starts it."""

    def found() -> list[int]:
        processes = [process for record in shop.live.stack.task_managers() if (process := record.process())]
        children = [child for process in processes for child in process.children(recursive=True)]
        return [child.pid for child in children if child.name() == "java"]

    [java] = until(found, "a TaskManager", pause_s=0.2)
    return int(java)


def test_task_managers_are_killed_again_and_again(shop: Shop) -> None:
    live, monitoring, expected = shop.live, shop.monitoring, {"FreshetJobDown", "FreshetJobRestarts"}
    count, end_s = len(monitoring.told), time.monotonic() + 3 * FIRES_S
    with shop.expecting(*expected):
        while not expected <= {told.name for told in monitoring.told[count:]} and time.monotonic() < end_s:
            known = {manager["id"] for manager in live.stack.rest.task_managers()}
            psutil.Process(java_of_task_manager(shop)).kill()
            # Not before there is another one: the supervisor gives one up that ends as soon as it begins.
            until(
                lambda known=known: {one["id"] for one in live.stack.rest.task_managers()} - known, "another", 120, 0.5
            )
            live.stack.rest.wait_running(live.job_id)
            monitoring.find_targets()
            time.sleep(5)


def test_users_stop_clicking(shop: Shop) -> None:
    """Rates are compared by the minute, so this takes two or three."""
    with shop.expecting("FreshetDrift"):
        shop.shoppers.clicks_on = 2
        time.sleep(70)
        shop.shoppers.clicks_on = 0
        shop.monitoring.wait_until_fired({"FreshetDrift"}, 130)


def test_kafka_ends_transactions_of_the_sinks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The job crashes between a checkpoint and its commit; before it returns, its transactions are ended."""
    directory = tmp_path_factory.mktemp("lost")
    settings = {"execution.checkpointing.interval": "1 h", "metrics.reporters": "prometheus"}
    with KafkaFront(0) as front:
        stack = LocalStack(directory, flink_settings=settings)
        front.lead_to(stack.kafka.port)
        stack.kafka.advertise(front.port)
        small_model(directory / "model")
        with stack:
            live = Live(stack, product.start(stack, model_directory=directory / "model"))
            kafka, tenant = live.settings.kafka.bootstrap_servers, str(live.settings.tenant)
            folder, redis = tmp_path_factory.mktemp("gateway"), live.product.endpoints["redis"]
            with running_gateway(folder, redis, kafka=kafka, default=tenant) as gateway:
                crash = crash_before_commit(live, front, "ada")
                assert end_transactions_left_open(live.settings.kafka)
                go_on(live, live.product.settings_path, crash)
                rules = quicker(RULES.read_text())
                with monitored(tmp_path_factory.mktemp("monitoring"), live, gateway, rules) as monitoring:
                    monitoring.wait_until_fired({"FreshetOutputLost"}, FIRES_S)
                    live.checkpoint()
                    stack.kill_task_manager()
                    until(
                        lambda: (monitoring.find_targets(), "FreshetOutputLost" not in monitoring.firing())[1],
                        "FreshetOutputLost to resolve",
                        120,
                        0.5,
                    )
            live.close()
    fired.add("FreshetOutputLost")


def test_each_alert_has_fired_and_resolved() -> None:
    assert sorted(fired) == sorted(str(rule["alert"]) for rule in alerts())


def test_soak_without_an_alert(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Under the rules as they are shipped."""
    with opened_shop(tmp_path_factory, RULES.read_text()) as shop:
        end_s = time.monotonic() + SOAK_S
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(5.0, left_s))
            assert shop.monitoring.told == []
        read, clicked = shop.shoppers.reads, shop.shoppers.clicks
        pending: list[Any] = shop.monitoring.query('ALERTS{alertstate="firing"}')
        assert pending == []
        print(f"{SOAK_S:.0f} s, {clicked} events, {read} reads, no alert")
        assert clicked > SOAK_S
