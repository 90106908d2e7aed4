"""Shows the journey of a click: a real Kafka, Redis and Flink, the job, and a shop full of simulated shoppers.

`freshet demo`; with `--replay FILE`, the rows of a file replace the shoppers.
"""

import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from adapters.kafka.settings import KafkaSettings
from adapters.secrets.key_rings import load_key_ring
from deploy.demo import shop
from deploy.demo.feed import Feed, FileFeed, ShopFeed
from deploy.demo.live import JobProbe, Live
from deploy.demo.producer import Producer
from deploy.demo.receipts import ConsentWaiter, reading
from deploy.demo.replay import Choice
from deploy.demo.screen import screen_for
from deploy.demo.storefront import SEEN_ITEMS, Storefront
from deploy.demo.table import Mapping, check, names_of, users_of_rows
from deploy.local import product
from deploy.local.errors import StackError
from deploy.local.gateway_product import curl_line, start_gateway
from deploy.local.paths import LOCAL, ROOT
from deploy.local.signals import handle_signals, ignore_signals, interrupt
from deploy.local.stack import LocalStack
from jobs.settings import Settings
from schemas.errors import FreshetError
from schemas.pseudonyms import KeyRing, Pseudonymiser
from schemas.topics import DEAD_LETTERS, METRICS, RECEIPTS
from serving.reader import Reader

DIRECTORY = LOCAL / "demo"
CONSENT_TIMEOUT_S = LISTS_TIMEOUT_S = 60.0


class TimedLines:
    """Prints lines with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print one line."""
        print(f"demo {time.monotonic() - self._began:5.1f} s  {line}", flush=True)


class Interrupts:
    """The first signal interrupts the setup or, once `deferred`, sets `came` to its number; later ones are ignored.

    The cleanup has time limits of its own, and a second Ctrl-C must not interrupt it.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self.deferred = False
        handle_signals(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        ignore_signals()
        self.came = number
        if not self.deferred:
            interrupt(number)


class DemoOptions(NamedTuple):
    """What the demo shows: simulated shoppers, or the rows of a file (`replay`) according to `mapping` and `choice`.

    `follow` is a user of the file; by default the one with most rows.
    """

    shoppers: int = 300
    rate: int = 200
    seed: int = 1
    seconds: int | None = None
    plain: bool = False
    replay: Path | None = None
    speed: int | None = None
    follow: str | None = None
    mapping: Mapping = Mapping()
    choice: Choice = Choice()


def demo(options: DemoOptions) -> None:
    """Run the demo until Ctrl-C or for `seconds`; Ctrl-C before the screen appears is a `KeyboardInterrupt`."""
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    logging.getLogger("kafka").propagate = False  # important failures are raised; log lines would corrupt the screen
    interrupts, say = Interrupts(), TimedLines()
    _run(options, interrupts, say)
    say("ended; nothing was left running")
    if interrupts.came not in (None, signal.SIGINT):  # Ctrl-C is how a person ends it
        interrupt(interrupts.came)


def _run(options: DemoOptions, interrupts: Interrupts, say: Callable[[str], None]) -> None:
    shoppers = shop.shoppers(options.seed, options.shoppers) if options.replay is None else []
    if options.replay is not None:  # first: what is wrong with the file or its options shows before anything is started
        options = options._replace(follow=_followed(options.replay, options.mapping, options.follow))
    say(f"starting Kafka, Redis and Flink below {DIRECTORY.relative_to(ROOT)}")
    with LocalStack(DIRECTORY, report=say) as stack:
        begun = product.start(
            stack,
            is_small=options.replay is None,
            before_submission=lambda settings: _send_catalogue_and_consents(settings, shoppers, say),
            report=say,
        )
        running = start_gateway(stack, begun)
        say("the job runs, and the gateway takes requests")
        _go_live(options, stack, running, interrupts, say)
        say("ending Kafka, Redis and Flink")


def _go_live(
    options: DemoOptions,
    stack: LocalStack,
    running: product.Product,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> None:
    ring = load_key_ring(running.settings.privacy.key_ring)
    kafka = running.settings.kafka
    bulk = options.replay is not None and options.speed is None
    probe = JobProbe(stack, running.job_id)
    with _sending(Producer(kafka, bulk=bulk)) as producer, _reading(kafka) as consumer:
        reader = Reader(running.endpoints["redis"], ring, running.settings.redis.prefix)
        prepare = _prepare_shop if options.replay is None else _prepare_file
        live, feed = prepare(options, running, producer, consumer, reader, ring, say)
        live.hint = curl_line(stack, live.user, str(ROOT))
        say(f"this list over HTTP: {live.hint}")
        deadline = time.monotonic() + (options.seconds or float("inf"))
        interrupts.deferred = True
        try:
            feed.start()
            probe.start()
            live.show(
                feed,
                probe,
                screen_for(options.plain),
                lambda: interrupts.came is not None or time.monotonic() >= deadline,
            )
        finally:
            feed.stop()
            probe.stop()
            reader.close()
            for remark in feed.remarks:
                say(remark)


def _reading(kafka: KafkaSettings) -> AbstractContextManager[Any]:
    return reading(kafka, RECEIPTS, DEAD_LETTERS, METRICS, from_beginning=True)


@contextmanager
def _sending(producer: Producer) -> Iterator[Producer]:
    try:
        yield producer
    finally:
        producer.abandon()


def _send_catalogue_and_consents(
    settings: Settings, shoppers: Sequence[shop.Shopper], say: Callable[[str], None]
) -> None:
    """Before the job is submitted, which then applies them at once. Does nothing without shoppers."""
    if not shoppers:
        return
    with _sending(Producer(settings.kafka)) as producer:
        for item in shop.CATALOGUE:
            producer.send_item(item)
        for change in shop.consents(shoppers, time.time_ns() // 1_000_000):
            producer.send_consent(change)
        producer.flush()
    say(f"a catalogue of {len(shop.CATALOGUE)} items, and the consents of {len(shoppers)} shoppers: sent")


def _prepare_shop(
    options: DemoOptions,
    running: product.Product,
    producer: Producer,
    consumer: object,
    reader: Reader,
    ring: KeyRing,
    say: Callable[[str], None],
) -> tuple[Live, Feed]:
    """Wait until everybody's consents are applied, and until the job has learned from earlier visits."""
    shoppers = shop.shoppers(options.seed, options.shoppers)
    pseudonymiser = Pseudonymiser(ring)
    names = {item.item_id: item.name for item in shop.CATALOGUE}
    live = Live(consumer, reader, pseudonymiser, shoppers[0].user_id, names)
    pseudonyms = {pseudonymiser.user(shopper.user_id) for shopper in shoppers}
    ConsentWaiter(live.receive).wait(pseudonyms, CONSENT_TIMEOUT_S)
    say("consents are in force")
    sent = _send_earlier(producer, shoppers, options.seed)
    _wait_for_lists(live, reader, sent)
    live.open()
    say(f"learned from {sent:,} interactions of the last days; the shop opens")
    storefront = Storefront(lambda user: reader.recommend(user, SEEN_ITEMS))
    return live, ShopFeed(producer, shoppers, options.rate, options.seed, storefront, sent)


