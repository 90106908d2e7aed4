"""The contents of a tenant's file: the settings that its job, gateways and producers must share."""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas import topics
from schemas.wire.writers import WriteSettings


class PseudonymSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys behind pseudonyms, and for how long withdrawals and erasures hold."""

    key_ring: str | None = None
    """The file with the keys behind pseudonyms, readable by every worker. By default the variable `FRESHET_KEY_RING`
    holds its text.
    """
    snapshots_kept_ms: Annotated[int, Meta(ge=topics.HOUR_MS)] = topics.CONSENTS_COMPACTION_LAG_MS
    """The age of the oldest checkpoint or savepoint that you will ever restore. Older ones are refused."""
    tombstone_ms: int | None = None
    """How long a withdrawal or erasure holds off records from before it. By default as short as is safe: a day longer
    than interactions and snapshots live. Shorter values are refused.
    """

    def tombstone_life_ms(self) -> int:
        """The life of a tombstone: longer than a record can be read again or a snapshot be restored."""
        return self.tombstone_ms or self.tombstone_least_ms()

    def tombstone_least_ms(self) -> int:
        """A day more than the maximum age of a record of `interactions` and of a snapshot."""
        return max(topics.interactions_life_max_ms(), self.snapshots_kept_ms) + topics.DAY_MS

    def complaint(self) -> str | None:
        """What is wrong with the combination of values."""
        if self.tombstone_life_ms() >= self.tombstone_least_ms():
            return None
        return (
            f"tombstone_ms must be at least {self.tombstone_least_ms()} (a day more than interactions live at most, "
            "and than snapshots_kept_ms): otherwise erased data could return"
        )


class TenantSettings(PseudonymSettings, frozen=True, forbid_unknown_fields=True):
    """The contents of a tenant file."""

    topic_prefix: str = "freshet."
    """Put before the name of every topic, so that several tenants can share a cluster: at most 237 ASCII letters,
    digits, dots, underscores and hyphens.
    """
    redis_prefix: str = ""
    """Put before every key in Redis."""
    input: WriteSettings = WriteSettings()
    """The format of the raw topics."""

    def complaint(self) -> str | None:
        """What is wrong, if anything."""
        return topics.complaint_of_prefix(self.topic_prefix) or super().complaint()
