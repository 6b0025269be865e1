"""Who may connect to the feed: routers of this cluster, by the token of their own pod.

A token names one pod by its uid. The pod must be of a router Deployment, or a sidecar whose
ServiceAccount may `use` ModelRoutes of its namespace; it gets the routes of that namespace only.

The trust boundary is the namespace. Labels and owner references are what the pod's maker wrote,
and who may make pods may run them with any ServiceAccount there: such a person can pass for a
router of that namespace, read its routes and forge its evidence, as they could replace the routers
themselves. To compare the ReplicaSet's uid would not change that: it can be read and written too.
"""

import asyncio
import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from weir_operator.kube import KubeError
from weir_operator.objects import ROUTER, ROUTER_NAME, is_router

AUDIENCE = "weir"
GOOD_S, BAD_S = 10.0, 2.0
"""How long a review is believed. The API server's own cache adds up to 10 s."""
MAX_REMEMBERED = 4_096
MAX_ASKING = 16
"""Reviews under way at one time: a storm of routers must not be one of the API server's."""
MAX_TOKEN = 16_384
LEAST_S = 60.0
"""Until a token is reviewed again that is good for the API server, and over by this clock."""
_ACCOUNT = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"

Obj = dict[str, Any]


class Api(Protocol):
    """What is asked of the Kubernetes API. All three raise KubeError."""

    async def token_review(self, token: str) -> Obj:
        """Return the status of a TokenReview for the audience `weir`."""

    async def access_review(self, user: str, groups: list[str], namespace: str) -> bool:
        """Whether a user may `use` the ModelRoutes of a namespace."""

    async def pod(self, namespace: str, name: str) -> Obj | None:
        """Return a pod, None where there is none."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A router that may connect, until `expires_s` (Unix seconds) at the latest."""

    namespace: str
    pod_uid: str
    pod_name: str
    service_account: str
    sidecar: bool
    expires_s: float


class Refusal(msgspec.Struct, frozen=True):
    """Why somebody may not connect, by the name of a gRPC status, in one sentence."""

    code: Literal["UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE"]
    why: str


class Gatekeeper:
    """Admits callers by token; remembers reviews for seconds, never the tokens themselves."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Caller | Refusal]] = OrderedDict()
        self._asking = asyncio.Semaphore(MAX_ASKING)

    async def admit(self, token: str) -> Caller | Refusal:
        """Return who calls, or why they may not. Raises nothing."""
        if not token:
            return Refusal("UNAUTHENTICATED", "saw no token, wanted `authorization: Bearer …`")
        if len(token) > MAX_TOKEN:
            seen = f"saw a token of {len(token):,} characters, wanted at most {MAX_TOKEN:,}"
            return Refusal("UNAUTHENTICATED", seen)
        digest = hashlib.sha256(token.encode()).digest()
        async with self._asking:
            known = self._known.get(digest)
            if known is not None and self._clock() < known[0]:
                return known[1]
            try:
                verdict = await self._review(token)
            except KubeError as error:
                why = f"the Kubernetes API could not be asked: {str(error)[:200]}"
                return Refusal("UNAVAILABLE", why)
            self._remember(digest, verdict)
            return verdict

    def _remember(self, digest: bytes, verdict: Caller | Refusal) -> None:
        good_s = GOOD_S if isinstance(verdict, Caller) else BAD_S
        self._known[digest] = (self._clock() + good_s, verdict)
        self._known.move_to_end(digest)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _review(self, token: str) -> Caller | Refusal:
        status = await self._api.token_review(token)
        if not status.get("authenticated"):
            told = str(status.get("error") or "no reason told")[:200]
            return Refusal("UNAUTHENTICATED", f"the API server refused the token: {told}")
        if AUDIENCE not in (status.get("audiences") or ()):
            return Refusal("UNAUTHENTICATED", f"the token is not for the audience {AUDIENCE!r}")
        # Whether it has expired the API server has judged already, by the clock that made it.
        now_s, expires_s = self._clock(), _expiry(token)
        user = status.get("user") or {}
        name = str(user.get("username") or "")
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        if not name.startswith(_ACCOUNT) or not account:
            return Refusal("PERMISSION_DENIED", f"{name[:200]} is no ServiceAccount")
        pod_name, pod_uid = _extra(user, _POD_NAME), _extra(user, _POD_UID)
        if not pod_name or not pod_uid:
            return Refusal("PERMISSION_DENIED", f"the token of {name[:200]} is bound to no pod")
        pod = await self._api.pod(namespace, pod_name)
        if pod is None or pod["metadata"].get("uid") != pod_uid:
            gone = f"pod {namespace}/{pod_name} with the token's uid {pod_uid} is gone"
            return Refusal("PERMISSION_DENIED", gone)
        caller = Caller(
            namespace=namespace,
            pod_uid=pod_uid,
            pod_name=pod_name,
            service_account=account,
            sidecar=_label(pod) == "sidecar",
            expires_s=expires_s if expires_s > now_s else now_s + LEAST_S,
        )
        return await self._permitted(caller, pod, user)

    async def _permitted(self, caller: Caller, pod: Obj, user: Obj) -> Caller | Refusal:
        place = f"pod {caller.namespace}/{caller.pod_name}"
        if caller.sidecar:
            groups = [str(group) for group in user.get("groups") or ()]
            name = str(user["username"])
            if await self._api.access_review(name, groups, caller.namespace):
                return caller
            account = f"ServiceAccount {caller.namespace}/{caller.service_account}"
            wanted = "needs verb `use` on modelroutes.inference.weir.dev there"
            return Refusal("PERMISSION_DENIED", f"{account} of sidecar {place} {wanted}")
        if _label(pod) != "deployment":
            seen = f"label {ROUTER}={_label(pod)!r}"
            return Refusal("PERMISSION_DENIED", f"{place} is no router: saw {seen}")
        if not is_router(pod) or caller.service_account != ROUTER_NAME:
            wanted = f"wanted one of Deployment {ROUTER_NAME} with its ServiceAccount"
            return Refusal("PERMISSION_DENIED", f"{place} only calls itself a router: {wanted}")
        return caller


def _label(pod: Obj) -> str:
    return str((pod["metadata"].get("labels") or {}).get(ROUTER, ""))


def _extra(user: Obj, name: str) -> str:
    values = (user.get("extra") or {}).get(name) or [""]
    return str(values[0])


def _expiry(token: str) -> float:
    """Return when a token that was reviewed ends; a token that does not say never does."""
    part = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(claims["exp"])
    except (binascii.Error, ValueError, TypeError, KeyError):
        return float("inf")
