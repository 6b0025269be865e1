"""The lowest layer: this machine's own Python, the libraries it links, and a handful of tools.

A root file system of 80 MB in seconds, without a registry: what runs here runs in the container.
"""

import compileall
import hashlib
import inspect
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from images import archive
from images.archive import Entries, tree

PYTHON = "/usr/local/bin/python"
USER = 65_532
_TOOLS = "cat date echo env false grep head id kill ls mkdir ps rm sed sh sleep tail touch true"
_FILES = (
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/ssl/openssl.cnf",
)
_COMPANIONS = (
    *("libdl.so.2", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1"),
    *("libnss_dns.so.2", "libnss_files.so.2", "libgcc_s.so.1", "libstdc++.so.6"),
)
"""What compiled wheels may count on beside the C library, and what that loads by name."""
_LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "site-packages", "dist-packages", "config-*", "_tkinter*", "_test*.so"),
    *("ensurepip", "idlelib", "lib2to3", "test", "tests", "tkinter", "turtledemo", "*.a"),
)
_TEXTS = {
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\nweir:x:{USER}:{USER}::/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nweir:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\npasswd: files\ngroup: files\n",
}


def key() -> str:
    """Return what tells one base from another, without making it."""
    sources = inspect.getsource(archive) + Path(__file__).read_text("utf8")
    text = f"{sys.version} {sys.base_prefix} {sources}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def entries(work: Path) -> Entries:
    """Return the layer's entries; what must be made for it is made in `work`."""
    executable, standard = _python()
    compiled = work / "standard"
    shutil.copytree(standard, compiled, ignore=_LEFT_OUT)
    compile_all(compiled, str(standard))
    tools = [tool for name in _TOOLS.split() if (tool := shutil.which(name)) is not None]
    modules = list(compiled.rglob("*.so"))
    library = libraries([*map(Path, tools), executable, *modules])
    found: Entries = {}
    for path in [*tools, *_FILES, str(executable), *library, *_companions(library)]:
        if Path(path).exists():
            found[_placed(path)] = Path(path).resolve()
    found.update(tree(compiled, _placed(str(standard))))
    for name, text in _TEXTS.items():
        made = work / Path(name).name
        made.write_text(text, encoding="utf8")
        found[name] = made
    for name in ("bin", "lib", "lib64", "sbin"):
        found.update({name: f"usr/{name}", f"usr/{name}": None})
    for name in ("python", "python3"):
        found[f"usr/local/bin/{name}"] = str(executable)
    found.update(dict.fromkeys(("dev", "proc", "sys", "run", "root", "tmp", "var/tmp")))
    return found


def libraries(files: Iterable[Path]) -> list[str]:
    """Return the shared libraries that programs and modules need, by the names they load."""
    told = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(?:=>\s+|^\s+)(/\S+) \(0x", told, re.MULTILINE)))


def compile_all(folder: Path, seen_as: str) -> None:
    """Compile a folder's modules for good: no start compiles or looks at a source's time again.

    `seen_as` is where the folder stands in the image. Files that are no Python 3 stay as they are.
    """
    compileall.compile_dir(
        folder,
        quiet=2,
        workers=os.cpu_count() or 1,
        stripdir=str(folder),
        prependdir=seen_as,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _python() -> tuple[Path, Path]:
    """Return the interpreter that stands behind this one's environment, and its library."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    installed = {"installed_base": sys.base_prefix, "installed_platbase": sys.base_prefix}
    standard = sysconfig.get_path("stdlib", vars=installed)
    return (Path(sys.base_prefix) / "bin" / name).resolve(), Path(standard)


def _companions(library: Iterable[str]) -> list[str]:
    """Return the paths of the libraries that stand beside the C library."""
    folder = next(Path(name).parent for name in library if "/libc.so" in name)
    return [str(folder / name) for name in _COMPANIONS]


def _placed(name: str) -> str:
    """Return a path's name in the layer, where /bin, /lib and /sbin are links into /usr."""
    return re.sub(r"^(bin|lib|lib64|sbin)/", r"usr/\1/", name.lstrip("/"))
