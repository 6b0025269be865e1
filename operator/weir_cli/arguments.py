"""What may be typed after `weir`: every command, its options, one line of help each.

It imports no command: help and completion stay quick, and a command's own needs are its own.
"""

import argparse
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from weir_cli.kinds import NOUNS
from weir_router.logs import FORMATS, LEVELS

SERVER = "http://127.0.0.1:8081"
VERBS = {
    "promote": "let the canary past the gate it waits at, with --full past all of them",
    "abort": "take all traffic from the canary and roll back",
    "pause": "keep the weight where it is; evidence and brakes go on",
    "resume": "lift a pause that was set by command, and go on",
    "retry": "try a revision again that was rolled back",
}
CLUSTER_WORDS: Mapping[str, bool] = {
    "-n": True,
    "--namespace": True,
    "--context": True,
    "--kubeconfig": True,
    "-A": False,
    "--all-namespaces": False,
}
"""Options that choose a cluster, and whether a value follows."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parser(*, prog: str, env: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser of the whole command line; `env` gives WEIR_SERVER.

    As a plugin of kubectl the commands ask a cluster unless they are told otherwise.
    """
    plugin = prog.startswith("kubectl")
    whole = argparse.ArgumentParser(
        prog=prog,
        description="Small model first, large model when unsure; every change canaried and "
        "rolled back by itself.",
        epilog=f"`{prog} COMMAND --help` tells more.",
    )
    whole.add_argument("--version", action="version", version=f"weir {own_version()}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    whole.set_defaults(plugin=plugin, standalone=env.get("WEIR_SERVER") or SERVER)
    asking = _asking(env, plugin=plugin)
    _serve(commands)
    _validate(commands, plugin=plugin)
    _get(commands, asking)
    _describe(commands, asking)
    _watch(commands, asking)
    _explain(commands, asking)
    _rollout(commands, asking)
    _inject(commands)
    _add(commands, "demo", "see a good revision promoted and bad ones rolled back, on this machine")
    _add(commands, "version", "print the version")
    return whole


def reordered(words: Sequence[str]) -> list[str]:
    """Return the words with options of kubectl's behind the command, where they stand before it."""
    taken = 0
    while taken < len(words) and words[taken].partition("=")[0] in CLUSTER_WORDS:
        alone = "=" in words[taken] or not CLUSTER_WORDS[words[taken]]
        taken += 1 if alone else 2
    return [*words[taken:], *words[:taken]]


def own_version() -> str:
    """Return the version of what is installed."""
    return version("weir-inference")


def _add(
    commands: Commands,
    name: str,
    help: str,
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    told = f"{help[0].upper()}{help[1:]}."
    return commands.add_parser(name, help=help, description=told, parents=parents)


def _asking(env: Mapping[str, str], *, plugin: bool) -> argparse.ArgumentParser:
    """Return the options of every command that asks a running Weir: who that is."""
    common = argparse.ArgumentParser(add_help=False)
    default = env.get("WEIR_SERVER") or SERVER
    common.add_argument(
        "--server",
        metavar="URL",
        help="ask a standalone Weir at its management address"
        + ("" if plugin else f" (default: $WEIR_SERVER or {default})"),
    )
    _add_cluster(common, "the cluster", default=plugin)
    return common


def _add_cluster(command: argparse.ArgumentParser, title: str, *, default: bool) -> None:
    """Add kubectl's own options; any of them means a cluster."""
    meant = "asked unless told otherwise" if default else "asked when one of these is given"
    group = command.add_argument_group(title, meant)
    group.add_argument(
        "-n", "--namespace", metavar="NS", help="namespace (default: that of the context)"
    )
    group.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    group.add_argument(
        "--kubeconfig", metavar="FILE", help="default: $KUBECONFIG or ~/.kube/config"
    )


def _add_everywhere(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-A", "--all-namespaces", action="store_true", help="look in every namespace of a cluster"
    )


def _output(command: argparse.ArgumentParser, *shapes: str) -> None:
    command.add_argument("-o", "--output", choices=shapes, help="another form than text")


def _serve(commands: Commands) -> None:
    serve = _add(commands, "serve", "run the router from a folder of manifests, without a cluster")
    serve.add_argument(
        "--config",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder of manifests, read again when they change",
    )
    serve.add_argument(
        "--state",
        metavar="FILE",
        type=Path,
        help="what must outlive a restart (default: DIR/.weir/state.json)",
    )
    serve.add_argument(
        "--keys", metavar="DIR", type=Path, help="folder with one file per API key of a backend"
    )
    for option, default, whom in (
        ("--listen", "127.0.0.1:8080", "clients of the models"),
        ("--admin", "127.0.0.1:8081", "this command and for metrics"),
    ):
        serve.add_argument(
            option,
            metavar="HOST:PORT",
            type=address,
            default=default,
            help=f"address for {whom} (default: %(default)s; port 0: any)",
        )
    serve.add_argument("--log-format", choices=FORMATS, default="text", help="default: text")
    serve.add_argument("--log-level", choices=LEVELS, default="info", help="default: info")


def address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[::1]:PORT`."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    known_port = port.isascii() and port.isdecimal() and int(port) < 65_536
    # Only brackets tell an IPv6 address from its port.
    if not (colon and bare and known_port) or (":" in bare and bare == host):
        raise argparse.ArgumentTypeError(f"saw {text!r}, wanted HOST:PORT")
    return bare, int(port)


def _validate(commands: Commands, *, plugin: bool) -> None:
    validate = _add(commands, "validate", "find every problem of manifests, by file and line")
    validate.add_argument(
        "paths", metavar="DIR|FILE", nargs="+", help="folders and files; - is standard input"
    )
    validate.add_argument(
        "--cluster", action="store_true", help="judge as a cluster would, which can run models"
    )
    validate.add_argument(
        "--offline", action="store_true", help="do not ask the API server of a cluster"
    )
    title = "the cluster, whose API server is asked too, without changing anything"
    _add_cluster(validate, title, default=plugin)
    _output(validate, "json")


def _get(commands: Commands, asking: argparse.ArgumentParser) -> None:
    get = _add(commands, "get", "list routes, one line each", asking)
    get.add_argument(
        "words",
        metavar="NAME",
        nargs="*",
        help="name or namespace/name, all if none; the word routes may come first, or, of a "
        "cluster, backends or revisions",
    )
    _add_everywhere(get)
    get.add_argument(
        "-w", "--watch", action="store_true", help="show it live, as the command watch does"
    )
    _output(get, "wide", "json", "yaml", "name")


def route(text: str) -> str:
    """Return what names a route, without the kind that `get -o name` puts in front."""
    noun, slash, name = text.partition("/")
    kind = NOUNS.get(noun.lower(), "ModelRoute") if slash else "ModelRoute"
    if kind != "ModelRoute":
        raise argparse.ArgumentTypeError(f"saw a {kind}, {text}, wanted a ModelRoute")
    return name if slash and noun.lower() in NOUNS else text


def _describe(commands: Commands, asking: argparse.ArgumentParser) -> None:
    describe = _add(commands, "describe", "tell all about one route, with the evidence", asking)
    describe.add_argument("route", metavar="ROUTE", type=route, help="name or namespace/name")
    _output(describe, "json", "yaml")


def _watch(commands: Commands, asking: argparse.ArgumentParser) -> None:
    watch = _add(commands, "watch", "watch a route live: evidence, tiers, events", asking)
    watch.add_argument(
        "route", metavar="ROUTE", nargs="?", type=route, help="may be left out if there is one"
    )
    how = watch.add_mutually_exclusive_group()
    how.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds,
        help="time between looks (default: 0.5, of a cluster 1)",
    )
    how.add_argument("--once", action="store_true", help="print one frame and end")
    _add_everywhere(watch)


def seconds(text: str) -> float:
    """Return a number of seconds in [0.05, 3600]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 3_600:
        raise argparse.ArgumentTypeError(f"saw {text!r}, wanted seconds from 0.05 to 3600")
    return value


def _explain(commands: Commands, asking: argparse.ArgumentParser) -> None:
    explain = _add(commands, "explain", "tell what would be done with a request, and why", asking)
    explain.add_argument("--model", metavar="NAME", help="the model name that a client asks for")
    body = explain.add_mutually_exclusive_group()
    body.add_argument(
        "--message", metavar="TEXT", help="what the user says, for rules that ask (default: hello)"
    )
    body.add_argument(
        "--file", metavar="JSON", help="a whole request; - is standard input; --model replaces its"
    )
    explain.add_argument(
        "--header",
        metavar="K=V",
        type=header,
        action="append",
        default=[],
        help="a header of the request, such as x-weir-risk=medical; may be repeated",
    )
    explain.add_argument("--session", metavar="S", help="short for --header x-session-id=S")
    _output(explain, "json")


def header(text: str) -> tuple[str, str]:
    """Return name and value of `NAME=VALUE`, or of `NAME: VALUE` as curl writes it."""
    mark = "=" if "=" in text and ":" not in text.partition("=")[0] else ":"
    name, found, value = text.partition(mark)
    if not found or not name.strip():
        raise argparse.ArgumentTypeError(f"saw {text!r}, wanted NAME=VALUE")
    return name.strip(), value.strip()


def _rollout(commands: Commands, asking: argparse.ArgumentParser) -> None:
    rollout = _add(commands, "rollout", "promote, abort, pause, resume or retry a revision")
    verbs = rollout.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, help in VERBS.items():
        command = _add(verbs, verb, help, asking)
        command.add_argument("route", metavar="ROUTE", type=route, help="name or namespace/name")
        default = "the one rolled back last" if verb == "retry" else "the current canary"
        command.add_argument(
            "--revision", metavar="NAME", help=f"which revision (default: {default})"
        )
        if verb == "promote":
            command.add_argument("--full", action="store_true", help="skip every step that is left")


def _inject(commands: Commands) -> None:
    inject = _add(commands, "inject", "put the router as a sidecar into pods, as YAML")
    inject.add_argument(
        "-f",
        "--filename",
        metavar="FILE",
        required=True,
        help="manifests of pods or of what makes pods; - is standard input",
    )
    inject.add_argument(
        "--image", metavar="IMAGE", help="of the router (default: the installed operator's word)"
    )
    inject.add_argument(
        "--feed",
        metavar="HOST:PORT",
        type=feed,
        help="where the operator is heard (default: the installed operator's word)",
    )
    _add_cluster(inject, "the cluster, asked for what is not given", default=True)


def feed(text: str) -> str:
    """Return an address as it is written, if it is one."""
    address(text)
    return text