def _send_earlier(producer: Producer, shoppers: Sequence[shop.Shopper], seed: int) -> int:
    sent = 0
    for sent, event in enumerate(shop.earlier_events(shoppers, time.time_ns() // 1_000_000, seed), start=1):  # noqa: B007
        producer.send_interaction(event)
    producer.flush()
    return sent


def _wait_for_lists(live: Live, reader: Reader, sent: int) -> None:
    """Until the job has counted what was `sent`, and anybody gets a list; a lone shopper has not been anywhere yet."""
    deadline = time.monotonic() + LISTS_TIMEOUT_S
    while sent and (live.totals().sent < sent or not reader.popular(1).items):
        if time.monotonic() > deadline:
            raise StackError(f"the job has processed {live.totals().sent} of {sent} interactions, and there is no list")
        live.receive()


def _prepare_file(
    options: DemoOptions,
    running: product.Product,
    producer: Producer,
    consumer: object,
    reader: Reader,
    ring: KeyRing,
    say: Callable[[str], None],
) -> tuple[Live, Feed]:
    """Choose the user to follow; the feed sends consents and rows while the screen shows it."""
    path, mapping, pseudonymiser = options.replay or Path(), options.mapping, Pseudonymiser(ring)
    follow = str(options.follow)
    say(f"following {follow}")
    live = Live(consumer, reader, pseudonymiser, follow, names_of(path, mapping))
    choice, kafka = options.choice, running.settings.kafka
    feed = FileFeed(producer, follow, path, mapping, choice, options.speed, kafka, pseudonymiser)
    return live, feed


def _followed(path: Path, mapping: Mapping, wanted: str | None) -> str:
    """The user whose list is shown: `wanted`, or the one with most rows. Raises :class:`FreshetError`."""
    path.stat()  # a missing file is said first, as an OSError
    if mapping.name is not None:
        check(path, mapping, mapping.name)
    counted = Counter(user for user in users_of_rows(path, mapping) if user is not None)
    if not counted:
        raise FreshetError(f"{path.name} has no row with a user")
    if wanted is not None and wanted not in counted:
        raise FreshetError(f"--follow: {path.name} has no row of this user")
    return wanted or counted.most_common(1)[0][0]
