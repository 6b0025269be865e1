"""The manifests of a configuration folder, read again when they change."""

from pathlib import Path

Stamp = tuple[tuple[str, int, int], ...]


class Folder:
    """Every *.yaml, *.yml and *.json below a folder; hidden files and folders are left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp | None = None

    def changed(self) -> bool:
        """Return whether any file came, went or changed since the last read()."""
        return self._stamp != self._look()

    def read(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the texts by file name, and what went wrong by file name."""
        self._stamp = self._look()
        texts: dict[str, str] = {}
        broken: dict[str, str] = {}
        for name, _, _ in self._stamp:
            try:
                texts[name] = (self.path / name).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                broken[name] = str(error)
        return texts, broken

    def _look(self) -> Stamp:
        found = []
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            if path.suffix not in (".yaml", ".yml", ".json"):
                continue
            if any(part.startswith(".") for part in name.parts):
                continue
            try:
                stat = path.stat()
            except OSError:
                continue
            if path.is_file():
                found.append((str(name), stat.st_mtime_ns, stat.st_size))
        return tuple(found)
