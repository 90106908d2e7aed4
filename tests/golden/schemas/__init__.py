"""One interaction and one consent change, and their bytes in every input format as the first release read them.

These bytes are never regenerated: old records of producers must stay readable. A new format or field adds files.
"""

from pathlib import Path
from typing import Final

import msgspec

from deploy.publish_schemas import published_files
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
CONSENT_2: Final = msgspec.structs.replace(CONSENT, gpc=True)
"""With the field that came second; its files are `consent-2`."""


def schema_files() -> dict[str, bytes]:
    """A folder with the schemas of the framed bytes: 8 is the first release's, 10 today's."""
    published = published_files()
    return {
        "7.avsc": published["interaction.avsc"],
        "8.avsc": (Path(__file__).parent / "consent-1.avsc").read_bytes(),
        "9.desc": published["freshet.desc"],
        "10.avsc": published["consent.avsc"],
    }


def golden(name: str) -> bytes:
    """The bytes of a golden file."""
    return (Path(__file__).parent / f"{name}.bin").read_bytes()
