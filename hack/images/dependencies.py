"""The middle layer: the packages that Weir's extras need, from the lock file, by their hashes.

    python hack/images/dependencies.py --extras router lab --site /opt/weir/site

The lock file holds all extras and no record of which asks for what. This reads it from the
packages of the environment it runs in, which has them all.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_DEAD_WEIGHT = ("tests", "*.pyi", "bin")
"""Never imported; folders and files of site-packages, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", nargs="+", required=True)
    parser.add_argument("--site", type=Path, required=True)
    args = parser.parse_args()
    install(args.site, locked(args.extras))


def locked(extras: list[str]) -> str:
    """Return the part of the lock file that the extras need. Raises ValueError for unknown ones."""
    needed = _closure(_asked(extras))
    blocks = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text("utf8").strip())
    names = [canonicalize_name(re.split(r"[=<>!~ ]", block, maxsplit=1)[0]) for block in blocks]
    chosen = [block for name, block in zip(names, blocks, strict=True) if name in needed]
    if missing := needed - set(names):
        raise ValueError(f"requirements.lock: saw no {', '.join(sorted(missing))}; run `make lock`")
    return "\n".join(chosen) + "\n"


def install(site: Path, lock: str) -> None:
    """Install a part of the lock file into a folder, without what is never imported."""
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as file:
        file.write(lock)
        file.flush()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-compile", "--require-hashes", "--target", str(site)]
        # Every name in the file is wanted, its dependencies stand there too.
        subprocess.run([*pip, *options, "--requirement", file.name], check=True)
    for pattern in _DEAD_WEIGHT:
        for path in sorted(site.rglob(pattern)):
            subprocess.run(["rm", "-rf", str(path)], check=True)


def _asked(extras: list[str]) -> list[Requirement]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    if unknown := sorted(set(extras) - optional.keys()):
        raise ValueError(f"extras: saw {', '.join(unknown)}, wanted some of {', '.join(optional)}")
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    return [Requirement(line) for line in lines]


def _closure(asked: list[Requirement]) -> set[str]:
    """Return the names of all packages that the requirements come to on this machine."""
    todo, seen = list(asked), set()
    while todo:
        wanted = todo.pop()
        one = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if one in seen:
            continue
        seen.add(one)
        try:
            lines = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            raise ValueError(f"{wanted.name} is not installed here: run `make test` once") from None
        todo += [found for line in lines if _applies(found := Requirement(line), wanted.extras)]
    return {name for name, _ in seen}


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


if __name__ == "__main__":
    main()
