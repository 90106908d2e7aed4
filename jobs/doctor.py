"""Checks a deployment before and between submissions, and says how to fix problems (`freshet doctor`).

Each check is one that the submission makes, or one whose failure shows only when the job runs. Nothing is changed but
for one record in the compacted topic `deployment`, whose append time tells the broker's clock; nobody reads it.
"""

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from adapters.flink.rest import FlinkRest
from adapters.kafka.listening import refuse_if_nobody_listens
from adapters.kafka.reading import open_consumer
from adapters.kafka.settings import python_kafka_options
from adapters.redis.client import RedisClient, connect
from adapters.redis.fitness import check_rights, fitness
from adapters.secrets.key_rings import load_key_ring
from adapters.secrets.signing_keys import load_signing_key
from jobs.checks import check_topics
from jobs.clock import clock_ms
from jobs.operators_jar import operators_jar
from jobs.registration import load_for_submission
from jobs.savepoints import running_job
from jobs.settings import Settings, load_policy, load_settings
from models.scorer import Scorer
from schemas import topics
from schemas.errors import FreshetError, SettingsError, StoreUnavailable

Verdict = Literal["ok", "note", "mend", "skipped"]
REQUIREMENTS: Final = Path(__file__).parents[1] / "requirements.txt"
PYTHONS: Final = ((3, 11), (3, 12))
JAVA_LEAST: Final = 17
CLOCK_OFF_MAX_MS: Final = 5_000
"""More than two machines with NTP differ, and less than any time that the rules go by."""
CLOCK_KEY: Final = b"doctor"
ANSWER_S: Final = 10.0
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
_INCLUDED: Final = re.compile(r"^-r (\S+)", re.MULTILINE)
_JAVA: Final = re.compile(r'version "(\d+)')


class CheckResult(NamedTuple):
    """What one check found: `text` says what there is, or what is wrong and how to fix it. `note` is not wrong."""

    what: str
    verdict: Verdict
    text: str


def examine(path: Path, flink: str | None) -> list[CheckResult]:
    """Every check of the deployment whose settings are in `path`, and of Flink where its URL is given."""
    found = [checked("python", python), checked("packages", packages), checked("java", java)]
    found.append(checked("operators", operators))
    try:
        settings = load_settings(path)
    except FreshetError as error:
        return [*found, CheckResult("settings", "mend", str(error))]
    found += [CheckResult("settings", "ok", str(path)), *_of_files(settings), *_of_redis(settings)]
    return [*found, *_of_kafka(path, settings), *_of_flink(settings, flink)]


def checked(what: str, check: Callable[[], str]) -> CheckResult:
    """What `check` says, which raises for what must be fixed."""
    try:
        return CheckResult(what, "ok", check())
    except FreshetError as error:
        return CheckResult(what, "mend", str(error))
    except KafkaError as error:
        return CheckResult(what, "mend", f"Kafka did not do what was asked: {type(error).__name__}")


def python() -> str:
    """Which Python runs this: the workers need the same."""
    own = sys.version_info[:2]
    if own not in PYTHONS:
        raise SettingsError(f"this is Python {own[0]}.{own[1]}, and PyFlink needs 3.11 or 3.12: make setup PYTHON3=…")
    return f"{own[0]}.{own[1]}, {sys.executable}"


def packages() -> str:
    """Whether what requirements.txt and the files that it includes pin is installed."""
    pins = pinned(REQUIREMENTS)
    if wrong := differing(pins, {name: _installed(name) for name in pins}):
        raise SettingsError(f"{'; '.join(wrong)}: install requirements.txt (`make setup`)")
    return f"{len(pins)} as requirements.txt pins them"


def pinned(requirements: Path) -> dict[str, str]:
    """Name → version of what a requirements file and those that it includes pin."""
    text = requirements.read_text(encoding="utf-8")
    pins = dict(_PIN.findall(text))
    for included in _INCLUDED.findall(text):
        pins |= pinned(requirements.parent / included)
    return pins


