"""What a folder's manifests say now, and which routes that are not in them are only broken."""

from collections.abc import Iterable, Mapping

import msgspec

from weir_core.compile import Compiled, compile_world
from weir_core.errors import Problem
from weir_core.manifests import parse
from weir_core.resources import ModelRoute, key_of
from weir_router.folder import Folder
from weir_router.standing import SavedRoute


class World(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the configuration. `files` names the file of each route that was parsed."""

    compiled: Compiled
    problems: tuple[Problem, ...]
    files: Mapping[str, str]

    def keeps(self, key: str, route: SavedRoute) -> bool:
        """Whether a route is still wanted: compiled, or broken rather than taken out.

        Broken is a route that was parsed, one with a problem of its own, and every route whose
        file or folder could not be read whole.
        """
        if key in self.compiled.routes or key in self.files:
            return True
        return _is_broken(key, route, self.problems)


def _is_broken(key: str, route: SavedRoute, problems: Iterable[Problem]) -> bool:
    title = f"ModelRoute {key}"
    return any(
        problem.object == title
        or problem.object.startswith("folder ")
        or _file(problem) == route.file
        for problem in problems
    )


def _file(problem: Problem) -> str:
    name, _, line = problem.source.rpartition(":")
    return name if line.isdigit() else problem.source


def gather(folder: Folder, saved: Mapping[str, SavedRoute]) -> World:
    """Read the folder and compile it against what is saved. Raises nothing of the files."""
    texts, unread = folder.read()
    parsed = parse(texts)
    routes = [one for one in parsed.resources if isinstance(one, ModelRoute)]
    files = {key_of(one): parsed.sources[f"ModelRoute {key_of(one)}"].file for one in routes}
    serving = {key: route for key, route in saved.items() if not route.gone}
    unparsed = (*unread, *parsed.problems)
    claimed = {
        name: key
        for key, route in serving.items()
        if key not in files and _is_broken(key, route, unparsed)
        for name in route.model_names
    }
    compiled = compile_world(
        parsed.resources,
        cluster=False,
        known={
            key: tuple(record.revision for record in route.state.records)
            for key, route in saved.items()
        },
        since={key: route.created_s for key, route in serving.items()},
        claimed=claimed,
    )
    later = tuple(parsed.placed(problem) for problem in compiled.problems)
    return World(compiled=compiled, problems=(*unparsed, *later), files=files)
