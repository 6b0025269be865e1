"""What a folder's manifests say now, and which routes that are not in them are only broken."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from weir_core.compile import Compiled, compile_world
from weir_core.errors import Problem
from weir_core.history import find
from weir_core.manifests import parse
from weir_core.reach import backends_of
from weir_core.resources import ModelBackend, ModelRoute, Resource, key_of
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

    def problems_of(self, key: str, route: SavedRoute) -> tuple[Problem, ...]:
        """Return why a route is not what its manifests want: of one that could not be read,
        also what is wrong with its file or folder.
        """
        unread = key not in self.files
        return tuple(
            problem
            for problem in self.problems
            if problem.object == f"ModelRoute {key}" or (unread and _may_break(key, route, problem))
        )

    def problems_near(self, key: str, route: SavedRoute) -> tuple[Problem, ...]:
        """Return the problems of a route, and those of the backends that it calls."""
        names = {
            backend.name
            for revision in (route.state.stable, route.state.canary)
            if (record := find(route.state.records, revision)) is not None
            for _, backend in backends_of(record.revision.behaviour)
        }
        titles = {f"ModelBackend {route.namespace}/{name}" for name in names}
        called = (problem for problem in self.problems if problem.object in titles)
        return tuple(dict.fromkeys((*self.problems_of(key, route), *called)))


def _is_broken(key: str, route: SavedRoute, problems: Iterable[Problem]) -> bool:
    return any(_may_break(key, route, problem) for problem in problems)


def _may_break(key: str, route: SavedRoute, problem: Problem) -> bool:
    return (
        problem.object == f"ModelRoute {key}"
        or problem.object.startswith("folder ")
        or _file(problem) == route.file
    )


def _file(problem: Problem) -> str:
    name, _, line = problem.source.rpartition(":")
    return name if line.isdigit() else problem.source


def gather(
    folder: Folder, saved: Mapping[str, SavedRoute], has_key: Callable[[str], bool]
) -> World:
    """Read the folder and compile it against what is saved. Raises nothing of the files.

    A key file that is not there is a problem of its backend; the routes are served all the same,
    for some upstreams want no key.
    """
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
        place=parsed.place,
    )
    keyless = _keyless(parsed.resources, has_key)
    later = tuple(parsed.placed(problem) for problem in (*compiled.problems, *keyless))
    return World(compiled=compiled, problems=(*unparsed, *later), files=files)


def _keyless(resources: Iterable[Resource], has_key: Callable[[str], bool]) -> Iterator[Problem]:
    for one in resources:
        if not isinstance(one, ModelBackend) or one.spec.external is None:
            continue
        ref = one.spec.external.api_key_ref
        if ref is not None and not has_key(ref.key):
            yield Problem(
                object=f"ModelBackend {key_of(one)}",
                field="spec.external.apiKeyRef.key",
                seen=f"no key file '{ref.key}'",
                wanted="a file of that name in the folder that --keys names",
                reason="KeyNotFound",
                condition="ResolvedRefs",
            )
