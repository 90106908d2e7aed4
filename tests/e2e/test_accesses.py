"""Frontend reads in the audit trail: all are counted, some or all are recorded with their user."""

import json

import pytest

from adapters.kafka.settings import python_kafka_options
from adapters.secrets.key_rings import load_key_ring
from schemas import topics
from serving.accesses import AccessLog
from serving.reader import Reader
from tests.support.live import Live, until


@pytest.mark.parametrize(("share", "role"), [(0.0, "frontend that counts"), (1.0, "frontend that tells all")])
def test_reads_are_audited_by_role_and_purpose(live: Live, share: float, role: str):
    user = f"read-{share}"
    live.consent([user])
    live.interact(user, "item-00009")
    live.wait_for_version(user, 2)
    log = AccessLog(python_kafka_options(live.settings.kafka), role=role, purpose="recommend", share=share, every_s=0.1)
    ring = load_key_ring(live.product.endpoints["key_ring"])
    reader = Reader(live.product.endpoints["redis"], ring, on_read=log.note)
    for _ in range(7):
        assert reader.recommend(user).reason == "personalised"
        reader.recommend("somebody-without-a-list")
    log.close()
    reader.close()

    def told() -> list[dict]:
        live.checkpoint()
        found = [json.loads(record.value) for record in live.records(topics.AUDIT) if role.encode() in record.value]
        return found if sum(record.get("reads", 1) for record in found) >= 7 else []

    found = until(told, "the reads in the trail", pause_s=1)
    assert sum(record.get("reads", 1) for record in found) == 7
    named = {record.get("pseudonym") for record in found}
    assert named == ({live.pseudonymiser.user(user)} if share else {None})


def test_invalid_share_is_refused(live: Live):
    with pytest.raises(ValueError, match="between 0 and 1"):
        AccessLog({}, role="r", purpose="p", share=1.5)
