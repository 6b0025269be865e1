"""weir-cluster: a real one-node Kubernetes on this machine, with Docker or without.

hack/cluster/weir-cluster up
eval "$(hack/cluster/weir-cluster env)"
kubectl get nodes
"""

import argparse
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import keeper, machine
from cluster.again import tend
from cluster.build import build
from cluster.components import COMPONENTS, Components
from cluster.errors import ClusterError
from cluster.kind import Kind
from cluster.load import load
from cluster.node import Node, running_summary
from cluster.places import Places, places

_SIGNALS = ("KILL", "TERM", "STOP", "CONT")


def main() -> int:
    """Run one command; return its exit code: 3 where the machine cannot carry a cluster."""
    args = _parser().parse_args()
    # Where Debian keeps programs for root, which not every shell looks through.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        return int(args.run(places(), args) or 0)
    except ClusterError as error:
        print(f"weir-cluster: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"weir-cluster: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("weir-cluster", description=__doc__, formatter_class=form)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[..., int | None], told: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=told, description=told)
        added.set_defaults(run=run)
        return added

    verb("up", _up, "bring the cluster up and wait until it is ready; build it first if need be")
    verb("down", _down, "take it down without a trace; programs and images stay in the cache")
    verb("build", _build, "build the programs, and no more")
    verb("status", _status, "say what runs; exit code 1 if the cluster is down")
    verb("env", _env, "print what a shell must eval: KUBECONFIG, and a PATH with kubectl and helm")
    loads = verb("load", _load, "give the cluster images, from docker-archives")
    loads.add_argument("archives", nargs="+", type=Path, metavar="IMAGE.tar")
    executes = verb("exec", _exec, "run a command inside the cluster's namespaces")
    executes.add_argument("command", nargs=argparse.REMAINDER)
    kills = verb("kill", _kill, f"end one program at once; one of {', '.join(COMPONENTS)}")
    kills.add_argument("component")
    kills.add_argument("--signal", choices=_SIGNALS, default="KILL", help="STOP makes it hang")
    starts = verb("start", _start, "start one program again; does not wait until it is ready")
    starts.add_argument("component")
    keeps = verbs.add_parser("keep")
    keeps.add_argument("pause", type=Path)
    keeps.set_defaults(run=_keep)
    return parser


def _up(found: Places, args: argparse.Namespace) -> None:
    with _alone(found):
        if _with_docker():
            Kind(found).up()
        else:
            Node(found).up()


def _down(found: Places, args: argparse.Namespace) -> None:
    with _alone(found):
        if _with_docker():
            Kind(found).down()
        else:
            Node(found).down()


def _build(found: Places, args: argparse.Namespace) -> None:
    programs = build(found)
    print(programs.kubernetes, programs.tools, sep="\n")


def _status(found: Places, args: argparse.Namespace) -> int:
    if _with_docker():
        up = Kind(found).is_up()
        print("up, by kind" if up else "down")
        return 0 if up else 1
    running = Node(found).running()
    if running is None:
        print("down")
        return 1
    for name, pid, resident in running_summary(running):
        print(f"{name:12} {f'pid {pid}, {resident} MiB' if pid else 'does not run'}")
    return 0


def _env(found: Places, args: argparse.Namespace) -> None:
    for name, value in _environment(found).items():
        print(f"export {name}={shlex.quote(value)}")


def _environment(found: Places) -> dict[str, str]:
    if _with_docker():
        return Kind(found).environment()
    programs = Node(found).programs()
    if programs is None:
        raise ClusterError("the programs are not built: hack/cluster/weir-cluster up")
    helm = {f"HELM_{name}_HOME": str(found.run / "helm") for name in ("CACHE", "CONFIG", "DATA")}
    return {
        "KUBECONFIG": str(found.kubeconfig),
        "KUBECACHEDIR": str(found.discovered),
        "KWOK_WORKDIR": str(programs.tools),
        **helm,
        "PATH": f"{programs.path}{os.pathsep}{os.environ['PATH']}",
    }


def _load(found: Places, args: argparse.Namespace) -> None:
    for archive in args.archives:
        began = time.monotonic()
        if _with_docker():
            Kind(found).load(archive)
            continue
        for name, sent in load(archive, _running(found).inside):
            took = time.monotonic() - began
            print(f"{name}: {sent / 1e6:.1f} MB sent, {took:.1f} s", flush=True)


def _exec(found: Places, args: argparse.Namespace) -> None:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise ClusterError("exec: wanted a command")
    if _with_docker():
        Kind(found).execute(command)
    called = _running(found).inside(command)
    os.execvp(called[0], called)


def _kill(found: Places, args: argparse.Namespace) -> None:
    _running(found).signal(args.component, signal.Signals[f"SIG{args.signal}"])


def _start(found: Places, args: argparse.Namespace) -> None:
    if not _running(found).start(args.component):
        raise ClusterError(f"{args.component} runs already")


def _keep(found: Places, args: argparse.Namespace) -> int:
    def tended(over: Callable[[float], bool]) -> None:
        tend(_running(found), over=over, say=lambda said: print(said, file=sys.stderr, flush=True))

    return keeper.keep(found, args.pause, tended)


def _running(found: Places) -> Components:
    if _with_docker():
        raise ClusterError("only the cluster without Docker can do this (WEIR_CLUSTER=own)")
    running = Node(found).running()
    if running is None:
        raise ClusterError("the cluster is down: hack/cluster/weir-cluster up")
    return running


def _with_docker() -> bool:
    """Tell whether kind makes the cluster: WEIR_CLUSTER says so, or a Docker daemon does."""
    wanted = os.environ.get("WEIR_CLUSTER", "")
    if wanted not in ("", "kind", "own"):
        raise ClusterError(f"WEIR_CLUSTER: saw {wanted!r}, wanted kind or own")
    return wanted == "kind" or (not wanted and machine.docker_answers())


@contextmanager
def _alone(found: Places) -> Iterator[None]:
    """Let one `up` or `down` at a time touch the folder."""
    found.work.mkdir(parents=True, exist_ok=True)
    with (found.work / "command.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
