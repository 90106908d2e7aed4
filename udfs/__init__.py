"""The rules of the job, and the operators that run them in Flink.

Flink unpacks the sources of a job for each attempt, and deletes them when the attempt ends. In thread mode, the
interpreter outlives that: what it has not imported by then, it would look for in the deleted folder, in every attempt
that follows. So the first import of our code in a worker, which is that of this package, copies all sources into
memory, and the interpreter imports from there as long as it lives.
"""

import sys
from typing import Final, cast

_UNPACKED: Final = "/python-dist-"
"""How the name of a folder begins that Flink makes for one attempt."""
_OURS: Final = ("adapters", "schemas", "models", "udfs", "jobs")


def _copy(root: str) -> bytes:
    """A zip of the files below `root`, a folder or a zip. Raises an error if files disappear while it reads them."""
    import io
    import zipfile
    from pathlib import Path

    folder = Path(root)
    if folder.is_file():
        return folder.read_bytes()

    def names() -> list[Path]:
        return sorted(path for name in _OURS for path in (folder / name).rglob("*") if path.is_file())

    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for path in (read := names()):
            archive.write(path, path.relative_to(folder))
    if names() != read:
        raise ImportError(f"{root} was deleted while the sources of the job were read: its attempt has ended")
    return copy.getvalue()


def _import_from(copy: bytes) -> None:
    """Have the interpreter import from the zip `copy` what it has not yet imported of our packages."""
    import os
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from zipimport import zipimporter

    file = os.memfd_create("freshet-sources")  # a file without a place on disk: goes when the process goes
    with os.fdopen(file, "wb", closefd=False) as writer:
        writer.write(copy)
    place = f"/proc/self/fd/{file}"
    top = zipimporter(place)

    class KeptSources(MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
            return top.find_spec(fullname) if fullname in _OURS else None

    sys.meta_path.insert(0, KeptSources())
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _OURS and module.__spec__ and hasattr(module, "__path__"):
            module.__path__[:] = [f"{place}/{name.replace('.', '/')}"]
            module.__spec__.loader = cast("Loader", zipimporter("/".join([place, *name.split(".")[:-1]])))


if _UNPACKED in __file__ and sys.platform == "linux":  # elsewhere, nothing keeps a file without a place on disk
    _import_from(_copy(__file__.rpartition("/udfs/")[0]))
