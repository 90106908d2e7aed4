"""Makes the small savepoints in `tests/golden/savepoints`, one for each way in which state and code can differ.

    .venv/bin/python -m tests.support.golden_savepoints [NAME…]

At a release, add one named after it, and keep those of earlier releases. Each holds one invented user, whose pseudonym
was made with a key that is gone. The `_metadata` file holds all state, as it is small, and is kept compressed.
"""

import contextlib
import json
import lzma
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deploy.package import build
from jobs.locations import location_of, path_of
from tests.support.live import Live, start_live

FOLDER = Path(__file__).parents[1] / "golden" / "savepoints"
USER = "golden-user"
MEMORY_FIRST = {"execution.checkpointing.data-inline-threshold": "1 mb"}


class Variant(NamedTuple):
    """How a job differs from this checkout's: replaced texts of its sources and settings, and options of Flink."""

    sources: Mapping[str, tuple[str, str]] = {}
    options: tuple[str, ...] = ()
    settings: tuple[str, str] | None = None
    is_native: bool = False


VARIANTS = {
    "release-0.1.0": Variant(),
    "before-a-new-field": Variant(
        {"udfs/state.py": ("_encoder.encode(state)", "_encoder.encode(list(msgspec.structs.astuple(state)[:-1]))")}
    ),
    "with-an-operator-removed-since": Variant({"jobs/personalise.py": ('"popular-v1-{', '"trending-v1-{')}),
    "newer-state": Variant({"udfs/operators/user_keeper.py": ('"users-v1"', '"users-v2"')}),
    "process-mode": Variant(options=("-Dpython.execution-mode=process",)),
    "rocksdb-native": Variant(
        options=("-Dstate.backend.type=rocksdb", "-Dexecution.checkpointing.incremental=true"), is_native=True
    ),
    "8-buckets": Variant(settings=("[model]\n", "[job]\nbuckets = 8\n\n[model]\n")),
}


def make(names: list[str]) -> None:
    """Replace the savepoints of these names."""
    with tempfile.TemporaryDirectory(prefix="freshet-golden-") as folder:
        live = start_live(Path(folder) / "stack", flink_settings=MEMORY_FIRST)
        try:
            live.stack.rest.cancel(live.job_id)
            for name in names:
                _make(live, name, VARIANTS[name])
        finally:
            live.close()
            live.stack.stop()


def _make(live: Live, name: str, variant: Variant) -> None:
    settings = live.product.settings_path.with_name(f"{name}.toml")
    settings.write_text(live.product.settings_path.read_text().replace(*(variant.settings or ("", ""))))
    package = _package(live.stack.directory, variant)
    with contextlib.chdir(live.stack.directory):  # the client would import modules from its working directory
        live.job_id = _submit(live, settings, package, variant.options)
    live.stack.replace_task_managers()  # an interpreter imports a release once
    live.stack.rest.wait_running(live.job_id)
    user = f"{USER}-{name}"
    live.consent([user])
    live.interact(user, "item-00001")
    live.wait_for_version(user, 2)
    taken = path_of(stop_natively(live) if variant.is_native else live.stack.rest.stop_with_savepoint(live.job_id))
    [metadata] = taken.iterdir()
    packed = FOLDER / f"{name}.xz"
    packed.write_bytes(lzma.compress(metadata.read_bytes()))
    print(name, packed.stat().st_size, "bytes", flush=True)


def _package(folder: Path, variant: Variant) -> Path:
    packed = build(folder / "freshet.zip")
    changed = folder / "changed.zip"
    with zipfile.ZipFile(packed) as sources, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sources.namelist():
            text = sources.read(name)
            if name in variant.sources:
                old, new = map(str.encode, variant.sources[name])
                assert old in text, f"{name} no longer contains {old!r}"
                text = text.replace(old, new)
            archive.writestr(name, text)
    return changed


def _submit(live: Live, settings: Path, package: Path, options: tuple[str, ...]) -> str:
    files = ["-pyfs", str(package), "-pyexec", sys.executable, "-pyclientexec", sys.executable]
    job = ["-pym", "jobs.personalise", "--settings", str(settings), "--new-deployment"]
    return live.stack.flink_run([*options, *files, *job])


def stop_natively(live: Live) -> str:
    """Stop the job with a savepoint in the format of its backend; returns the savepoint's location."""
    body = json.dumps({"drain": False, "formatType": "NATIVE"}).encode()
    path = f"{live.stack.rest.url}/jobs/{live.job_id}"
    request = urllib.request.Request(f"{path}/stop", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        trigger = json.load(answer)["request-id"]
    live.stack.rest.wait_state(live.job_id, "FINISHED")
    operation = live.stack.rest.get(f"/jobs/{live.job_id}/savepoints/{trigger}")["operation"]
    return str(operation["location"])


def unpacked(name: str, folder: Path) -> str:
    """The golden savepoint, unpacked below `folder`; returns its path for Flink. Its age is that of the file."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "_metadata").write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
    return location_of(folder / name)


if __name__ == "__main__":
    make(sys.argv[1:] or list(VARIANTS))
