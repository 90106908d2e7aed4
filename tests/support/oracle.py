"""What may be kept and shown of a user, recomputed from the whole history; uses nothing of udfs/.

Times are in ms. All results are upper bounds: the product may keep or show less at any time, never more.
"""

from collections.abc import Iterable
from typing import NamedTuple

NONE, SESSION, FULL = 0, 1, 2
PURPOSES = ("personalise", "measure", "train")


class Decision(NamedTuple):
    """A user's decision. `at`: when appended to `consents`; `direct`: written to Redis, maybe only there.

    At the level none, `purposes` are those granted without personalisation.
    """

    user: str
    at: int
    level: int
    said_at: int
    purposes: int = 0
    expires_at: int = 0
    erase: bool = False
    absent: bool = False
    direct: bool = False


class Standing(NamedTuple):
    """What is in force: `since` is the last time at which it widened, `until` is 0 if there is no end."""

    level: int = NONE
    purposes: int = 0
    since: int = 0
    until: int = 0
    alone: int = 0

    def allows(self, appended: int) -> bool:
        """Whether data appended at that time may be used."""
        return (self.level > NONE or self.alone > 0) and appended >= self.since and not self.ended_by(appended)

    def ended_by(self, now: int) -> bool:
        """Whether it has expired by then."""
        return 0 < self.until <= now


def standing(decisions: Iterable[Decision]) -> Standing:
    """What is in force after `decisions` of one user. The last one wins; a grant dated before a denial is void.

    This includes two limits of the product. A withdrawal that is in Redis and not in the topic has ended what may be
    shown, not yet what is kept: a caller that gets `NotAcknowledged` must retry. And nothing is kept about an erased
    user to recognise older grants: once they have consented again, a late grant from before the erasure is accepted.
    """
    now, kept, said_no, remembered, known_no = Standing(), Standing(), 0, True, 0
    for decision in sorted(decisions, key=lambda each: each.at):
        if now.ended_by(decision.at):
            now = kept = Standing()
        if decision.level == NONE:
            kept = (now if now.level else kept) if decision.direct else Standing()
            remembered = not (decision.direct or decision.erase or decision.absent)
            alone = 0 if decision.erase or decision.absent else decision.purposes
            if decision.said_at < known_no or (decision.said_at == known_no and not now.alone):
                alone = 0
            since = now.since if now.alone and alone else decision.at
            now = Standing(NONE, 0, since, decision.expires_at, alone) if alone else Standing()
            said_no = max(said_no, decision.said_at)
            if not decision.direct:
                known_no = max(known_no, decision.said_at) if remembered else 0
        elif decision.said_at > said_no:
            before = now if now.level else kept
            goes_on = 0 < before.level <= decision.level and not before.ended_by(decision.at)
            now = Standing(
                decision.level, decision.purposes, before.since if goes_on else decision.at, decision.expires_at
            )
            kept, said_no = Standing(), said_no if remembered else 0
    return now


def purpose_names(bits: int) -> list[str]:
    """The names of purposes."""
    return [name for place, name in enumerate(PURPOSES) if bits >> place & 1]
