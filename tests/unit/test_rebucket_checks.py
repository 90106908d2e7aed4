"""What `freshet rebucket` refuses before it reads state."""

import msgspec
import pytest

from jobs.deployment import Deployment
from jobs.rebucket import CLOCKS_DIFFER_MS, complaint_about_count, complaint_about_job, complaint_about_kind
from schemas.audit import SignedHead
from tests.support.vocabulary import BEGINNING

RECORDED = Deployment(4, 128, "thread", "freshet.", "", "routing", 1, {}, {}, {})


@pytest.mark.parametrize(("buckets", "told"), [(4, "4 buckets already"), (0, "between 1 and"), (129, "128")])
def test_number_that_is_not_allowed_is_refused_with_the_reason(buckets: int, told: str) -> None:
    assert told in (complaint_about_count(RECORDED, buckets) or "")


@pytest.mark.parametrize("buckets", [1, 3, 8, 128])
def test_any_other_number_up_to_the_maximum_parallelism_is_allowed(buckets: int) -> None:
    assert complaint_about_count(RECORDED, buckets) is None


def test_savepoint_that_did_not_stop_the_job_is_refused() -> None:
    assert complaint_about_kind(True) is None
    assert "flink stop --type canonical" in (complaint_about_kind(False) or "")


def test_savepoint_of_a_job_that_ran_on_is_refused() -> None:
    head = SignedHead(0, 1, 2, "", BEGINNING + CLOCKS_DIFFER_MS, "", "")
    assert complaint_about_job([head], BEGINNING) is None
    later = msgspec.structs.replace(head, at=head.at + 1)
    assert "would be lost" in (complaint_about_job([later, head], BEGINNING) or "")


def test_users_bits_stay_those_of_the_first_number_of_buckets() -> None:
    eight = RECORDED.rebucketed(8)
    assert (RECORDED.users_bits_by(), eight.users_bits_by(), eight.rebucketed(2).users_bits_by()) == (4, 4, 4)
    assert RECORDED.pins().keys() < eight.pins().keys()
