"""The management API of a running Weir, as the commands need it.

Plain urllib: one small request at a time. It refuses to know what the answers mean.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from weir_cli.errors import CommandError

TIMEOUT_S = 10.0
MAX_REPLY_BYTES = 64 * 1024 * 1024
Json = dict[str, Any]


class UnreachableError(CommandError):
    """Nobody answers at the address; asking again later may help."""


class MissingError(CommandError):
    """The server answers, but has no such route or no such path."""


class Client:
    """One server, by its URL. Raises CommandError if it cannot be one."""

    def __init__(self, server: str) -> None:
        self.server = server.rstrip("/") if "://" in server else f"http://{server.rstrip('/')}"
        if not _is_address(self.server):
            raise CommandError(f"--server: saw {server}, wanted http://HOST:PORT", code=2)
        # The management address is an inner one: a proxy of the environment is not asked.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def statuses(self) -> Json:
        """Return {"routes": {"namespace/name": status}, "problems": […]}."""
        return self._ask("/weir/v1/status")

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


def find_route(wanted: str, keys: Iterable[str]) -> str:
    """Return the key that `name` or `namespace/name` means. Raises CommandError otherwise."""
    known = sorted(keys)
    found = [key for key in known if wanted in (key, key.partition("/")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(f"{wanted} is ambiguous, wanted one of {', '.join(found)}", code=2)
    raise MissingError(f"no route {wanted}; there is {', '.join(known) or 'none'}")
