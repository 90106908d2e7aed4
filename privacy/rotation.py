"""Rotates the key behind pseudonyms while everything runs (`freshet rotate`): start, relink, end.

From `start` on, both pseudonyms of a user are valid: the job moves a user at the first record that names them, and
`relink` names everybody who is in `consents`. The job reads the ring when it starts: stop it with a savepoint and
submit it again. Update frontends first, so that their withdrawals fence both pseudonyms.

`end` is refused while any user still has the old pseudonym, or any snapshot may still contain it.
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from adapters.kafka.job_session import JobSession
from adapters.secrets.key_rings import begin_rotation, end_rotation, load_key_ring, replace_key_ring
from jobs.clock import clock_ms
from jobs.savepoints import completed_ms
from jobs.settings import Settings
from privacy.consent_topic import recorded_changes
from privacy.rules.rotation import why_not_ended
from schemas.audit import KeyChange
from schemas.control import KeyCommand, KidsCommand, RelinkCommand
from schemas.errors import SettingsError
from schemas.pseudonyms import KeyRing
from schemas.receipts import KidsReceipt

MOVED_WITHIN_S = 600.0


def start(settings: Settings) -> None:
    """Add a second key to the ring."""
    path, ring = _ring(settings)
    rotating = begin_rotation(ring, clock_ms())
    _record_key_change(settings, "rotation_started", rotating.current, 0)
    replace_key_ring(rotating, path)
    _say(f"key {rotating.current} was added to the key ring beside key {rotating.previous}; next:")
    _say("1. bring the key ring to all frontends and gateways, and restart them")
    _say("2. freshet upgrade --settings … --flink …, so that the job reads the ring")
    _say("3. freshet rotate relink")


def relink(settings: Settings) -> None:
    """Have the job move all users, wait until it has finished, and record that in the ring."""
    path, ring = _ring(settings)
    if ring.previous is None:
        raise SettingsError("no rotation is in progress: begin with `freshet rotate start`")
    with JobSession(settings.kafka, settings.job.buckets) as session:
        sent = session.send_all((RelinkCommand(user) for user in _users(settings)), lambda n: _say(f"{n} users named"))
        _say(f"{sent} users named; waiting for the job")
        _wait_until_moved(session, ring)
    _record_key_change(settings, "relinked", ring.current, sent)
    replace_key_ring(msgspec.structs.replace(ring, relinked_at=clock_ms()), path)
    _say(f"no user is known under key {ring.previous} any more")


def _wait_until_moved(session: JobSession, ring: KeyRing) -> None:
    end, left_before = time.monotonic() + MOVED_WITHIN_S, -1
    while left := _users_by_kid(session)[str(ring.previous)]:
        if left != left_before:
            _say(f"{left} users are still known under key {ring.previous}")
            end, left_before = time.monotonic() + MOVED_WITHIN_S, left
        if time.monotonic() > end:
            raise SettingsError(
                f"{left} users have not moved from key {ring.previous} for {MOVED_WITHIN_S:g} s: was the job submitted "
                "again after `start`, with this key ring?"
            )
        time.sleep(1)


class RotationStatus(NamedTuple):
    """The state of a rotation: key ids, the number of users per key id, and why it cannot end."""

    current: int
    previous: int | None
    users: dict[str, int]
    why_not_ended: str | None


def rotation_status(settings: Settings) -> RotationStatus:
    """Ask the job for the state of the rotation."""
    _, ring = _ring(settings)
    with JobSession(settings.kafka, settings.job.buckets) as session:
        users = _users_by_kid(session)
    reason = None
    if ring.previous is not None:
        reason = why_not_ended(ring, users, settings.privacy.snapshots_kept_ms, clock_ms(), None)
    return RotationStatus(ring.current, ring.previous, dict(sorted(users.items())), reason)


def describe_rotation(status: RotationStatus) -> list[str]:
    """The status as lines of text.

    >>> describe_rotation(RotationStatus(2, 1, {"2": 7}, None))
    ['current key: 2; previous key: 1', '7 users are known under key 2', 'it can be ended']
    """
    lines = [f"current key: {status.current}; previous key: {status.previous or 'none, no rotation is under way'}"]
    lines += [f"{count} users are known under key {kid}" for kid, count in status.users.items()]
    return lines if status.previous is None else [*lines, status.why_not_ended or "it can be ended"]


def end(settings: Settings, snapshots: list[Path]) -> None:
    """Destroy the previous key, if nothing depends on it any more."""
    path, ring = _ring(settings)
    with JobSession(settings.kafka, settings.job.buckets) as session:
        users = _users_by_kid(session)
    oldest = oldest_snapshot_ms(snapshots) if snapshots else None
    if reason := why_not_ended(ring, users, settings.privacy.snapshots_kept_ms, clock_ms(), oldest):
        raise SettingsError(f"the rotation cannot end yet: {reason}")
    _record_key_change(settings, "rotation_ended", ring.previous or 0, 0)
    replace_key_ring(end_rotation(ring), path)
    _say(
        f"key {ring.previous} is no longer in {path}: destroy its copies; restart the job and frontends when convenient"
    )


def oldest_snapshot_ms(folders: list[Path]) -> int:
    """When the oldest checkpoint or savepoint below `folders` completed, in ms; now, if there is none."""
    return min(completed_ms(folders), default=clock_ms())


def _record_key_change(settings: Settings, change: KeyChange, kid: int, users: int) -> None:
    """Record a step in the audit trail before it is done: an unrecorded step would be worse."""
    with JobSession(settings.kafka, settings.job.buckets) as session:
        session.send(KeyCommand(0, "key", change, kid, users))


def _users_by_kid(session: JobSession) -> Counter[str]:
    users: Counter[str] = Counter()
    for answer in session.every_bucket(KidsCommand, KidsReceipt):
        users.update(answer.users)
    return users


def _users(settings: Settings) -> Iterator[str]:
    """Each user who has a record in `consents`, once."""
    seen = set[str]()
    for recorded in recorded_changes(settings):
        user = recorded.change.user_id
        if user not in seen:
            seen.add(user)
            yield user


def _ring(settings: Settings) -> tuple[Path, KeyRing]:
    if settings.privacy.key_ring is None:
        raise SettingsError(
            "a rotation needs the key ring in a file: set key_ring in the tenant file (else privacy.key_ring)"
        )
    return Path(settings.privacy.key_ring), load_key_ring(settings.privacy.key_ring)


def _say(line: str) -> None:
    print(line, flush=True)
