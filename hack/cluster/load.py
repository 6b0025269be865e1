"""Gives the container runtime the images it lacks, and of them only the layers it lacks.

An import writes every byte of its archive, so a change of a small layer would cost as much as the
whole image. Here the archive is turned into an OCI layout without what the store has already.
"""

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cluster.errors import ClusterError
from images.archive import add

Inside = Callable[[list[str]], list[str]]
_KIND = "application/vnd.oci.image."


@dataclass(frozen=True, slots=True)
class _Blob:
    """One piece of an image. `member` is its name in the archive; without one, `content` is it."""

    digest: str
    size: int
    kind: str
    content: bytes = b""
    member: str = ""

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size}

    @property
    def name(self) -> str:
        return f"blobs/sha256/{self.digest.removeprefix('sha256:')}"


@dataclass(frozen=True, slots=True)
class _Image:
    name: str
    architecture: str
    manifest: _Blob
    parts: tuple[_Blob, ...]


def load(archive: Path, inside: Inside) -> list[tuple[str, int]]:
    """Import a docker-archive of plain tars; return its images with the bytes that were sent.

    An image that the store has as it is costs nothing. Raises ClusterError.
    """
    try:
        with tarfile.open(archive) as tar:
            images = _read(tar, archive)
            return [(image.name, _import(tar, image, inside)) for image in images]
    except tarfile.ReadError as error:
        raise ClusterError(f"{archive}: {error}, wanted a docker-archive") from error


def _import(tar: tarfile.TarFile, image: _Image, inside: Inside) -> int:
    if _ctr(inside, "images", "ls", f"name=={image.name}").find(image.manifest.digest) >= 0:
        return 0
    stored = set(_ctr(inside, "content", "ls", "--quiet").split())
    lacking = [blob for blob in image.parts if blob.digest not in stored]
    try:
        return _send(tar, image, lacking, inside)
    except ClusterError:
        # The store may have dropped a layer since it was asked.
        return _send(tar, image, image.parts, inside)


def _send(
    tar: tarfile.TarFile, image: _Image, blobs: list[_Blob] | tuple[_Blob, ...], inside: Inside
) -> int:
    command = inside(["ctr", "images", "import", "-"])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _write_layout(tar, image, blobs, process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass
        said = process.stdout.read().decode()
    if process.returncode != 0:
        raise ClusterError(f"{image.name}: the import failed: {said.strip()}")
    return sum(blob.size for blob in blobs)


def _write_layout(
    tar: tarfile.TarFile, image: _Image, blobs: list[_Blob] | tuple[_Blob, ...], to: IO[bytes]
) -> None:
    named = {
        **image.manifest.descriptor,
        "platform": {"architecture": image.architecture, "os": "linux"},
        "annotations": {"io.containerd.image.name": image.name},
    }
    index = {"schemaVersion": 2, "manifests": [named]}
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.GNU_FORMAT) as out:
        add(out, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        add(out, "index.json", json.dumps(index).encode())
        add(out, image.manifest.name, image.manifest.content)
        for blob in blobs:
            if not blob.member:
                add(out, blob.name, blob.content)
                continue
            entry = tarfile.TarInfo(blob.name)
            entry.size = blob.size
            out.addfile(entry, tar.extractfile(blob.member))


def _read(tar: tarfile.TarFile, archive: Path) -> list[_Image]:
    try:
        listed = json.loads(_content(tar, "manifest.json"))
    except KeyError:
        raise ClusterError(f"{archive}: saw no manifest.json, wanted a docker-archive") from None
    return [_image(tar, archive, each) for each in listed]


def _image(tar: tarfile.TarFile, archive: Path, listed: dict[str, Any]) -> _Image:
    config = _blob(_content(tar, listed["Config"]), "config.v1+json")
    told = json.loads(config.content)
    digests = told["rootfs"]["diff_ids"]
    layers = []
    for member, digest in zip(listed["Layers"], digests, strict=True):
        file = tar.extractfile(member)
        # The digests in the configuration are those of plain tars.
        if file is None or file.read(2) == b"\x1f\x8b":
            raise ClusterError(f"{archive}: {member}: wanted a layer that is a plain tar")
        size = tar.getmember(member).size
        layers.append(_Blob(digest, size, f"{_KIND}layer.v1.tar", member=member))
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_KIND}manifest.v1+json",
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    body = json.dumps(manifest, sort_keys=True).encode()
    name, architecture = listed["RepoTags"][0], told["architecture"]
    return _Image(name, architecture, _blob(body, "manifest.v1+json"), (config, *layers))


def _blob(content: bytes, kind: str) -> _Blob:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return _Blob(digest, len(content), _KIND + kind, content)


def _content(tar: tarfile.TarFile, member: str) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise KeyError(member)
    return file.read()


def _ctr(inside: Inside, *arguments: str) -> str:
    result = subprocess.run(inside(["ctr", *arguments]), capture_output=True, text=True)
    if result.returncode != 0:
        raise ClusterError(f"`ctr {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout
