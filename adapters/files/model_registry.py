"""A registry of model versions: a folder, or a prefix in an object store, with ``name/sha256/`` for each version.

Each has ``manifest.json``, ``model.onnx`` and ``items.txt`` (:mod:`models.manifest`). `pyarrow.fs` reads and writes it:
a path, or a URI of any scheme that it knows (``file://``, ``s3://``, ``gs://`` …), with the credentials that it finds.
A version never changes. Its manifest is written last, so a version without one is not there yet.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow.fs

from schemas.errors import ModelError
from schemas.model_versions import Version, parse_version

MANIFEST: Final = "manifest.json"
GRAPH: Final = "model.onnx"
FILES: Final = (GRAPH, "items.txt", MANIFEST)
CHUNK_BYTES: Final = 1 << 20


class ModelRegistry:
    """The versions at `address`. Every method raises :class:`ModelError` if it cannot be reached, with the reason."""

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self._files, root = (
                pyarrow.fs.FileSystem.from_uri(address)
                if "://" in address
                else (pyarrow.fs.LocalFileSystem(), str(Path(address).absolute()))
            )
        except Exception as error:  # pyarrow raises its own errors, ValueError, or OSError
            raise self._unreachable(error) from None
        self._root = PurePosixPath(root)

    def versions(self) -> list[Version]:
        """All versions, by name, then by digest. A folder must be there; stores of objects have no empty prefixes."""
        self._require_folder()
        wanted = pyarrow.fs.FileSelector(str(self._root), allow_not_found=True, recursive=True)
        try:
            found = self._files.get_file_info(wanted)
        except Exception as error:  # as above
            raise self._unreachable(error) from None
        paths = (PurePosixPath(info.path).relative_to(self._root) for info in found if info.is_file)
        return sorted(
            version for path in paths if path.name == MANIFEST and (version := parse_version(str(path.parent)))
        )

    def manifest(self, version: Version) -> bytes | None:
        """The manifest of a version; None if there is no such version."""
        path = self._path(version, MANIFEST)
        try:
            if not self._files.get_file_info(path).is_file:
                return None
            with self._files.open_input_stream(path) as stream:
                return bytes(stream.read())
        except Exception as error:  # as above
            raise self._unreachable(error) from None

    def fetch(self, version: Version, folder: Path) -> None:
        """Copy a version into an existing `folder`; raises :class:`ModelError` if its graph has another digest."""
        self._require_folder()
        if self.manifest(version) is None:
            raise ModelError(f"{version} is not in {self.address}: `freshet model list` shows what is")
        for name in FILES:
            digest = hashlib.sha256()
            with (folder / name).open("wb") as copy:
                for chunk in self._chunks(self._path(version, name)):
                    digest.update(chunk)
                    copy.write(chunk)
            if name == GRAPH and digest.hexdigest() != version.sha256:
                raise ModelError(
                    f"{version} in {self.address}: {GRAPH} has sha256 {digest.hexdigest()}: it is damaged, "
                    "push it again"
                )

    def push(self, version: Version, folder: Path, manifest: bytes) -> bool:
        """Add the model in `folder` with a `manifest`, unless it is there already; returns whether it was added."""
        there = self.manifest(version)
        if there is not None:
            if there != manifest:
                raise ModelError(
                    f"{version} is in {self.address} with another manifest, and versions do not change: "
                    "give this model another name"
                )
            return False
        try:
            self._files.create_dir(self._path(version, "").rstrip("/"), recursive=True)
            for name in FILES:
                self._write(self._path(version, name), io.BytesIO(manifest) if name == MANIFEST else folder / name)
        except Exception as error:  # as above
            raise self._unreachable(error) from None
        return True

    def _require_folder(self) -> None:
        if not isinstance(self._files, pyarrow.fs.LocalFileSystem):
            return
        try:
            is_there = self._files.get_file_info(str(self._root)).type == pyarrow.fs.FileType.Directory
        except Exception as error:  # as above
            raise self._unreachable(error) from None
        if not is_there:
            raise ModelError(
                f"there is no folder {self.address} (model.versions): mount it, create it, or add a first version "
                "with `freshet model push`, which creates it"
            )

    def _write(self, path: str, source: Path | io.BytesIO) -> None:
        """Under another name first, so that nobody reads half a manifest."""
        opened = source if isinstance(source, io.BytesIO) else source.open("rb")
        with opened as read, self._files.open_output_stream(f"{path}.part") as stream:
            while chunk := read.read(CHUNK_BYTES):
                stream.write(chunk)
        self._files.move(f"{path}.part", path)

    def _chunks(self, path: str) -> Iterator[bytes]:
        try:
            with self._files.open_input_stream(path) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield bytes(chunk)
        except Exception as error:  # as above
            raise self._unreachable(error) from None

    def _path(self, version: Version, name: str) -> str:
        return f"{self._root}/{version}/{name}"

    def _unreachable(self, error: Exception) -> ModelError:
        told: Any = str(error).strip().partition("\n")[0] or type(error).__name__
        return ModelError(f"the versions in {self.address} (model.versions) cannot be reached: {told}")
