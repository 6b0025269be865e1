"""Makes the images localhost/weir:dev and localhost/tiny-vllm:dev without registry or Docker.

    .venv/bin/python hack/images/build.py

Writes one docker-archive with both and prints its path. Three layers, each made anew only when
what it is made of has changed: this machine's Python, the locked dependencies, Weir's own code.
"""

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images import base, dependencies
from images.archive import Config, Entries, Image, docker_archive, layer, tree

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ["router", "operator", "lab", "cli"]
SITE, CODE = "/opt/weir/site", "/opt/weir/code"
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": f"{CODE}:{SITE}",
    # `-m` would look for modules where the process happens to stand.
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}
_KEPT = 2
"""Layers of a kind that stay in the cache: this one's and the last one's."""
_SOURCES = ("router", "operator", "pyproject.toml", "README.md", "LICENSE")
Make = Callable[[Path], Entries]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="default: weir.tar in the user's cache")
    args = parser.parse_args()
    began = time.monotonic()
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    out = args.out or cache / "weir.tar"
    with (cache / "build.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        written = docker_archive(out, images(cache))
    took, size = time.monotonic() - began, out.stat().st_size / 1e6
    print(f"{'written' if written else 'unchanged'}: {size:.0f} MB, {took:.1f} s", file=sys.stderr)
    print(out)


def images(cache: Path) -> list[Image]:
    """Return both images, their layers made where the cache has them not."""
    lock = dependencies.locked(EXTRAS)
    ground = _kept(cache, "base", base.key(), base.entries)
    site = _kept(cache, "site", _key(base.key(), lock, _text("dependencies.py")), _site(lock))
    code = _kept(cache, "code", _key(base.key(), _source_digest()), _code)
    shim = _kept(cache, "vllm", _key(_text("vllm.py")), _shim)
    return [
        Image("localhost/weir:dev", _config(base.PYTHON, "-m"), [ground, site, code]),
        # As vLLM's own image has it; arguments begin with the model.
        Image("localhost/tiny-vllm:dev", _config("vllm", "serve"), [ground, site, code, shim]),
    ]


def _config(*entrypoint: str) -> Config:
    user = f"{base.USER}:{base.USER}"
    return Config(entrypoint=entrypoint, environment=ENVIRONMENT, user=user)


def _kept(cache: Path, kind: str, key: str, make: Make) -> Path:
    """Return the layer of a kind with this key, made first if need be; drop the oldest."""
    out = cache / f"{kind}-{key}.tar"
    if not out.exists():
        print(f"making layer {out.name}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            partial = Path(work) / "layer.tar"
            layer(partial, make(Path(work)))
            partial.rename(out)
    os.utime(out)
    for old in sorted(cache.glob(f"{kind}-*.tar"), key=_used_at)[:-_KEPT]:
        old.unlink()
        old.with_name(f"{old.name}.sha256").unlink(missing_ok=True)
    return out


def _site(lock: str) -> Make:
    def make(work: Path) -> Entries:
        site = work / "site"
        dependencies.install(site, lock)
        base.compile_all(site, SITE)
        return tree(site, SITE.lstrip("/"))

    return make


def _code(work: Path) -> Entries:
    """Return the wheel's content: what is shipped, not what lies in the checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(work)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    code = work / "code"
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        wheel.extractall(code)
    base.compile_all(code, CODE)
    return tree(code, CODE.lstrip("/"))


def _shim(work: Path) -> Entries:
    program = work / "vllm"
    program.write_bytes(Path(__file__).with_name("vllm.py").read_bytes())
    program.chmod(0o755)
    return {"usr/local/bin/vllm": program}


def _source_digest() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf8")


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _used_at(file: Path) -> float:
    return file.stat().st_mtime


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "weir" / "images"


if __name__ == "__main__":
    main()
