"""Lists what is kept, for how long, by which setting, and what enforces it, as Markdown (`freshet retention`).

Derived from the settings that the job itself reads.
"""

from typing import Final, NamedTuple

from adapters.kafka.settings import KafkaSettings
from adapters.redis.address import RedisSettings
from jobs.settings import Settings
from schemas import topics
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS, TOPICS, Topic
from udfs.due import SHOWN_KEPT_MS
from udfs.exploring import EXPLORED_MAX
from udfs.feedback import SHOWN_MAX

DEFAULTS: Final = Settings(KafkaSettings("", topic_prefix=""), RedisSettings(url="redis://nowhere"))
"""The default settings; the two addresses without a default do not affect retention."""


class Kept(NamedTuple):
    """A row: what is kept, for how long, by which setting or name, and what enforces it."""

    what: str
    how_long: str
    set_by: str
    enforced_by: str


def retention(settings: Settings) -> list[Kept]:
    """A row for everything that is kept of anybody, and for what lives beside it."""
    return [
        *(_topic(settings, topic) for topic in TOPICS),
        *_state(settings),
        *_redis(settings),
        *_features(settings),
        *_files(settings),
    ]


def _topic(settings: Settings, topic: Topic) -> Kept:
    what = f"topic `{settings.kafka.topic(topic.name)}`: {topic.holds}"
    place = f"`{topic.name}` in `schemas/topics.py`"
    if topic.retention_ms is not None:
        least, most = duration(topic.retention_ms), duration(topic.life_max_ms() or 0)
        by = "broker: `retention.ms`, `segment.ms`: whole segments go, when their last record may"
        return Kept(what, f"{least}; {most} at most", place, by)
    lag_ms = topics.compaction_lag_ms(settings.privacy.snapshots_kept_ms)
    place += ", `privacy.snapshots_kept_ms`"
    last, earlier = "without end", f"earlier ones {duration(lag_ms)} or more"
    by = "broker: compaction"
    if topic.name == topics.CONSENTS:
        gone_ms = topics.PURGED_EVERY_MS + topics.compacted_ms(lag_ms)
        key_ms = topics.PURGED_EVERY_MS + topics.purged_key_ms(lag_ms)
        last += f", of an erased user until {duration(settings.tombstone_ms())} after the erasure; then the records "
        last += f"go within {duration(gone_ms)}, the bare key within {duration(key_ms)}"
        earlier += f", {duration(topics.compacted_ms(lag_ms))} at most"
        place += ", `privacy.tombstone_ms`"
        by += ", `freshet erase purge-consents`, to be run daily"
    return Kept(what, f"the last record of each key {last}; {earlier}", place, by)


def _state(settings: Settings) -> list[Kept]:
    profile, due = settings.profile, "due index of the job"
    dedupe = (
        f"the last {profile.event_ids_max} events, of the {{0}} before the newest and of one day more, and with the "
        "profile; what is {0} older is too late; without personalisation, {0} after the last event"
    )
    return [
        Kept(
            "profile, in state",
            f"{duration(profile.idle_profile_ttl_ms)} after the last event; until consent ends, if that is earlier",
            "`profile.idle_profile_ttl_ms`",
            due,
        ),
        Kept(
            "profile of a session, in state",
            f"{duration(profile.session_gap_ms)} after the last event",
            "`profile.session_gap_ms`",
            due,
        ),
        Kept(
            "items met, in state: checksums of item ids",
            f"the last {profile.had_items_max}, and with the profile",
            "`profile.had_items_max`",
            "rule of the profile, at each event",
        ),
        Kept(
            "lists seen, in state: positions seen, clicked and bought, no items; with the purpose `measure` only",
            f"the last {SHOWN_MAX}, until the first refresh after {duration(SHOWN_KEPT_MS)}, and with the profile",
            "`SHOWN_KEPT_MS` in `udfs/due.py`",
            "rule of the profile, at each event that names a list; due index of the job",
        ),
        Kept(
            "explored lists, in state: items that could be drawn, and the draws; with the purpose `measure` only",
            f"the last {EXPLORED_MAX}, until the first refresh after {duration(SHOWN_KEPT_MS)}, and with the profile",
            "`SHOWN_KEPT_MS` in `udfs/due.py`",
            "rule of exploration, at each list; due index of the job",
        ),
        Kept(
            "dedupe window, in state: hashes of events",
            dedupe.format(duration(profile.dedupe_horizon_ms)),
            "`profile.event_ids_max`, `profile.dedupe_horizon_ms`",
            "rule of the profile, at each event",
        ),
        Kept(
            "checkpoints and savepoints",
            f"{duration(settings.privacy.snapshots_kept_ms)} at most",
            "`privacy.snapshots_kept_ms`; how many checkpoints: `flink-conf.yaml`",
            "Flink deletes checkpoints that newer ones replace; whoever takes a savepoint deletes it",
        ),
    ]


