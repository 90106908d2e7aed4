"""What must hold in the Python interpreter of an operator before anything is computed in it.

In thread mode the interpreter runs in the JVM, where operators that are chained run in one Java thread and have a
Python state each. C code that asks Python for the state of its thread (``PyGILState_Ensure``) gets that of one of them;
in the others, it waits for a lock that its own thread holds, for ever. numpy asks when it reports overflow, division by
zero and invalid values, whether it warns, calls or raises; errors that are ignored it does not report. Python's own
warnings, also those from C, do not ask.
"""

import numpy as np


def prepare() -> None:
    """Have numpy ignore floating-point errors: results are inf or NaN, and callers check what they get.

    The first thing that an operator's `open` does. Holds for the context of its thread, and for threads that
    :func:`schemas.threads.in_background` starts from it.
    """
    np.seterr(all="ignore")
