"""Who is asked: a standalone Weir at its management address, or a Kubernetes cluster.

Both tell of a route in the same words, so every command has one screen. Neither is imported
before it is known to be the one.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from weir_cli.errors import CommandError, MissingError

Json = dict[str, Any]
CLUSTER_OPTIONS = ("namespace", "context", "kubeconfig", "all_namespaces")


class Source(Protocol):
    """A running Weir. Every method raises CommandError with what was seen and what to do."""

    @property
    def spaced(self) -> bool:
        """Whether lists show the namespace of each route, even when there is one alone."""

    @property
    def where(self) -> str:
        """Return where is looked, in words; "" where that goes without saying."""

    def statuses(self, names: Sequence[str] = ()) -> Json:
        """Return {"routes": {"namespace/name": status}, "problems": […]}, of all or of `names`.

        Where the source has them, also "created" (seconds since the epoch) and "objects" (as the
        API server gives them), both by route, and "ejected" backends.
        """

    def key(self, name: str) -> str:
        """Return the "namespace/name" that `name` or `namespace/name` means."""

    def route(self, key: str) -> Json:
        """Return all about one route: status, events, backends, tiers, history."""

    def command(self, key: str, *, verb: str, revision: str, full: bool) -> Json:
        """Give a command and return its {"result", "message"}."""

    def explain(self, body: str, headers: Mapping[str, str]) -> Json:
        """Return what would be decided for a request."""

    def objects(self, kind: str, names: Sequence[str] = ()) -> list[Json]:
        """Return the objects of another kind than ModelRoute, as the API server gives them."""


def source_of(args: argparse.Namespace) -> Source:
    """Return who is meant by the command's options."""
    if is_cluster(args):
        cluster: Source = import_module("weir_cli.cluster").Cluster.of(args)
        return cluster
    client: Source = import_module("weir_cli.client").Client(args.server or args.standalone)
    return client


def is_cluster(args: argparse.Namespace) -> bool:
    """Tell whether a cluster is meant: by an option, or by being run as `kubectl weir`.

    Raises CommandError where the options name both.
    """
    given = [name for name in CLUSTER_OPTIONS if getattr(args, name, None)]
    server = getattr(args, "server", None)
    if server and given:
        option = f"--{given[0].replace('_', '-')}"
        raise CommandError(
            f"saw --server and {option}, wanted one: a standalone Weir has no {option}", code=2
        )
    return bool(given) or (args.plugin and not server)


def refuse_unused(args: argparse.Namespace, names: Iterable[str], *, beside: str) -> None:
    """Raise CommandError where an option is given that makes no difference beside another."""
    given = [name for name in names if getattr(args, name, None)]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise CommandError(f"saw {option} and {beside}, wanted one: no cluster is asked", code=2)


def find_route(wanted: str, keys: Iterable[str]) -> str:
    """Return the key that `name` or `namespace/name` means. Raises CommandError otherwise."""
    known = sorted(keys)
    found = [key for key in known if wanted in (key, key.partition("/")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"{wanted} is ambiguous, wanted one of {', '.join(found)}", code=2)
    raise MissingError(f"no route {wanted}; there is {', '.join(known) or 'none'}")
