"""Decides which events an export or the training history may contain: consent now, and consent then.

An event may be used for a purpose if its user's consent grants the purpose as it stands now, if it did when the event
was accepted, and if nothing came between: what was taken back once does not come back with a later consent. Where
compaction has dropped earlier consents, nobody knows any more whether something came between: then only what was
appended after those that are left counts, which errs on the side of the user.
"""

from collections.abc import Collection, Sequence

from schemas.consents import PURPOSES, Level, Purpose
from schemas.events import CleanEvent
from schemas.exports import ExportedEvent, LeftOut
from schemas.pseudonyms import ExportHashes
from udfs.consent import ConsentVerdict, apply_consent
from udfs.elements import ConsentRecord
from udfs.state import UserState


class ConsentStanding(UserState, array_like=True, gc=False):
    """A user's last consent. Since `since` (append time, ms) the purpose in question has been granted without a break.

    There is never a profile here. `export_name` is what exports call the user, where anybody asks.
    """

    since: int = 0
    erased: bool = False
    export_name: str = ""


class Standings:
    """The last consent of every user, for one purpose: what the job's own rules make of the `consents` topic.

    One entry a user, under every key by which the user may be asked for.
    """

    def __init__(self, purpose: Purpose) -> None:
        self.purpose: Purpose = purpose
        self._bit = 1 << PURPOSES.index(purpose)
        self._users: dict[str, ConsentStanding] = {}

    def __len__(self) -> int:
        return len(self._users)

    def note(self, keys: Sequence[str], change: ConsentRecord, export_name: str = "") -> None:
        """Take a record of `consents` into account; records of a partition come in their order."""
        standing = self._users.get(keys[0])
        if standing is None:
            standing = ConsentStanding(export_name=export_name)
            self._users.update(dict.fromkeys(keys, standing))
        unbroken = self._refusal(standing, change.append_ts) is None
        if apply_consent(standing, change) is ConsentVerdict.APPLIED:
            standing.profile = None
            standing.erased = change.erase
            if not unbroken:
                standing.since = change.append_ts

    def get(self, key: str) -> ConsentStanding | None:
        """The standing of a user, None where there is no record of them."""
        return self._users.get(key)

    def why_left_out(self, standing: ConsentStanding | None, appended: int, now_ms: int) -> LeftOut | None:
        """Why an event that was appended at `appended` may not be used now; None where it may. Times in ms."""
        if standing is None:
            return LeftOut.NO_CONSENT
        if reason := self._refusal(standing, now_ms):
            return reason
        return LeftOut.BEFORE_CONSENT if appended < standing.since else None

    def may_export(
        self, standing: ConsentStanding | None, purposes_then: Collection[str], appended: int, now_ms: int
    ) -> LeftOut | None:
        """The same for an event that was accepted under a consent to `purposes_then`."""
        reason = self.why_left_out(standing, appended, now_ms)
        if reason is None and self.purpose not in purposes_then:
            return LeftOut.NOT_GRANTED_THEN
        return reason

    def _refusal(self, standing: ConsentStanding, at_ms: int) -> LeftOut | None:
        if standing.erased:
            return LeftOut.ERASED
        if standing.level == Level.NONE and not standing.kept_for:
            return LeftOut.WITHDRAWN
        if 0 < standing.expires_at <= at_ms:
            return LeftOut.EXPIRED
        if standing.level == Level.SESSION:
            return LeftOut.SESSION_ONLY
        return None if standing.purposes & self._bit else LeftOut.NOT_GRANTED_NOW


def exported(event: CleanEvent, appended: int, name: str, hashes: ExportHashes) -> ExportedEvent:
    """`event` as a line of an export, in which its user is called `name`."""
    return ExportedEvent(
        name,
        event.type,
        event.ts,
        appended,
        event.item_id,
        None if event.session is None else hashes.again("session", event.session),
        None if event.request is None else hashes.again("request", event.request),
        event.position,
        event.value,
        event.currency,
        event.quantity,
        event.surface,
        event.scroll_pct,
        event.dwell_ms,
        event.context,
        event.schema_v,
    )
