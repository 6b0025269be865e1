"""The management API of a running Weir, as the commands need it.

Plain urllib: one small request at a time. It refuses to know what the answers mean.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from weir_cli.errors import CommandError, MissingError, UnreachableError
from weir_cli.sources import Json, find_route

TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 64 * 1024 * 1024


class Client:
    """One server, by its URL. Raises CommandError if it cannot be one."""

    def __init__(self, server: str) -> None:
        self.server = server.rstrip("/") if "://" in server else f"http://{server.rstrip('/')}"
        if not _is_address(self.server):
            raise CommandError(f"--server: saw {server}, wanted http://HOST:PORT", code=2)
        # The management address is an inner one: a proxy of the environment is not asked.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def spaced(self) -> bool:
        """Namespaces are shown where there are several."""
        return False

    @property
    def where(self) -> str:
        """All routes are of this one Weir."""
        return ""

    def statuses(self, names: Sequence[str] = ()) -> Json:
        """Return the statuses of all routes, or of those that are named, in that order."""
        told = self._ask("/weir/v1/status")
        if not names:
            return told
        keys = [find_route(name, told["routes"]) for name in names]
        return {**told, "routes": {key: told["routes"][key] for key in keys}}

    def key(self, name: str) -> str:
        """Return which route is meant."""
        return find_route(name, self.statuses()["routes"])

    def route(self, key: str) -> Json:
        """Return all about one route. Raises MissingError when it is not there."""
        return self._ask(_path(key))

    def command(self, key: str, *, verb: str, revision: str, full: bool) -> Json:
        """Give a command and return its {"result", "message"}."""
        wanted = {"verb": verb, "revision": revision, "full": full}
        return self._ask(f"{_path(key)}/command", wanted)

    def explain(self, body: str, headers: Mapping[str, str]) -> Json:
        """Return what would be decided for a request."""
        return self._ask("/weir/v1/explain", {"body": body, "headers": dict(headers)})

    def objects(self, kind: str, names: Sequence[str] = ()) -> list[Json]:
        """A standalone Weir has no objects but the manifests. Raises CommandError."""
        raise CommandError(
            f"{kind}s are objects of a cluster; here `describe ROUTE` tells of backends and "
            "revisions",
            code=2,
        )

    def _ask(self, path: str, content: Json | None = None) -> Json:
        """Return the reply to a GET, or to a POST of `content`. Raises CommandError."""
        try:
            request = urllib.request.Request(
                self.server + path,
                data=None if content is None else json.dumps(content).encode(),
                headers={"accept": "application/json", "content-type": "application/json"},
            )
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                text = reply.read(MAX_REPLY_BYTES)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from None
        except ValueError as error:
            raise CommandError(f"--server: saw {self.server}, {error}", code=2) from None
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CommandError(f"{self.server}{path}: the answer is not Weir's; {self._hint()}")
        return answer

    def _silent(self, error: Exception) -> UnreachableError:
        why = getattr(error, "reason", None) or error
        said = getattr(why, "strerror", None) or str(why) or type(why).__name__
        return UnreachableError(
            f"{self.server} does not answer ({said.lower()}); start it with "
            "`weir serve --config DIR`, or name another by --server or WEIR_SERVER"
        )

    def _refused(self, error: urllib.error.HTTPError) -> CommandError:
        try:
            said = json.loads(error.read(MAX_REPLY_BYTES))["error"]
            code, message = str(said["code"]), str(said["message"])
        except (ValueError, KeyError, TypeError, OSError):
            code, message = "", f"HTTP {error.code}"
        if code == "route_not_found":
            return MissingError(message)
        hint = f"; {self._hint()}" if error.code in (404, 405) else ""
        return CommandError(f"{self.server}: {message}{hint}")

    def _hint(self) -> str:
        return "--server wants the management address, the second one that `weir serve` prints"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _path(key: str) -> str:
    return f"/weir/v1/routes/{quote(key)}"
