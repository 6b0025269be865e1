"""Writes small files so that they are never half: beside themselves, synced and renamed."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Replace the file and wait until it is on disk, if `synced`. Raises OSError.

    One that is not synced outlives this process, but perhaps not its machine.
    """
    beside = path.with_name(path.name + ".new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        if synced:
            os.fsync(file)
    finally:
        os.close(file)
    beside.replace(path)
    if synced:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
