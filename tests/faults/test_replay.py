"""All of Online Retail, dirty rows included, while a TaskManager is killed: equal to a naive replay."""

import re
import threading

import pytest

from adapters.secrets.signing_keys import load_signing_key
from privacy.audit_verification import verification
from privacy.rules.audit_verify import Verification
from schemas import topics
from tests.support import retail
from tests.support.live import Live, start_live, until
from tests.support.raw_ids import places_of

RAW_ID = re.compile(rb"customer-\d{5}")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory):
    running = start_live(tmp_path_factory.mktemp("replay"), 2, {"parallelism.default": "2"})
    try:
        yield running
    finally:
        running.close()
        running.stack.stop()


@retail.needs_retail
@pytest.mark.promise("exactly-once", "account")
def test_replay_with_killed_task_manager_equals_naive_replay(live: Live):
    retail.consent_all(live)
    counts: list[int] = []
    sending = threading.Thread(target=lambda: counts.append(send_all(live)))
    sending.start()
    until(lambda: live.accounted() > 150_000, "a third of the replay")
    live.stack.kill_task_manager(0)
    sending.join()
    [sent] = counts
    account = retail.assert_equals_twin(live, sent)
    assert sent == 541_909
    assert account["rejected"]["missing_user"] > 130_000
    assert account["denied"] > 10_000


def send_all(live: Live) -> int:
    sender = live.producer()
    name, sent = live.settings.kafka.topic(topics.INTERACTIONS), 0
    for key, payload in retail.lines():
        sender.send(name, key=key, value=payload)
        sent += 1
        if sent % 20_000 == 0:
            sender.flush()
    sender.close()
    return sent


@retail.needs_retail
@pytest.mark.promise("audit-tamper")
def test_audit_trail_is_intact_after_killed_task_manager(live: Live):
    live.checkpoint()
    key = load_signing_key(live.settings.audit.signing_key)

    def whole() -> Verification | None:
        trail = verification(live.settings, [key.public], [])
        told = sum(chain.records for chain in trail.chains)
        return trail if told > 4_000 and all(chain.signed_seq >= 0 for chain in trail.chains) else None

    trail = until(whole, "the consents of all customers in the audit trail", pause_s=2)
    assert (trail.findings, trail.remarks) == ([], [])


@retail.needs_retail
@pytest.mark.promise("raw-ids-stay")
def test_raw_user_ids_appear_in_raw_topics_only(live: Live):
    live.checkpoint()
    assert RAW_ID.search(next(live.records(topics.INTERACTIONS)).key or b""), "the search finds what is there"
    assert places_of(live, RAW_ID) == []
