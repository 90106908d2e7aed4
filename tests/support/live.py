"""The product as a black box on real parts: tests write to Kafka, and read Redis and topics."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from adapters.kafka.settings import python_kafka_options
from adapters.redis.address import RedisAddress
from adapters.secrets.key_rings import load_key_ring
from deploy.local import product
from deploy.local.stack import LocalStack
from jobs.settings import Settings
from models.random_model import random_model
from schemas import topics
from schemas.answers import StateAnswer, decode_answer
from schemas.lists import RecommendationList, decode_list
from schemas.log_lines import LogFormat
from schemas.pseudonyms import Pseudonymiser
from schemas.receipts import (
    AccountTotals,
    ConsentReceipt,
    ElementReceipt,
    KidsReceipt,
    Receipt,
    decode_receipt,
)
from schemas.store import popular_key, similar_key, user_keys
from serving.consents import Consents
from tests.support.naive import plain_answer

DEADLINE_S = 300.0


def until(question: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S, pause_s: float = 0.02) -> Any:
    """The first true result of `question`; fails with `what` after a timeout."""
    end = time.monotonic() + deadline_s
    while not (answer := question()):
        assert time.monotonic() < end, f"waited {deadline_s:g} s for {what}"
        time.sleep(pause_s)
    return answer


class Live:
    """A running stack and job. All reads start at the beginning of the topics, so the order of calls is free."""

    def __init__(self, stack: LocalStack, running: product.Product) -> None:
        self.stack, self.product = stack, running
        self.settings: Settings = running.settings
        self.job_id = running.job_id
        self.pseudonymiser = Pseudonymiser(load_key_ring(running.endpoints["key_ring"]))
        self.redis: Any = redis.Redis.from_url(running.endpoints["redis"])
        self._receipts = self.consumer(topics.RECEIPTS)
        self._states = self.consumer(topics.ANSWERS)
        self.consents_in_force: Counter[str] = Counter()
        self.accounts: dict[int, AccountTotals] = {}
        self._newest: dict[int, tuple[int, int]] = {}
        self._answers: list[Receipt] = []
        self._producer = self.producer()
        self._ids = 0
        self.mode = "thread"

    # -- sending

    def producer(self) -> Any:
        """An idempotent producer."""
        return KafkaProducer(
            bootstrap_servers=self.settings.kafka.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            batch_size=262_144,
            max_in_flight_requests_per_connection=5,
        )

    def send(self, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> int:
        """Send (key, value) pairs to a topic and wait until all are acknowledged; returns how many."""
        name = self.settings.kafka.topic(topic)
        futures = [self._producer.send(name, key=key, value=value) for key, value in records]
        self._producer.flush()
        for future in futures:
            future.get(0)
        return len(futures)

    def interact(self, user: str, item: str | None = None, type: str = "click", **more: Any) -> None:
        """Send one interaction."""
        self.send(topics.INTERACTIONS, [(user.encode(), self.event(user, item, type, **more))])

    def event(self, user: str, item: str | None = None, type: str = "click", **more: Any) -> bytes:
        """The JSON of one interaction, with the current time and a new id."""
        self._ids += 1
        fields = {"event_id": f"event-{self._ids}", "type": type, "ts": _now_ms(), "user_id": user}
        return json.dumps({**fields, **({"item_id": item} if item else {}), **more}).encode()

    def consent(self, users: Sequence[str], level: str = "full", **more: Any) -> None:
        """Send consent changes and wait until the job reports them as applied."""
        wanted = Counter({self.pseudonymiser.user(user): 1 for user in users}) + self.consents_in_force
        record = {"level": level, "ts": _now_ms(), **more}
        self.send(topics.CONSENTS, [(u.encode(), json.dumps({"user_id": u, **record}).encode()) for u in users])
        until(lambda: self._poll() and not wanted - self.consents_in_force, "consent receipts")

    def wait_for_consent(self, user: str) -> None:
        """Wait until the job reports the first consent change of `user` as applied."""
        name = self.pseudonymiser.user(user)
        until(lambda: self._poll() and self.consents_in_force[name], "a consent receipt")

    # -- seeing

    def consumer(self, *names: str, isolation: str = "read_committed") -> Any:
        """A consumer of whole topics from their beginning, by default of committed records only."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.settings.kafka.bootstrap_servers,
            isolation_level=isolation,
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
            max_poll_records=5_000,
        )
        parts = [
            TopicPartition(self.settings.kafka.topic(name), partition)
            for name in names
            for partition in sorted(consumer.partitions_for_topic(self.settings.kafka.topic(name)) or ())
        ]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        return consumer

    def records(self, *names: str, isolation: str = "read_committed") -> Iterator[Any]:
        """Every record now in the topics, in the order of each partition."""
        consumer = self.consumer(*names, isolation=isolation)
        ends = consumer.end_offsets(list(consumer.assignment()))
        while any(consumer.position(part) < end for part, end in ends.items()):
            for batch in consumer.poll(timeout_ms=200).values():
                yield from batch
        consumer.close()

    def list_of(self, user: str) -> RecommendationList | None:
        """The list in Redis for `user`."""
        raw = self.redis.get(self.keys(user)[0])
        return None if raw is None else decode_list(raw)

    def popular(self, segment: str = "all") -> RecommendationList | None:
        """The popular list of a segment."""
        raw = self.redis.get(popular_key(self.settings.redis.prefix, segment))
        return None if raw is None else decode_list(raw)

    def similar(self, item: str) -> RecommendationList | None:
        """The list of items similar to `item`."""
        raw = self.redis.get(similar_key(self.settings.redis.prefix, item))
        return None if raw is None else decode_list(raw)

    def keys(self, user: str) -> tuple[str, str, str]:
        """The Redis keys of `user`: list, consent, tombstone."""
        return user_keys(self.settings.redis.prefix, self.pseudonymiser.user(user))

    def wait_for_version(self, user: str, version: int) -> RecommendationList:
        """The list of `user` once it is at `version` or later."""

        def arrived() -> RecommendationList | None:
            found = self.list_of(user)
            return found if found is not None and found.v >= version else None

        found = until(arrived, f"version {version} of a list", pause_s=0.002)
        assert found is not None
        return found

    def wait_until_accounted(self, sent: int, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until the accounts of all buckets add up to `sent` interactions; returns their sum."""

        try:
            until(lambda: self.accounted() == sent, f"{sent} interactions to be accounted for", deadline_s)
        except AssertionError as error:
            rest = self.stack.rest
            story = f"{self.accounts}; the job is {rest.state(self.job_id)}: {rest.exceptions(self.job_id)}"
            raise AssertionError(f"{error}: {story}") from None
        return summed(self.accounts.values())

    def accounted(self) -> int:
        """How many interactions the job has accounted for so far."""
        self._poll()
        return sum(account.sent for account in self.accounts.values())

    def ask(self, kind: str) -> list[Receipt]:
        """Send a command to every bucket; returns the answers once all buckets have answered."""
        request = uuid.uuid4().hex
        buckets = self.settings.job.buckets
        commands = [{"kind": kind, "bucket": bucket, "request": request} for bucket in range(buckets)]
        self.send(topics.CONTROL, [(None, json.dumps(command).encode()) for command in commands])

        def answered() -> list[Receipt]:
            self._poll()
            mine = [answer for answer in self._answers if getattr(answer, "request", None) == request]
            return mine if len({answer.bucket for answer in mine}) == buckets else []

        return until(answered, f"answers to {kind}")

    def states(self, users: Iterable[str]) -> dict[str, Any]:
        """The job's state of each of these users, by pseudonym; users without state are left out."""
        return {name: json.loads(raw) for name, raw in self._raw_states(users).items()}

    def plain_states(self, users: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The same in the format of :meth:`tests.support.naive.NaiveReplay.states`."""
        return {name: plain_answer(raw) for name, raw in self._raw_states(users).items()}

    def known_users(self) -> Counter[str]:
        """The number of users under each key id."""
        answers = {answer.bucket: answer for answer in self.ask("kids") if isinstance(answer, KidsReceipt)}
        return Counter({}) + sum((Counter(answer.users) for answer in answers.values()), Counter())

    def _raw_states(self, users: Iterable[str]) -> dict[str, bytes]:
        wanted = {uuid.uuid4().hex: user for user in users}
        commands = [{"kind": "access", "user_id": user, "request": request} for request, user in wanted.items()]
        self.send(topics.CONTROL, [(None, json.dumps(command).encode()) for command in commands])
        found: dict[str, StateAnswer] = {}

        def answered() -> bool:
            for batch in self._states.poll(timeout_ms=50, max_records=5_000).values():
                told = [decode_answer(record.value) for record in batch]
                found.update({a.request: a for a in told if isinstance(a, StateAnswer) and a.request in wanted})
            return len(found) == len(wanted)

        until(answered, f"the states of {len(wanted)} users")
        states = {answer.pseudonym: bytes(answer.state) for answer in found.values()}
        return {name: raw for name, raw in states.items() if raw != b"null"}

    def rejects(self) -> list[dict[str, Any]]:
        """The dead letters so far; they appear with a checkpoint."""
        return [json.loads(record.value) for record in self.records(topics.DEAD_LETTERS)]

    def checkpoint(self) -> None:
        """Take a checkpoint now, so that exactly-once output becomes visible."""
        self.stack.rest.checkpoint(self.job_id)

    def metric(self, name: str) -> int:
        """The sum of a metric over all operators of the job; Flink's REST shows it some seconds after the start."""
        rest, job = self.stack.rest, f"/jobs/{self.job_id}"
        vertices = [f"{job}/vertices/{vertex['id']}" for vertex in rest.get(job)["vertices"]]

        def told() -> list[str]:
            names = {path: [n for n in rest.metric_names(path) if n.endswith(f".{name}")] for path in vertices}
            return [value for path, found in names.items() if found for value in rest.metrics(path, found).values()]

        return sum(map(int, until(told, f"the metric {name}", pause_s=1)))

    def _poll(self) -> bool:
        for batch in self._receipts.poll(timeout_ms=50, max_records=5_000).values():
            for record in batch:
                self._note(decode_receipt(record.value))
        return True

    def _note(self, receipt: Receipt) -> None:
        if isinstance(receipt, ConsentReceipt):
            self.consents_in_force[receipt.pseudonym] += 1
        elif isinstance(receipt, ElementReceipt):
            self._note_account(receipt)
        else:
            self._answers.append(receipt)

    def _note_account(self, receipt: ElementReceipt) -> None:
        """Partitions have no mutual order, so the receipts' times decide which is newest."""
        newest = (receipt.at, receipt.account.sent)
        if newest >= self._newest.get(receipt.bucket, (0, 0)):
            self._newest[receipt.bucket], self.accounts[receipt.bucket] = newest, receipt.account

    def close(self) -> None:
        """Close the clients."""
        self._producer.close()
        self._receipts.close()
        self._states.close()
        self.redis.close()


def small_model(directory: Path) -> None:
    """A random model of 500 items."""
    random_model(directory, items=500)


def start_live(
    directory: Path,
    task_managers: int = 1,
    flink_settings: dict[str, str] | None = None,
    model: Callable[[Path], None] | None = small_model,
    more_settings: str = "",
    log_format: LogFormat = "text",
) -> Live:
    """A separate stack below `directory`, with the model from `model` and the job on it. Bounded restarts.

    Without a `model`, the job learns its own. `more_settings` are tables of its settings file.
    """
    bounded = {"restart-strategy.exponential-delay.attempts-before-reset-backoff": "20"}
    stack = LocalStack(directory, task_managers, {**bounded, **(flink_settings or {})}, log_format=log_format)
    stack.start()
    try:
        if model is not None:
            model(directory / "model")
        folder = None if model is None else directory / "model"
        return Live(stack, product.start(stack, model_directory=folder, more_settings=more_settings))
    except BaseException:
        stack.stop()
        raise


def summed(accounts: Iterable[AccountTotals]) -> dict[str, Any]:
    """The sum of the accounts of several buckets."""
    total: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for account in accounts:
        fields = _plain(account)
        rejected.update(fields.pop("rejected"))
        total.update(fields)
    return {**total, "rejected": dict(rejected)}


def _plain(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def consents_of(live: Live, store: RedisAddress | str | None = None, **options: Any) -> Consents:
    """The library as a frontend of this stack uses it; `store` replaces its Redis. Close it."""
    return Consents(
        store or live.product.endpoints["redis"],
        python_kafka_options(live.settings.kafka),
        load_key_ring(live.product.endpoints["key_ring"]),
        tombstone_ms=live.settings.tombstone_ms(),
        topic_prefix=live.settings.kafka.topic_prefix,
        prefix=live.settings.redis.prefix,
        **options,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
