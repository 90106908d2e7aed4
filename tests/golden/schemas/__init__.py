"""One interaction and one consent change, and their bytes in every input format as the first release read them.

The bytes are never made anew: what a producer once wrote must be readable for ever. A new format adds files.
"""

from pathlib import Path
from typing import Final

from schemas.consents import ConsentChange
from schemas.events import Interaction

INTERACTION: Final = Interaction(
    event_id="0190f2a4-7c1e-7b3a-9d2e-3f5a6b7c8d9e",
    type="purchase",
    ts=1_767_225_600_000,
    user_id="ada",
    session_id="s-1",
    item_id="tea-42",
    position=3,
    value=12.5,
    currency="EUR",
    quantity=2,
    surface="home",
    request_id="r-77",
    query="grüner tee",
    scroll_pct=40.0,
    dwell_ms=1_500,
    context={"device": "phone"},
    schema_v=2,
)
CONSENT: Final = ConsentChange(
    user_id="ada",
    level="full",
    ts=1_767_225_600_000,
    granted=["personalise", "measure"],
    denied=[],
    method="banner",
    notice_version="2026-01",
    jurisdiction="EU",
    expires_at=1_798_761_600_000,
    erase=True,
    tcf="CPXxRfAPXxRfA",
    gpp="DBAA",
    schema_v=2,
)
SCHEMA_FILES: Final = {"7.avsc": "interaction.avsc", "8.avsc": "consent.avsc", "9.desc": "freshet.desc"}
"""The schema ids of the framed bytes: the file of each in a directory of schemas, and the published one it is."""


def golden(name: str) -> bytes:
    """The bytes of a golden file."""
    return (Path(__file__).parent / f"{name}.bin").read_bytes()
