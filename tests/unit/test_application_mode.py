"""A submission by a JobManager waits for servers that are away, and for nothing else."""

from collections.abc import Callable

import pytest
from kafka.errors import KafkaError, NotLeaderForPartitionError, SaslAuthenticationFailedError

from jobs.application_mode import is_transient, patiently
from schemas.errors import FreshetError, KafkaUnreachable, SettingsError, StoreUnavailable


def refused_by(error: KafkaError) -> SettingsError:
    """What our checks raise for an error of Kafka's client."""
    try:
        try:
            raise error
        except KafkaError:
            raise SettingsError("the topics could not be inspected") from None
    except SettingsError as refusal:
        return refusal


def attempts(failures: list[FreshetError]) -> Callable[[], str]:
    def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "submitted"

    return attempt


def test_submission_is_repeated_until_servers_answer(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [KafkaUnreachable("Kafka is away"), StoreUnavailable("Redis is away")]
    assert patiently(attempts([*failures, refused_by(NotLeaderForPartitionError())]), 0) == "submitted"
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [f"not submitted yet, trying again in 0 s: {failure}" for failure in failures]


def test_what_waiting_does_not_mend_ends_the_submission() -> None:
    with pytest.raises(SettingsError, match="no such topic"):
        patiently(attempts([SettingsError("no such topic")]), 0)
    assert is_transient(NotLeaderForPartitionError()) and not is_transient(SaslAuthenticationFailedError())
    assert not is_transient(refused_by(SaslAuthenticationFailedError())), "a wrong password"
