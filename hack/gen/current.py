"""Fails when a generated file is not what its source would generate today; --write writes them.

crds/ comes from the models in weir_core; the chart has a copy, since Helm reads nothing outside a
chart. The chart's sidecar policy comes from weir_operator.sidecar. requirements.lock must pin, with
a hash, every dependency that pyproject.toml names (`make lock` writes it).
"""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import chart
from crds import KINDS, text_of
from reference import reference

ROOT = Path(__file__).resolve().parents[2]


FOLDERS = (Path("crds"), Path("charts/weir/crds-source"))
"""All of whose files are generated."""


def generated() -> Mapping[Path, str]:
    """Return every generated file with its text, by its path below the repository."""
    texts = {folder / kind.file: text_of(kind) for folder in FOLDERS for kind in KINDS}
    return {
        **texts,
        Path("crds/README.md"): reference(),
        Path(chart.FILE): chart.sidecar_template(),
    }


def stale_files(root: Path) -> list[str]:
    """Return what is wrong with the generated files below `root`."""
    texts = generated()
    stale = [
        f"{path}: not what its source generates"
        for path, text in texts.items()
        if not (root / path).is_file() or (root / path).read_text() != text
    ]
    extra = sorted(_found(root) - set(texts))
    return stale + [f"{path}: nothing generates it" for path in extra]


def write_files(root: Path) -> None:
    """Write the generated files and remove those that nothing generates any more."""
    texts = generated()
    for path in _found(root) - set(texts):
        (root / path).unlink()
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def _found(root: Path) -> set[Path]:
    """Return the files that stand in the generated folders."""
    files = (path for folder in FOLDERS for path in (root / folder).glob("*"))
    return {path.relative_to(root) for path in files if path.is_file()}


def wanted() -> set[str]:
    """Return the names of all dependencies in pyproject.toml, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {_name(line) for lines in lists for line in lines}


def pinned() -> set[str]:
    """Return the names that the lock pins with at least one hash."""
    text = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==\S+.*\\\n    --hash=", text, re.MULTILINE)
    return {_name(pin) for pin in pins}


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def stale_lock() -> list[str]:
    """Return what is wrong with the lock."""
    stale = [f"requirements.lock: no pin for {name}" for name in sorted(wanted() - pinned())]
    if re.search(r"https?://", (ROOT / "requirements.lock").read_text()):
        stale.append("requirements.lock: names an address")
    return stale


def main() -> int:
    """Print what is stale; 1 if anything is. With --write, write what is generated first."""
    if "--write" in sys.argv[1:]:
        write_files(ROOT)
    advice = [f"{line}; run hack/gen/current.py --write" for line in stale_files(ROOT)]
    advice += [f"{line}; run `make lock`" for line in stale_lock()]
    for line in advice:
        print(line, file=sys.stderr)
    return bool(advice)


if __name__ == "__main__":
    sys.exit(main())
