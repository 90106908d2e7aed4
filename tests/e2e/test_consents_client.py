"""The library that records consents: an acknowledged withdrawal has already ended personalisation."""

import threading
import time

import pytest

from adapters.redis.address import RedisAddress
from deploy.local import product
from deploy.local.ports import free_port
from schemas import topics
from schemas.consents import ConsentChange
from schemas.errors import ConsentRefused, InvalidConsent, NotAcknowledged
from serving.consents import Consents
from serving.reader import Reader
from tests.support.documented import redis_rights
from tests.support.live import Live, consents_of

pytestmark = pytest.mark.privacy

ITEMS = [f"item-{number:05d}" for number in range(1, 60)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def with_a_list(live: Live, user: str) -> None:
    live.consent([user])
    live.interact(user, ITEMS[0])
    live.wait_for_version(user, 2)


@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.promise("acknowledged-withdrawal")
def test_no_response_is_personalised_after_acknowledged_withdrawal_with_clicks_in_flight(
    live: Live, consents: Consents, reader: Reader, erase: bool
):
    user = f"withdrawing-{erase}"
    with_a_list(live, user)
    for number in range(300):
        live.send(topics.INTERACTIONS, [(user.encode(), live.event(user, ITEMS[number % 50]))])
        if number == 150:
            acknowledged = consents.erase(user) if erase else consents.withdraw(user)
        if number >= 150:
            assert reader.recommend(user).reason == "popular"
    sent = sum(1 for _ in live.records(topics.INTERACTIONS))
    live.wait_until_accounted(sent)
    assert reader.recommend(user).reason == "popular" and live.list_of(user) is None
    [record] = [r for r in live.records(topics.CONSENTS) if (r.partition, r.offset) == tuple(acknowledged)[1:]]
    assert (record.key, record.timestamp) == (user.encode(), acknowledged.append_ts)
    state = live.states([user]).get(live.pseudonymiser.user(user))
    assert state is None if erase else state["profile"] is None


def test_redis_user_with_documented_rights_can_record_consents(live: Live):
    rights = redis_rights("recording consents")
    live.redis.execute_command("ACL", "SETUSER", "gateway", "on", ">hush", "~*", *rights)
    limited = consents_of(live, store=live.product.endpoints["redis"].replace("//", "//gateway:hush@"))
    try:
        limited.record(ConsentChange("lee", "full", now_ms()))
        limited.withdraw("lee")
        limited.erase("lee")
        limited.record(ConsentChange("lee", "full", now_ms() + 1))
    finally:
        limited.close()
        live.redis.execute_command("ACL", "DELUSER", "gateway")


@pytest.mark.promise("acknowledged-withdrawal")
def test_withdrawal_holds_while_the_job_is_down(live: Live, consents: Consents, reader: Reader):
    with_a_list(live, "mia")
    assert reader.recommend("mia").reason == "personalised"
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    try:
        consents.withdraw("mia")
        assert reader.recommend("mia").reason == "popular"
    finally:
        live.job_id = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
        live.stack.rest.wait_running(live.job_id)
    live.interact("mia", ITEMS[1])
    with_a_list(live, "noa")
    assert reader.recommend("mia").reason == "popular"


NARROWER = {
    "a level": {"level": "session"},
    "a purpose denied": {"level": "full", "denied": ["personalise"]},
    "nothing granted": {"level": "full", "granted": []},
    "another purpose only": {"level": "full", "granted": ["measure"]},
    "an end in the past": {"level": "full", "expires_at": 1_700_000_000_000},
    "a signal": {"level": "full", "gpc": True},
}


@pytest.mark.promise("acknowledged-withdrawal")
def test_narrowed_consent_holds_while_the_job_is_down(live: Live, consents: Consents, reader: Reader):
    users = {f"narrows-{number}": fields for number, fields in enumerate(NARROWER.values())}
    for user in users:
        with_a_list(live, user)
        assert reader.recommend(user).reason == "personalised"
    savepoint = live.stack.rest.stop_with_savepoint(live.job_id)
    try:
        for user, fields in users.items():
            consents.record(ConsentChange(user, ts=now_ms(), **fields))
            assert reader.recommend(user).reason == "popular", fields
    finally:
        live.job_id = product.submit(live.stack, live.product.settings_path, ("-s", savepoint))
        live.stack.rest.wait_running(live.job_id)


def test_broken_withdrawal_holds_and_broken_grant_withdraws_and_is_refused(
    live: Live, consents: Consents, reader: Reader
):
    for user, fields in {"bea-broken": {"level": "none"}, "cid-broken": {"level": "full"}}.items():
        with_a_list(live, user)
        broken = ConsentChange(user, ts=now_ms(), method="x" * 1_000, **fields)
        if fields["level"] == "none":
            consents.record(broken)
        else:
            with pytest.raises(InvalidConsent, match="counts as a withdrawal, which is in force"):
                consents.record(broken)
        assert reader.recommend(user).reason == "popular"
        [told] = [r.value for r in live.records(topics.CONSENTS) if r.key == user.encode()][-1:]
        assert b'"level":"none"' in told and b"unreadable_record" in told


def test_new_consent_after_direct_withdrawal_restores_lists(live: Live, consents: Consents):
    with_a_list(live, "oda")
    consents.withdraw("oda")
    consents.record(ConsentChange("oda", "full", now_ms()))
    live.interact("oda", ITEMS[2])
    assert live.wait_for_version("oda", 5).reason == "personalised"


def test_grant_from_before_the_withdrawal_is_refused(live: Live, consents: Consents):
    before = now_ms()
    consents.withdraw("pam")
    with pytest.raises(ConsentRefused):
        consents.record(ConsentChange("pam", "full", before))
    assert b"pam" not in [r.key for r in live.records(topics.CONSENTS) if b'"full"' in r.value]


def test_withdrawal_is_recorded_but_not_acknowledged_while_redis_is_down(live: Live):
    away = consents_of(live, store=f"redis://127.0.0.1:{free_port()}")
    try:
        with pytest.raises(NotAcknowledged, match="is recorded in the topic"):
            away.withdraw("quin")
        with pytest.raises(NotAcknowledged, match="the erasure is recorded in the topic"):
            away.erase("quill")
        with pytest.raises(NotAcknowledged, match="nothing was written"):
            away.record(ConsentChange("quin", "full", now_ms()))
    finally:
        away.close()
    assert [b'"none"' in r.value for r in live.records(topics.CONSENTS) if r.key == b"quin"] == [True]


def test_withdrawal_reaching_too_few_replicas_is_not_acknowledged(live: Live):
    replicated = consents_of(live, RedisAddress((live.product.endpoints["redis"],), replicas=1))
    try:
        with pytest.raises(NotAcknowledged, match="0 of 1 replicas"):
            replicated.withdraw("rob")
    finally:
        replicated.close()


def test_withdrawal_during_concurrent_writes_leaves_no_list(live: Live, consents: Consents):
    with_a_list(live, "sue")
    stop = threading.Event()
    sender = live.producer()
    name = live.settings.kafka.topic(topics.INTERACTIONS)

    def storm() -> None:
        while not stop.is_set():
            sender.send(name, key=b"sue", value=live.event("sue", ITEMS[3]))
            time.sleep(0.001)

    clicking = threading.Thread(target=storm)
    clicking.start()
    try:
        for _ in range(5):
            consents.withdraw("sue")
            assert all(live.list_of("sue") is None for _ in range(200))
            consents.record(ConsentChange("sue", "full", now_ms() + 1))
    finally:
        stop.set()
        clicking.join()
        sender.close()
