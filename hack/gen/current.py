"""Fails when a generated file is not what its source would generate today.

Now: requirements.lock must pin, with a hash, every dependency that pyproject.toml names.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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


def main() -> int:
    """Print what is stale; 1 if anything is."""
    stale = [f"requirements.lock: no pin for {name}" for name in sorted(wanted() - pinned())]
    if re.search(r"https?://", (ROOT / "requirements.lock").read_text()):
        stale.append("requirements.lock: names an address")
    for line in stale:
        print(f"{line}; run `make lock`", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
