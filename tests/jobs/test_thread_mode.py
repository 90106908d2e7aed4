"""Thread mode: Python in the JVM, where C code that asks Python for the state of its thread never returns."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.inference_server import ServedModel, rest_server
from tests.support.warning_job import STEPS

ROOT = Path(__file__).parents[2]
DEADLINE_S = 180


def test_warning_of_numpy_does_not_stop_the_job(tmp_path: Path) -> None:
    """One score of 1e39 from an inference server stopped all operators of the TaskManager, without an error."""
    served = ServedModel()
    served.fault = "overflow"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with rest_server(served) as url, (tmp_path / "out").open("w+") as out:
        command = [sys.executable, "-m", "tests.support.warning_job", url]
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            process.wait(DEADLINE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of its processes have ended
                os.killpg(process.pid, signal.SIGKILL)
        out.seek(0)
        said = out.read()
    assert process.returncode == 0, said
    assert [line.partition(":")[0] for line in said.splitlines() if line.startswith(STEPS)] == list(STEPS), said
    assert "thread: [[inf]]" in said
    assert "remote: True" in said, said
