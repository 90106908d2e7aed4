"""Memory flags of Flink's Java processes, as computed by Flink itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyflink

from deploy.local.errors import StackError
from deploy.local.files import write_atomically
from deploy.local.flink_config import read_flat
from deploy.local.java import ENVIRONMENT, Java
from deploy.local.paths import CACHE

_RESULT = "BASH_JAVA_UTILS_EXEC_RESULT:"
_UTILS = "org.apache.flink.runtime.util.bash.BashJavaUtils"


def memory_arguments(java: Java, config: Path, libraries: Sequence[Path], command: str) -> tuple[list[str], list[str]]:
    """Java flags and `-D` settings for a process with this config.yaml.

    `command` is GET_JM_RESOURCE_PARAMS or GET_TM_RESOURCE_PARAMS. The result depends only on the sizes in the
    configuration, so it is cached under their hash: computing it starts a JVM, which takes most of a second.
    """
    relevant = {key: value for key, value in read_flat(config.read_text()).items() if _affects_memory(key)}
    question = json.dumps([pyflink.__version__, command, relevant], sort_keys=True)
    answer = CACHE / f"jvm-{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"
    if not answer.exists():
        flags, dynamic = _ask(java, config.parent, libraries, command)
        write_atomically(answer, json.dumps({"flags": flags, "dynamic": dynamic}))
    kept = json.loads(answer.read_text())
    return kept["flags"], kept["dynamic"]


def _affects_memory(key: str) -> bool:
    return ".memory." in key or key.startswith(("taskmanager.numberOfTaskSlots", "taskmanager.cpu"))


def _ask(java: Java, conf_directory: Path, libraries: Sequence[Path], command: str) -> tuple[list[str], list[str]]:
    utils = Path(pyflink.__file__).parent / "bin" / "bash-java-utils.jar"
    words = [_UTILS, command, "--configDir", str(conf_directory)]
    asked = java.command("utils", [utils, *libraries], [], words)
    done = subprocess.run(asked, env={**os.environ, **ENVIRONMENT}, check=False, capture_output=True, encoding="utf-8")
    lines = [line.removeprefix(_RESULT).split() for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode != 0 or len(lines) != 2:
        raise StackError(f"Flink did not accept the memory settings:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return lines[0], lines[1]
