"""From what people write to what routers obey: behaviour with a name, monitoring, rollout.

A route that cannot be compiled yields problems and nothing else; the caller keeps its last good
form, and no other route notices. It refuses to know which revision is stable or canary
(`rollout` does): it only says which behaviour each route wants now, and what that is called.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from weir_core.calibration import read_calibration
from weir_core.canonical import canonical, hex_of
from weir_core.defaults import DEFAULTS
from weir_core.errors import Problem
from weir_core.forms import nearest, pico
from weir_core.identity import frozen_backend, identity_of, limits_of
from weir_core.policies import monitoring_of, rollout_of
from weir_core.resources import ConfigMap, ModelBackend, ModelRoute, Resource, key_of, title_of
from weir_core.revision_spec import too_large
from weir_core.route_spec import BehaviourSpec, CheckSpec, RuleSpec, StreamingSpec, TierSpec
from weir_core.snapshot import (
    Backend,
    Behaviour,
    Calibration,
    Check,
    Limits,
    Monitoring,
    Revision,
    RolloutPolicy,
    Rule,
    Tier,
)

MAX_RENAMES = 16
"""Tries to find a name that no other content of the route has."""


class CompiledRoute(msgspec.Struct, frozen=True, kw_only=True):
    """What a route wants now. `uid` is its key where Kubernetes gave none."""

    uid: str
    namespace: str
    name: str
    model_names: tuple[str, ...]
    revision: Revision
    monitoring: Monitoring
    rollout: RolloutPolicy


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """All that could be compiled, and why the rest could not.

    `routes` is by "namespace/name"; `limits` by identity, those of known revisions included;
    `identities` by "namespace/name" of the backend. `names` gives the route of a model name: by
    "namespace/model" in a cluster, by "model" alone without one.
    """

    routes: Mapping[str, CompiledRoute]
    limits: Mapping[str, Limits]
    identities: Mapping[str, str]
    names: Mapping[str, str]
    problems: tuple[Problem, ...]


Place = Callable[[str, str], str | None]
"""Where an object, by its title, says a field: "file.yaml:12", or "" for an object that no file
is known of. None: there is no such object, not even an invalid one."""


class _World(msgspec.Struct, frozen=True):
    backends: Mapping[str, ModelBackend]
    config_maps: Mapping[str, ConfigMap]
    cluster: bool
    place: Place

    def invalid(self, kind: str, name: str, namespace: str) -> tuple[str, str] | None:
        """Return what is seen and wanted of an object that is not read; None for no object."""
        title = f"{kind} {namespace}/{name}"
        place = self.place(title, "")
        if place is None:
            return None
        told = f" ({place})" if place else ""
        return f"'{name}', which is invalid itself{told}", f"{title} without problems"


class _Report:
    """Collects the problems of one route."""

    def __init__(self, route: ModelRoute) -> None:
        self.title = title_of(route)
        self.namespace = route.metadata.namespace
        self.problems: list[Problem] = []

    def unresolved(self, field: str, *, seen: str, wanted: str, reason: str) -> None:
        """Note a reference that leads nowhere usable."""
        self.add(field, seen=seen, wanted=wanted, reason=reason, condition="ResolvedRefs")

    def add(self, field: str, *, seen: str, wanted: str, reason: str, condition: str) -> None:
        """Note a problem."""
        problem = Problem(
            object=self.title,
            field=field,
            seen=seen,
            wanted=wanted,
            reason=reason,
            condition=condition,
        )
        self.problems.append(problem)


def compile_world(
    resources: Iterable[Resource],
    *,
    cluster: bool,
    known: Mapping[str, tuple[Revision, ...]] | None = None,
    since: Mapping[str, float] | None = None,
    claimed: Mapping[str, str] | None = None,
    place: Place = lambda title, field: None,
    new_hex: Callable[[str], str] = hex_of,
) -> Compiled:
    """Return what all routes want now.

    `known` holds the revisions of each route that have a name already, by "namespace/name": equal
    behaviour keeps that name. `since` says since when a route serves, where no creationTimestamp
    does: of two claims to a model name the older counts. `claimed` gives the model names of
    routes that serve and cannot be read now. `place` tells a reference to an invalid object
    from one to nothing, and where another object stands. `new_hex` gives the digits of a new name
    from a text. Without a `cluster` only external backends serve, and model names are one space
    over all namespaces.
    """
    everything = list(resources)
    world = _World(
        backends={key_of(one): one for one in everything if isinstance(one, ModelBackend)},
        config_maps={key_of(one): one for one in everything if isinstance(one, ConfigMap)},
        cluster=cluster,
        place=place,
    )
    routes: dict[str, CompiledRoute] = {}
    names: dict[str, str] = dict(claimed or {})
    problems: list[Problem] = []
    claimants = [one for one in everything if isinstance(one, ModelRoute)]
    for route in sorted(claimants, key=lambda one: _age(one, since or {})):
        report = _Report(route)
        key = key_of(route)
        _claim(route, names, report, world)
        behaviour = _behaviour(route.spec.behaviour, world, report)
        if behaviour is not None and not report.problems:
            revision = _revision(route, behaviour, (known or {}).get(key, ()), new_hex)
            if world.cluster and (found := too_large(revision.content)):
                told = {"reason": "TooLarge", "condition": "Accepted"}
                report.add("spec.behaviour", seen=found[0], wanted=found[1], **told)
            else:
                routes[key] = _compiled(route, revision)
        problems += report.problems
    return Compiled(
        routes=routes,
        limits=_limits(world, known or {}),
        identities={key: identity_of(one) for key, one in world.backends.items()},
        names={name: key for name, key in names.items() if key in routes},
        problems=tuple(problems),
    )


def _age(route: ModelRoute, since: Mapping[str, float]) -> tuple[str, float, str]:
    key = key_of(route)
    return route.metadata.creation_timestamp, since.get(key, math.inf), key


def _claim(route: ModelRoute, names: dict[str, str], report: _Report, world: _World) -> None:
    """Take the route's model names, all or none; an older route keeps what it has.

    A route that is broken otherwise keeps its claim: its last good form still serves.
    """
    scope = f"{route.metadata.namespace}/" if world.cluster else ""
    for at, model in enumerate(route.spec.model_names):
        holder = names.get(scope + model)
        if holder is not None:
            place = world.place(f"ModelRoute {holder}", "spec.modelNames")
            where = f" ({place})" if place else ""
            report.add(
                f"spec.modelNames[{at}]",
                seen=f"'{model}', which the older ModelRoute {holder} has{where}",
                wanted="a model name that no older route has",
                reason="Conflicted",
                condition="Accepted",
            )
    if not report.problems:
        names.update((scope + model, key_of(route)) for model in route.spec.model_names)


def _compiled(route: ModelRoute, revision: Revision) -> CompiledRoute:
    return CompiledRoute(
        uid=route.metadata.uid or key_of(route),
        namespace=route.metadata.namespace,
        name=route.metadata.name,
        model_names=route.spec.model_names,
        revision=revision,
        monitoring=monitoring_of(route.spec.monitoring),
        rollout=rollout_of(route.spec.rollout),
    )


def _revision(
    route: ModelRoute,
    behaviour: Behaviour,
    known: Sequence[Revision],
    new_hex: Callable[[str], str],
) -> Revision:
    """Return the known revision of equal behaviour, else one with a name of its own.

    Known behaviour is made canonical by today's code: what yesterday's wrote does not matter.
    """
    content = canonical(behaviour)
    for revision in known:
        if canonical(revision.behaviour) == content:
            return revision
    taken = {revision.name for revision in known}
    stem = route.metadata.name
    for salt in range(MAX_RENAMES):
        name = f"{stem}-{new_hex(f'{content}#{salt}' if salt else content)}"
        if name not in taken:
            return Revision(name=name, behaviour=behaviour, content=content)
    raise AssertionError(f"{stem}: no free name in {MAX_RENAMES} tries")


def _limits(world: _World, known: Mapping[str, tuple[Revision, ...]]) -> dict[str, Limits]:
    """Return limits by identity; an older identity has those of its backend as it is now."""
    limits = {}
    for key, revisions in known.items():
        namespace = key.partition("/")[0]
        for revision in revisions:
            for backend in _backends_in(revision.behaviour):
                now = world.backends.get(f"{namespace}/{backend.name}")
                if now is not None:
                    limits[backend.identity] = limits_of(now)
    return limits | {identity_of(one): limits_of(one) for one in world.backends.values()}


def _backends_in(behaviour: Behaviour) -> tuple[Backend, ...]:
    return (*(tier.backend for tier in behaviour.tiers), *behaviour.fallback)


def _behaviour(spec: BehaviourSpec, world: _World, report: _Report) -> Behaviour | None:
    """Return the compiled behaviour, None where a reference leads nowhere."""
    at = "spec.behaviour"
    tiers = [
        _tier(tier, f"{at}.tiers[{place}]", world, report) for place, tier in enumerate(spec.tiers)
    ]
    refs = spec.fallback.backend_refs if spec.fallback else ()
    fallback = [
        _backend(ref.name, f"{at}.fallback.backendRefs[{place}].name", world, report)
        for place, ref in enumerate(refs)
    ]
    causes = (spec.fallback.causes if spec.fallback else ()) or (
        DEFAULTS.fallback_on if refs else ()
    )
    if None in tiers or None in fallback:
        return None
    positions = {tier.name: place for place, tier in enumerate(spec.tiers)}
    return Behaviour(
        deadline_ms=spec.deadline_ms,
        max_attempts=spec.max_attempts or DEFAULTS.max_attempts,
        max_cost_pico=pico(spec.budget.max_cost_per_request) if spec.budget else 0,
        tiers=tuple(tier for tier in tiers if tier is not None),
        rules=tuple(_rule(rule, positions) for rule in spec.rules or ()),
        fallback_on=tuple(sorted(set(causes))),
        fallback=tuple(backend for backend in fallback if backend is not None),
        commit=spec.streaming.commit if spec.streaming else DEFAULTS.commit,
        prefix_tokens=_prefix_tokens(spec.streaming),
        on_exhausted=spec.on_exhausted or DEFAULTS.on_exhausted,
    )


def _prefix_tokens(spec: StreamingSpec | None) -> int:
    if spec is None or spec.commit != "Prefix":
        return 0
    return spec.prefix_tokens or DEFAULTS.prefix_tokens


def _rule(spec: RuleSpec, positions: Mapping[str, int]) -> Rule:
    start = positions[spec.start] if spec.start else 0
    end = positions[spec.end] if spec.end else len(positions) - 1
    return Rule(name=spec.name, when=spec.when.strip(), start=start, end=end)


def _tier(spec: TierSpec, at: str, world: _World, report: _Report) -> Tier | None:
    backend = _backend(spec.backend_ref.name, f"{at}.backendRef.name", world, report)
    checks = [
        _check(check, f"{at}.accept[{place}]", backend, world, report)
        for place, check in enumerate(spec.accept or ())
    ]
    if backend is None or None in checks:
        return None
    return Tier(
        name=spec.name,
        backend=backend,
        timeout_ms=spec.timeout_ms or 0,
        system_prompt=spec.system_prompt or "",
        max_tokens=spec.max_tokens or 0,
        accept=tuple(check for check in checks if check is not None),
    )


def _backend(name: str, field: str, world: _World, report: _Report) -> Backend | None:
    prefix = f"{report.namespace}/"
    found = world.backends.get(prefix + name)
    invalid = None if found else world.invalid("ModelBackend", name, report.namespace)
    if invalid:
        seen, wanted = invalid
        report.unresolved(field, seen=seen, wanted=wanted, reason="BackendInvalid")
        return None
    if found is None:
        names = [key.removeprefix(prefix) for key in world.backends if key.startswith(prefix)]
        report.unresolved(
            field,
            seen=f"'{name}'",
            wanted=_existing("ModelBackend", name, names, report.namespace),
            reason="BackendNotFound",
        )
        return None
    if found.spec.vllm is not None and not world.cluster:
        report.unresolved(
            field,
            seen=f"'{name}', a vllm backend",
            wanted="an external backend: only Kubernetes runs vllm ones",
            reason="BackendNeedsKubernetes",
        )
        return None
    return frozen_backend(found)


def _check(
    spec: CheckSpec, at: str, backend: Backend | None, world: _World, report: _Report
) -> Check | None:
    calibration = None
    if spec.type == "Confidence":
        if backend is not None and "Logprobs" not in backend.capabilities:
            report.add(
                f"{at}.type",
                seen=f"Confidence on '{backend.name}', which does not have Logprobs",
                wanted="a backend with capability Logprobs",
                reason="CapabilityMissing",
                condition="Accepted",
            )
        calibration = _calibration(spec, at, world, report)
        if calibration is None:
            return None
    return Check(
        name=spec.name,
        type=spec.type,
        must_match=spec.must_match or "",
        must_not_match=spec.must_not_match or "",
        min_probability=1.0 if spec.min_probability is None else float(spec.min_probability),
        calibration=calibration,
    )


def _calibration(spec: CheckSpec, at: str, world: _World, report: _Report) -> Calibration | None:
    ref = spec.calibration_ref
    assert ref is not None, "crosscheck lets no Confidence through without calibrationRef"
    assert spec.method is not None, "crosscheck lets no Confidence through without method"
    prefix, key = f"{report.namespace}/", ref.key or DEFAULTS.calibration_key
    carrier = world.config_maps.get(prefix + ref.name)
    texts = (carrier.data if carrier else None) or {}
    invalid = None if carrier else world.invalid("ConfigMap", ref.name, report.namespace)
    if invalid:
        seen, wanted = invalid
        field = f"{at}.calibrationRef.name"
        report.unresolved(field, seen=seen, wanted=wanted, reason="CalibrationInvalid")
        return None
    if key not in texts:
        names = [one.removeprefix(prefix) for one in world.config_maps if one.startswith(prefix)]
        missing_key = carrier is not None
        wanted = _existing("ConfigMap", ref.name, names, report.namespace)
        report.unresolved(
            f"{at}.calibrationRef.{'key' if missing_key else 'name'}",
            seen=f"'{key}'" if missing_key else f"'{ref.name}'",
            wanted=f"a key of ConfigMap {prefix}{ref.name}" if missing_key else wanted,
            reason="CalibrationNotFound",
        )
        return None
    read = read_calibration(texts[key], method=spec.method)
    if isinstance(read, str):
        report.unresolved(
            f"{at}.calibrationRef",
            seen=f"ConfigMap {prefix}{ref.name}, {key}: {read}",
            wanted="a calibration such as `weir calibrate` writes",
            reason="CalibrationInvalid",
        )
        return None
    return read


def _existing(kind: str, name: str, names: Iterable[str], namespace: str) -> str:
    near = nearest(name, names)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"a {kind} in namespace {namespace}{hint}"
