"""Runs the tests of the Java operators on Flink's test harness (`tests/java`); `tests/jobs` runs them in jobs."""

import re

from deploy.local.build_operators import maven

CLOSING_LINE = re.compile(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0$", re.MULTILINE)


def test_the_operators_in_java_pass_their_tests() -> None:
    said = maven("-o", "test")  # if a test fails, the error contains Maven's output
    closing_lines = list(CLOSING_LINE.finditer(said))
    assert closing_lines, said
    print(closing_lines[-1].group())
    assert int(closing_lines[-1].group(1)) > 0
