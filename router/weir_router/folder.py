"""The manifests of a configuration folder, read again when they have changed and settled."""

from pathlib import Path

from weir_core.errors import Problem

Stamp = tuple[tuple[str, int, int], ...]
MOST_LOOKS = 40
SUFFIXES = (".yaml", ".yml", ".json")


class Folder:
    """Every *.yaml, *.yml and *.json below a folder; hidden files and folders are left out.

    So is `but`, a file of ours that may lie there too.
    """

    def __init__(self, path: Path, *, but: Path | None = None) -> None:
        self.path = path
        self._but = but.resolve() if but is not None else None
        self._restless = 0
        self._read: Stamp | None = None
        self._seen: Stamp | None = None

    def changed(self) -> bool:
        """Return whether files came, went or changed since read(), and look alike twice now.

        An editor may write a file in parts: what is still changing is not read, but for at most
        MOST_LOOKS looks.
        """
        before, self._seen = self._seen, self._look()
        if self._seen == self._read:
            self._restless = 0
            return False
        self._restless += 1
        return self._seen == before or self._restless > MOST_LOOKS

    def read(self) -> tuple[dict[str, str], tuple[Problem, ...]]:
        """Return the texts by file name, and what could not be read.

        A folder that is not there and an empty file are problems, never an absence of routes:
        a disk that was not mounted or a save cut short must take nothing out of service.
        """
        self._read = self._seen = self._look()
        self._restless = 0
        texts: dict[str, str] = {}
        problems: list[Problem] = []
        if not self.path.is_dir():
            problems.append(
                Problem(object=f"folder {self.path}", field="", seen="no folder", wanted="one")
            )
        for name, _, _ in self._read:
            try:
                text = (self.path / name).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(_unread(name, str(error), "a readable file"))
                continue
            if text.strip():
                texts[name] = text
            else:
                problems.append(_unread(name, "an empty file", "manifests, or no such file"))
        return texts, tuple(problems)

    def _look(self) -> Stamp:
        found = []
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            if path.suffix not in SUFFIXES or any(part.startswith(".") for part in name.parts):
                continue
            try:
                stat = path.stat()
            except OSError:
                continue
            if path.is_file() and path.resolve() != self._but:
                found.append((str(name), stat.st_mtime_ns, stat.st_size))
        return tuple(found)


def _unread(name: str, seen: str, wanted: str) -> Problem:
    return Problem(object=f"file {name}", field="", seen=seen, wanted=wanted, source=name)
