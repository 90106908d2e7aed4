"""The judge of trials: adds up pairs of gains, and decides when a model is certain to be worse. Pure."""

import math
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from models.paired_gains import (
    Counts,
    decode_pairs,
    encode_pairs,
    interval,
    is_better,
    is_worse,
    mean_gains,
    no_pairs,
)
from schemas.control import ModelCommand
from schemas.errors import SchemaError
from schemas.receipts import TrialReceipt, TrialVerdict
from udfs.rollout import Trial

STATE_VERSION: Final = 1
OVERALL: Final = 0.9
"""The part of the error that the test on all lists has; the rest is for windows."""
WINDOW_LISTS: Final = 10_000
"""A window has so many lists: enough to see a loss of a few percent."""


class JudgeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a model in shadow, or in a canary, is rolled back by itself."""

    tolerance: Annotated[float, Meta(ge=0, le=0.5)] = 0.02
    """A model whose lists gain less than the active model's by up to this share is left alone."""
    error: Annotated[float, Meta(gt=0, le=0.2)] = 0.01
    """The share of experiments in which a model is rolled back although it is within the tolerance, at most."""


@dataclass
class TrialStanding:
    """What is known of a trial. A verdict is final; `decided_at` and `changed_at` are in ms.

    `counts` are of all lists, `recent` of the window numbered `window`, which has up to :data:`WINDOW_LISTS`.
    """

    trial: Trial
    counts: Counts
    recent: Counts
    window: int = 1
    verdict: TrialVerdict = "undecided"
    decided_at: int = 0
    changed_at: int = 0
    commanded_at: int = 0

    def should_roll_back(self, now_ms: int, again_ms: int) -> bool:
        """Whether to command the rollback now: lists of a model that is worse are compared, and it was not just now."""
        if self.verdict != "worse" or now_ms - self.commanded_at < again_ms:
            return False
        self.commanded_at = now_ms
        return True

    def add(self, counts: Counts, settings: JudgeSettings, now_ms: int) -> bool:
        """Add counts; whether this was the moment at which the model was found worse.

        A model that is better so far may still become worse. One that is worse stays so.
        """
        self.counts, self.recent = self.counts + counts, self.recent + counts
        self.changed_at = now_ms
        if self.verdict == "worse":
            return False
        if is_worse(self.counts, settings.tolerance, OVERALL * settings.error) or self._has_become_worse(settings):
            self.verdict, self.decided_at = "worse", now_ms
            return True
        if self.recent.sum() >= WINDOW_LISTS:
            self.recent, self.window = no_pairs(), self.window + 1
        self.verdict = "better" if is_better(self.counts, settings.error) else "undecided"
        return False

    def _has_become_worse(self, settings: JudgeSettings) -> bool:
        """Whether this window alone shows it: what was good for weeks must not outweigh what is bad now.

        The errors of all windows, Σ 1 / k² = π² / 6, and that of the test on all lists add up to the error of settings.
        """
        share = (1 - OVERALL) * 6 / (math.pi * self.window) ** 2
        return is_worse(self.recent, settings.tolerance, share * settings.error)

    def receipt(self, settings: JudgeSettings, now_ms: int) -> TrialReceipt:
        """What is known, for people."""
        found, (served, _), trial = interval(self.counts, settings.error), mean_gains(self.counts), self.trial
        return TrialReceipt(
            trial.experiment,
            trial.served,
            trial.other,
            int(self.counts.sum()),
            round(served, 5),
            round(found.mean, 5),
            round(found.low, 5),
            round(found.high, 5),
            self.verdict,
            now_ms,
        )


class StoredStanding(msgspec.Struct, array_like=True, frozen=True):
    """The bytes of a standing."""

    version: int
    trial: Trial
    pairs: bytes
    verdict: TrialVerdict
    decided_at: int
    changed_at: int
    commanded_at: int
    recent: bytes
    window: int


def rollbacks(standing: TrialStanding, buckets: int, now_ms: int) -> list[bytes]:
    """The commands that end the experiment, one for each bucket. Carried out twice, or late, they change nothing."""
    request = f"judge-{now_ms}"
    return [
        msgspec.json.encode(ModelCommand(bucket, request, "end", experiment=standing.trial.experiment))
        for bucket in range(buckets)
    ]


def encode_standing(standing: TrialStanding) -> bytes:
    """Bytes for `trial-v1`."""
    pairs = encode_pairs(standing.counts)
    times = standing.decided_at, standing.changed_at, standing.commanded_at
    now = encode_pairs(standing.recent), standing.window
    return msgspec.msgpack.encode(StoredStanding(STATE_VERSION, standing.trial, pairs, standing.verdict, *times, *now))


def decode_standing(raw: bytes | None, trial: Trial) -> TrialStanding:
    """What is known of `trial`; nothing yet for None. Raises :class:`SchemaError` for other bytes."""
    if raw is None:
        return TrialStanding(trial, no_pairs(), no_pairs())
    try:
        stored = msgspec.msgpack.decode(raw, type=StoredStanding)
    except msgspec.DecodeError as error:
        raise SchemaError(f"this is no trial: {error}") from None
    if stored.version != STATE_VERSION:
        raise SchemaError(f"trial of version {stored.version}, this release reads {STATE_VERSION}")
    counts, recent = decode_pairs(stored.pairs), decode_pairs(stored.recent)
    times = stored.decided_at, stored.changed_at, stored.commanded_at
    return TrialStanding(stored.trial, counts, recent, stored.window, stored.verdict, *times)
