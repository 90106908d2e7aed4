"""What must hold in the Python interpreter of an operator before anything is computed in it.

In thread mode the interpreter runs in the JVM, where operators that are chained run in one Java thread and have a
Python state each. C code that asks Python for the state of its thread (``PyGILState_Ensure``) gets that of one of them;
in the others, it waits for a lock that its own thread holds, for ever. numpy asks when it reports overflow, division by
zero and invalid values, whether it warns, calls or raises; errors that are ignored it does not report. Python's own
warnings, also those from C, do not ask.
"""

from typing import Any

import numpy as np

from schemas.log_lines import add_to_log_lines


def prepare() -> None:
    """Have numpy ignore floating-point errors: results are inf or NaN, and callers check what they get.

    The first thing that an operator's `open` does. Holds for the context of its thread, and for threads that
    :func:`schemas.threads.in_background` starts from it.
    """
    np.seterr(all="ignore")


def tell_log(operator: str, runtime_context: Any) -> None:
    """In thread mode, add the operator and its subtask to the log lines of its thread.

    In a worker process, any thread may process the elements of any operator. The subtask is asked of Flink itself:
    PyFlink 2.2 calls a method that Flink no longer has.
    """
    java_context = getattr(runtime_context, "_runtime_context", None)
    if java_context is not None:
        subtask = int(java_context.getTaskInfo().getIndexOfThisSubtask())
        add_to_log_lines({"freshet.operator": operator, "freshet.subtask": subtask})
