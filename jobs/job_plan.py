"""What a job expects of a snapshot, from the job itself: its graph, the states of its code, and its settings."""

from collections.abc import Callable

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from jobs.declared_states import declared_states
from jobs.settings import Settings
from jobs.snapshots import state_backend
from jobs.state_report import JobPlan


def job_plan(
    env: StreamExecutionEnvironment, settings: Settings, pins: dict[str, str], wire: Callable[[], None]
) -> JobPlan:
    """The plan of the job that `wire` adds to `env`; `env` is empty afterwards, so that the job can be wired again."""
    wire()
    graph = env._generate_stream_graph(True).getJobGraph()
    listed = get_gateway().jvm.java.util.ArrayList  # Py4J cannot iterate over private collections
    vertices = listed(graph.getVerticesSortedTopologicallyFromSources())
    ids = [pair for vertex in vertices for pair in listed(vertex.getOperatorIDs())]
    names = {str(pair.getGeneratedOperatorID()): str(pair.getUserDefinedOperatorName()) for pair in ids}
    return JobPlan(names, declared_states(), pins, state_backend(env), settings.privacy.snapshots_kept_ms)
