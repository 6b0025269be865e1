"""`weir serve`: the router and its control loop in this process, from a folder of manifests."""

import argparse
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from weir_cli.errors import CommandError
from weir_router.folder import Folder
from weir_router.logs import set_up_logging
from weir_router.standalone import Settings, serve
from weir_router.standing import StateFileError

log = logging.getLogger("weir")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Raises CommandError if it cannot start."""
    settings = settings_of(args)
    for option, address in (("--listen", args.listen), ("--admin", args.admin)):
        check_free(option, address)
    set_up_logging(shape=args.log_format, level=args.log_level)
    if not Folder(settings.config).read()[0]:
        wanted = "*.yaml, *.yml or *.json"
        log.warning("no manifests yet", extra={"config": settings.config, "wanted": wanted})
    try:
        serve(settings, said=_said(args.log_format))
    except StateFileError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot serve: {error}") from error
    return 0


def settings_of(args: argparse.Namespace) -> Settings:
    """Return what the router is told. Raises CommandError for folders that are not there."""
    for option, path in (("--config", args.config), ("--keys", args.keys)):
        if path is not None and not path.is_dir():
            raise CommandError(f"{option}: saw {path}, wanted a folder", code=2)
    config: Path = args.config
    host, port = args.listen
    admin_host, admin_port = args.admin
    return Settings(
        config=config,
        state=args.state or config / ".weir" / "state.json",
        keys=args.keys,
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
    )


def check_free(option: str, address: tuple[str, int]) -> None:
    """Raise CommandError where nothing can listen: uvicorn would end with a traceback."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        host, port = address
        why = (error.strerror or str(error)).lower()
        raise CommandError(f"{option}: cannot listen on {host}:{port}: {why}") from None


def _said(shape: str) -> Callable[[str], None]:
    """Return where the line with the addresses goes: JSON logs want no line of another form."""
    if shape == "json":
        return lambda line: log.info("serving", extra={"addresses": line})
    return print
