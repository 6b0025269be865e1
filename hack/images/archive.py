"""Writes image layers and docker-archives with the standard library alone.

The same content gives the same bytes, and so the same digests, whenever it is written.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entries = dict[str, "Path | str | None"]
"""A layer by its names: a Path is copied from there (of a folder only that it is one), a str is
the target of a symbolic link, None a folder."""
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Config:
    """What a container of the image starts with."""

    entrypoint: Sequence[str]
    command: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    user: str = ""
    directory: str = "/"


def layer(out: Path, entries: Entries) -> None:
    """Write a tar of the entries and the folders above them, all root's and without times.

    Anyone may read everything, whatever the rights it had here, and write in tmp and var/tmp.
    """
    entries = _folders(entries) | entries
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, source in sorted(entries.items()):
            entry = tarfile.TarInfo(name)
            if source is None or (isinstance(source, Path) and source.is_dir()):
                entry.type = tarfile.DIRTYPE
                entry.mode = 0o1777 if name in ("tmp", "var/tmp") else 0o755
                tar.addfile(entry)
            elif isinstance(source, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, source
                tar.addfile(entry)
            else:
                entry.mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
                entry.size = source.stat().st_size
                with source.open("rb") as content:
                    tar.addfile(entry, content)


def tree(folder: Path, prefix: str) -> Entries:
    """Return a folder's whole content as entries of a layer below `prefix`."""
    entries: Entries = {prefix: None}
    for path in folder.rglob("*"):
        name = f"{prefix}/{path.relative_to(folder)}"
        entries[name] = str(path.readlink()) if path.is_symlink() else path
    return entries


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its name, with layers that are plain tars, the lowest first."""

    name: str
    config: Config
    layers: Sequence[Path]


def docker_archive(out: Path, images: Sequence[Image]) -> bool:
    """Write images as `docker load` and `ctr images import` take them, shared layers once.

    Tell whether anything was written: an archive that holds just these stays as it is.
    """
    layers = {digest(file): file for image in images for file in image.layers}
    configs, manifest = {}, []
    for image in images:
        digests = [digest(file) for file in image.layers]
        config = json.dumps(_config(image.config, digests), sort_keys=True).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        configs[name] = config
        members = [f"{found}.tar" for found in digests]
        manifest.append({"Config": name, "RepoTags": [image.name], "Layers": members})
    listed = json.dumps(manifest).encode()
    if out.exists() and _first(out) == listed:
        return False
    partial = out.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in {"manifest.json": listed, **configs}.items():
            add(tar, name, content)
        for found, file in layers.items():
            entry = tarfile.TarInfo(f"{found}.tar")
            entry.size = file.stat().st_size
            with file.open("rb") as layer_content:
                tar.addfile(entry, layer_content)
    partial.replace(out)
    return True


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a small file to a tar."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def digest(file: Path) -> str:
    """Return a file's SHA-256 in hex, read again only when another file has taken its place.

    Kept beside the file: a layer of hundreds of megabytes is hashed once.
    """
    kept = file.with_name(file.name + ".sha256")
    stat = file.stat()
    stamp = f"{stat.st_size} {stat.st_ino} "
    if kept.exists() and kept.read_text("ascii").startswith(stamp):
        return kept.read_text("ascii").removeprefix(stamp)
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    kept.write_text(stamp + found, encoding="ascii")
    return found


def _first(out: Path) -> bytes:
    """Return the first file of a tar: the manifest, in an archive of this module's."""
    with tarfile.open(out) as tar:
        member = tar.next()
        file = tar.extractfile(member) if member is not None else None
        return file.read() if file is not None else b""


def _folders(entries: Entries) -> Entries:
    return {str(folder): None for name in entries for folder in list(Path(name).parents)[:-1]}


def _config(config: Config, digests: Sequence[str]) -> dict[str, Any]:
    environment = {"PATH": PATH, **(config.environment or {})}
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {
            "Entrypoint": list(config.entrypoint),
            "Cmd": list(config.command),
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "User": config.user,
            "WorkingDir": config.directory,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{found}" for found in digests]},
    }