def _redis(settings: Settings) -> list[Kept]:
    tombstone, ttl = duration(settings.tombstone_ms()), "Redis: TTL of the key"
    return [
        Kept(
            "list of a user, with the items that they met and bought last",
            f"{duration(settings.refresh.list_ttl_ms)} after it was written, or {settings.refresh.idle_share:.0%} of "
            "the time since the last event, if that is longer; until the profile or consent ends, if that is earlier",
            "`refresh.list_ttl_ms`, `refresh.idle_share`",
            ttl,
        ),
        Kept(
            "list of a session, with the items met in it",
            f"{duration(settings.profile.session_gap_ms)} after it was written",
            "`profile.session_gap_ms`",
            ttl,
        ),
        Kept(
            "last decision on consent, in state: level, purposes, place, no more",
            "until the user is erased, or the record in `consents` is taken away",
            "erasure, or a record without a value",
            "rule of the job, at that record",
        ),
        Kept(
            "consent key",
            f"as long as the consent holds, and {tombstone} after it has expired or was withdrawn",
            "the record's `expires_at`, `privacy.tombstone_ms`",
            ttl,
        ),
        Kept("tombstone of an erased user", tombstone, "`privacy.tombstone_ms`", ttl),
        Kept(
            "popular lists (nobody's own)",
            f"{duration(settings.popularity.list_ttl_ms)} after they were last published",
            "`popularity.list_ttl_ms`",
            ttl,
        ),
        Kept(
            "lists of similar items (nobody's own)",
            f"{duration(settings.learn.similar_ttl_ms)} after they were last published",
            "`learn.similar_ttl_ms`",
            ttl,
        ),
        Kept(
            "list of trending items (nobody's own)",
            f"{duration(settings.learn.trending_ttl_ms)} after it was last published",
            "`learn.trending_ttl_ms`",
            ttl,
        ),
        Kept(
            "online model, in state and Redis: counts of items and of pairs of items, without users",
            "half of what was learned is left after 30 days, a thousandth after 300",
            "`PAIR_HALF_LIFE_MS` in `models/online/dimensions.py`",
            "decay of the counts",
        ),
    ]


def _features(settings: Settings) -> list[Kept]:
    tombstone, by = (
        duration(settings.tombstone_ms()),
        "Redis: TTL of the key; `freshet features push`, to be kept running",
    )
    return [
        Kept(
            "features and profile of a user, in the Redis of Feast; only if `freshet features push` is used",
            f"{duration(settings.features.ttl_ms)} after the last event; until consent ends, if that is earlier",
            "`features.ttl_ms`",
            by,
        ),
        Kept(
            "consent of a user, in the Redis of Feast: level, purposes, place; only with `freshet features push`",
            f"as long as the consent holds, and {tombstone} after it has expired or was withdrawn",
            "the record's `expires_at`, `privacy.tombstone_ms`",
            by,
        ),
    ]


def _files(settings: Settings) -> list[Kept]:
    return [
        Kept(
            "exports, for training or measurement, with the features computed from them",
            f"{duration(settings.export.retention_days * DAY_MS)} after they were written, however old the events",
            "`export.retention_days`",
            "`freshet export rewrite`, to be run daily",
        )
    ]


def duration(ms: int) -> str:
    """A duration in whole units.

    >>> duration(3 * 86_400_000), duration(1_800_000), duration(1_500), duration(86_400_000 + 3_660_000)
    ('3 days', '30 minutes', '1500 ms', '1 day 1 hour 1 minute')
    """
    if ms % 1_000 or not ms:
        return f"{ms} ms"
    parts = []
    for unit_ms, unit in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute"), (1_000, "second")):
        number, ms = divmod(ms, unit_ms)
        if number:
            parts.append(f"{number} {unit}{'' if number == 1 else 's'}")
    return " ".join(parts)


def page(settings: Settings, source: str) -> str:
    """The table with its heading; `source` names the settings."""
    rows = [Kept("what", "how long", "set by", "enforced by"), *retention(settings)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [
            "# What is kept, and for how long",
            "",
            f"Written by `freshet retention`, from {source}.",
            "",
            lines[0],
            "|---|---|---|---|",
            *lines[1:],
            "",
            "A withdrawal or an erasure does not wait for all of this: profile and list go at once, lines of exports",
            f"with the next rewrite, those of erased users leave `{settings.kafka.topic(topics.EVENTS)}` with",
            "`freshet erase rewrite-events`; the rest, and older snapshots, at their time.",
        ]
    )