def differing(pins: dict[str, str], installed: dict[str, str | None]) -> list[str]:
    """What is not installed as it is pinned.

    >>> differing({"redis": "5.3.1", "lz4": "4.4.5"}, {"redis": "6.0.0", "lz4": None})
    ['redis is 6.0.0, not 5.3.1', 'lz4 is not installed']
    """
    return [
        f"{name} is not installed" if (found := installed[name]) is None else f"{name} is {found}, not {pin}"
        for name, pin in pins.items()
        if installed[name] != pin
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def java() -> str:
    """Which Java Flink's client would start."""
    executable = shutil.which("java")
    if executable is None:
        raise SettingsError(f"java is not on PATH: install Java {JAVA_LEAST}")
    told = subprocess.run([executable, "-version"], capture_output=True, text=True, check=False).stderr
    found = _JAVA.search(told)
    if found is None or int(found.group(1)) < JAVA_LEAST:
        raise SettingsError(f"{executable} is not Java {JAVA_LEAST} or later: install that, and put it first on PATH")
    return f"{found.group(1)}, {executable}"


def operators() -> str:
    """Whether the operators that run in Java are built, and from the sources that are here."""
    operators_jar()
    return "the operators in Java are built"


def _of_files(settings: Settings) -> Iterable[CheckResult]:
    privacy, audit = settings.privacy, settings.audit
    yield checked("key ring", lambda: _key(privacy.key_ring, lambda: f"key {load_key_ring(privacy.key_ring).current}"))
    yield checked("signing key", lambda: _key(audit.signing_key, lambda: load_signing_key(audit.signing_key).id))
    yield checked("policy", lambda: _policy(settings))
    yield checked("model", lambda: Scorer.open(Path(settings.model.directory)).manifest.name)


def _key(path: str | None, load: Callable[[], str]) -> str:
    told = load()
    if path is not None and Path(path).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{path} is readable or writable by others: chmod 600 {path}")
    return told


def _policy(settings: Settings) -> str:
    load_policy(settings.privacy.policy)
    return settings.privacy.policy or "none: consents mean what they say"


def _of_redis(settings: Settings) -> list[CheckResult]:
    client = connect(settings.redis)
    try:
        found = fitness(client)
        rights = checked("redis rights", lambda: _rights(client))
    except FreshetError as error:
        why = f"{error}: see that redis.urls answers" if isinstance(error, StoreUnavailable) else str(error)
        return [CheckResult("redis", "mend", why)]
    finally:
        client.close()
    weak: Verdict = "mend" if settings.redis.persistence == "required" else "note"
    told = [
        *(CheckResult("redis", "mend", line) for line in found.wrong),
        *(CheckResult("redis", weak, it) for it in found.weak),
    ]
    return [*(told or [CheckResult("redis", "ok", "evicts nothing, and has an append-only file")]), rights]


def _rights(client: RedisClient) -> str:
    check_rights(client)
    return "the job's commands are allowed"


def _of_kafka(path: Path, settings: Settings) -> Iterable[CheckResult]:
    reached = checked("kafka", lambda: _reached(settings))
    yield reached
    checks = {
        "topics": lambda: _topics(settings),
        "clock": lambda: describe_clock_offset(*_times(settings)),
        "deployment": lambda: _deployment(path),
    }
    for what, check in checks.items():
        yield checked(what, check) if reached.verdict == "ok" else CheckResult(what, "skipped", "Kafka is not reached")


def _reached(settings: Settings) -> str:
    refuse_if_nobody_listens(settings.kafka)
    open_consumer(settings.kafka).close()
    return settings.kafka.bootstrap_servers


def _topics(settings: Settings) -> str:
    check_topics(settings)
    return f"{len(topics.TOPICS)}, with the retention and the time stamps that are promised"


def _times(settings: Settings) -> tuple[int, int, int]:
    """When a record was sent, appended by the broker's clock, and acknowledged, in ms."""
    producer = KafkaProducer(**python_kafka_options(settings.kafka), acks="all")
    try:
        begun = clock_ms()
        sent = producer.send(settings.kafka.topic(topics.DEPLOYMENT), key=CLOCK_KEY, value=b"{}")
        return begun, int(sent.get(ANSWER_S).timestamp), clock_ms()
    finally:
        producer.close(ANSWER_S)


def describe_clock_offset(sent_ms: int, appended_ms: int, acknowledged_ms: int) -> str:
    """How far the clock here is from the broker's, at least.

    >>> describe_clock_offset(1_000, 1_010, 1_020), describe_clock_offset(1_000, 400, 1_020)
    ("with the broker's", "600 ms ahead of the broker's")
    """
    ahead, behind = sent_ms - appended_ms, appended_ms - acknowledged_ms
    off = max(ahead, behind, 0)
    told = f"{off} ms {'ahead of' if ahead > 0 else 'behind'} the broker's" if off else "with the broker's"
    if off > CLOCK_OFF_MAX_MS:
        raise SettingsError(f"the clock here is {told}: synchronise both with NTP")
    return told


def _deployment(path: Path) -> str:
    load_for_submission(path)
    return "these settings are those of the last submission, if there was one"


def _of_flink(settings: Settings, flink: str | None) -> Iterable[CheckResult]:
    if flink is None:
        yield CheckResult("flink", "skipped", "say where it is with --flink")
        return
    reached = checked("flink", lambda: _flink(flink))
    yield reached
    if reached.verdict == "ok":
        yield _job(flink, settings.job.name)


def _flink(flink: str) -> str:
    theirs, own = str(FlinkRest(flink).get("/config")["flink-version"]), version("apache-flink")
    if theirs.split(".")[:2] != own.split(".")[:2]:
        raise SettingsError(
            f"Flink at {flink} is {theirs}, and apache-flink here is {own}: install one version of both"
        )
    overview = FlinkRest(flink).get("/overview")
    if not overview["taskmanagers"]:
        raise SettingsError(f"Flink at {flink} has no TaskManager: start one, with one slot")
    return f"{theirs}, {overview['taskmanagers']} TaskManagers, {overview['slots-available']} slots free"


def _job(flink: str, name: str) -> CheckResult:
    try:
        return CheckResult("job", "ok", f"{running_job(flink, name)} runs")
    except FreshetError as error:  # it may be that it is to be submitted only now
        return CheckResult("job", "note", f"{error}; `freshet submit` submits it")
