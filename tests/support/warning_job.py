"""A thread-mode job on the mini cluster whose operator computes what numpy and Python warn about. Run as a script.

Its argument is the URL of a :class:`tests.support.inference_server.ServedModel`. Prints what each step returned: a step
that never returns stops the job for ever, so that the caller ends this process.
"""

import sys
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from pyflink.common import Configuration, Types
from pyflink.datastream import StreamExecutionEnvironment

from adapters.scoring.opening import open_client
from models.remote_scorer import Names, RemoteScorer
from schemas.threads import in_background
from tests.support.inference_server import ITEMS
from udfs.ingest import Ingest
from udfs.operators.ingest_operator import IngestOperator

STEPS = ("overflow", "divide", "cast", "warning", "warning from C", "thread", "onnx", "onnxruntime", "remote")


class WarningOperator(IngestOperator):
    """Opens as an operator of the product does, and takes one of :data:`STEPS` for each element."""

    def __init__(self, url: str) -> None:
        super().__init__(lambda: cast(Ingest, None))
        self._url = url

    def process_element(self, value: Any, ctx: Any) -> Iterator[Any]:
        warnings.simplefilter("always")
        yield f"{value}: {getattr(self, value.replace(' ', '_'))()}"

    def overflow(self) -> Any:
        return np.array([1e39], np.float32).tolist()

    def divide(self) -> Any:
        return (np.ones(1) / np.zeros(1)).tolist()

    def cast(self) -> Any:
        return np.array([1e300]).astype(np.int32).size

    def warning(self) -> Any:
        warnings.warn("of Python", stacklevel=1)

    def warning_from_C(self) -> Any:  # noqa: N802 - named by a step
        return np.array([1j]).astype(np.float64).tolist()

    def thread(self) -> Any:
        found: list[Any] = []
        in_background("test", lambda: found.append(self.overflow())).join()
        return found

    def onnx(self) -> Any:
        import onnx

        return onnx.__name__

    def onnxruntime(self) -> Any:
        from models.scorer import ort

        return ort.__name__

    def remote(self) -> Any:
        remote = RemoteScorer(open_client(self._url, "open-inference-rest", "m"), ITEMS, Names(), 5, 5_000)
        return np.isnan(remote.score(np.ones((1, 20), np.int32))[0]).all()


def main(url: str) -> None:
    configuration = Configuration()
    configuration.set_string("python.execution-mode", "thread")
    configuration.set_string("restart-strategy.type", "none")
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(1)
    steps = env.from_collection(list(STEPS), type_info=Types.STRING())
    said = steps.process(WarningOperator(url), output_type=Types.STRING())
    # As in the product's job, operators that share a Java thread: Python finds the state of one of them in it.
    one, two = (said.map(lambda line: line, output_type=Types.STRING()) for _ in range(2))
    done = one.union(two.filter(lambda line: False))
    with done.execute_and_collect("warnings") as results:
        for line in results:
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
