"""Decides when a rotation may end: when nothing is left that only the old key can link to a person."""

from collections.abc import Mapping

from schemas.pseudonyms import KeyRing
from schemas.topics import DAY_MS


def why_not_ended(
    ring: KeyRing, users_by_kid: Mapping[str, int], snapshots_kept_ms: int, now_ms: int, oldest_snapshot_ms: int | None
) -> str | None:
    """Why the rotation of `ring` cannot end yet, or None.

    `oldest_snapshot_ms` is when the oldest snapshot was taken, if known; otherwise one may be as old as
    `snapshots_kept_ms`. A snapshot from before all users were moved would bring users back under the old pseudonym.
    """
    if ring.previous is None:
        return "no rotation is under way"
    if left := users_by_kid.get(str(ring.previous), 0):
        return f"{left} users are still known under key {ring.previous}: run `relink`"
    if not ring.relinked_at:
        return "run `relink`: users who have done nothing since may be known under the old pseudonym in Redis"
    oldest_ms = now_ms - snapshots_kept_ms if oldest_snapshot_ms is None else oldest_snapshot_ms
    if oldest_ms < ring.relinked_at:
        if oldest_snapshot_ms is not None:
            return "a snapshot from before `relink` was done is still there: delete it first"
        days = (ring.relinked_at - oldest_ms) / DAY_MS
        return f"for another {days:.1f} days a snapshot from before `relink` was done may be restored"
    return None
