"""The vectorised UDF around ingest: rows out for rows in, and times that no time zone moves."""

import pandas as pd
import pytest

from tests.support.vocabulary import BEGINNING, a_raw_consent, a_raw_interaction, a_tombstone, an_ingest
from udfs.elements import Element, unpack
from udfs.ingest import RawRecord
from udfs.operators.ingest_udf import IngestUdf


def evaluated(records: list[RawRecord], zone: str | None = "UTC") -> pd.DataFrame:
    """What the UDF gives for `records`, with append times as PyFlink hands them over in `zone`."""
    columns = list(zip(*records, strict=True))
    append_time = pd.Series(pd.to_datetime(columns[3], unit="ms"))
    if zone is not None:
        append_time = append_time.dt.tz_localize(zone)
    topic, partition, offset, key, value = (pd.Series(columns[place]) for place in (0, 1, 2, 4, 5))
    shell = IngestUdf(lambda: an_ingest(buckets=4))
    shell.open(None)  # type: ignore[arg-type]
    return shell.eval(topic, partition, offset, append_time, key, value)


def elements(frame: pd.DataFrame) -> list[Element]:
    return [unpack(raw) for raw in frame["packed"] if raw is not None]


def test_there_are_as_many_rows_as_records_and_those_without_an_element_are_empty() -> None:
    records = [a_raw_interaction("ada", offset=n) for n in range(5)]
    frame = evaluated(records)
    assert list(frame.columns) == ["bucket", "packed"]
    assert len(frame) == 5
    assert frame["packed"].isna().tolist() == [False] + [True] * 4
    assert frame["bucket"].tolist()[1:] == [-1] * 4
    assert [len(element.events) for element in elements(frame)] == [5]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo", "America/New_York"])
def test_append_time_is_the_brokers_whatever_the_zone_of_the_session(zone: str | None) -> None:
    [element] = elements(evaluated([a_raw_interaction("ada"), a_raw_consent("ada")], zone))
    assert [record.append_ts for record in (*element.events, *element.consents)] == [BEGINNING, BEGINNING]


def test_a_missing_key_or_value_arrives_as_nothing() -> None:
    records = [a_tombstone("ada"), a_raw_interaction("ada")._replace(key=None)]
    [element] = elements(evaluated(records))
    assert (len(element.consents), len(element.events), element.rejects) == (1, 1, [])
