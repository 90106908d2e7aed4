"""What may be kept and shown of a user, told from the whole history by its slowest reading; nothing of udfs/ is used.

Times are in ms. Everything here is an upper bound: less may be kept or shown at any time, more never.
"""

from collections.abc import Iterable
from typing import NamedTuple

NONE, SESSION, FULL = 0, 1, 2
PURPOSES = ("personalise", "measure", "train")


class Decision(NamedTuple):
    """What a user decided. `at` is when it was appended to `consents`; `direct`: written to Redis, maybe only there."""

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
    """What is in force: `since` is the end of the last time in which less was, `until` is 0 where there is no end."""

    level: int = NONE
    purposes: int = 0
    since: int = 0
    until: int = 0

    def allows(self, appended: int) -> bool:
        """Whether what was appended then may be used."""
        return self.level > NONE and appended >= self.since and not self.ended_by(appended)

    def ended_by(self, now: int) -> bool:
        """Whether it has expired."""
        return 0 < self.until <= now


def standing(decisions: Iterable[Decision]) -> Standing:
    """What is in force after `decisions` of one user. The last one holds; a grant from before a no is none.

    A withdrawal that is in Redis and not in the topic has ended what may be shown, not yet what is kept: who is told
    `NotAcknowledged` is to call again. So a grant after it need not begin at nothing.
    """
    now, said_no, fenced = Standing(), 0, Standing()
    for decision in sorted(decisions, key=lambda each: each.at):
        if now.ended_by(decision.at):
            now = fenced = Standing()
        if decision.level == NONE:
            fenced = now if decision.direct and now.level else fenced if decision.direct else Standing()
            now, said_no = Standing(), max(said_no, decision.said_at)
        elif decision.said_at > said_no:
            before, fenced = now if now.level else fenced, Standing()
            goes_on = before.level > NONE and decision.level >= before.level and not before.ended_by(decision.at)
            since = before.since if goes_on else decision.at
            now = Standing(decision.level, decision.purposes, since, decision.expires_at)
    return now


def purpose_names(bits: int) -> list[str]:
    """The names of purposes."""
    return [name for place, name in enumerate(PURPOSES) if bits >> place & 1]
