"""Keeps the feed's certificates in their Secret, shows them to routers, and renews them."""

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence

from weir_operator import certs
from weir_operator.feed import Feed
from weir_operator.kube import Kube, KubeError, Obj

SECRET = "weir-operator-feed"
"""The Secret of the feed's certificate authorities and serving certificate."""
LOOK_S, RETRY_S = 3_600.0, 2.0
log = logging.getLogger("weir.operator")


class Authority:
    """The certificates of the feed at one address. `told` hears the CA bundle (PEM)."""

    def __init__(
        self,
        kube: Kube,
        feed: Feed,
        *,
        namespace: str,
        names: Sequence[str],
        told: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._feed = feed
        self._namespace = namespace
        self._names = names
        self._told = told
        self._clock = clock

    async def open(self, address: str) -> None:
        """Open the feed as soon as there are certificates. Raises RuntimeError if it cannot."""
        while (shown := await self._current()) is None:  # noqa: ASYNC110 - it asks a server.
            await asyncio.sleep(RETRY_S)
        await self._feed.start(address, **shown)

    async def keep(self) -> None:
        """Renew for ever what is due."""
        while True:
            await asyncio.sleep(LOOK_S)
            if (shown := await self._current()) is not None:
                self._feed.renew(**shown)

    async def _current(self) -> dict[str, bytes] | None:
        """Return what the feed is to show, None while the API does not say."""
        try:
            secret = await self._secret()
            known = {n: base64.b64decode(text) for n, text in (secret.get("data") or {}).items()}
            wanted, bundle = certs.rotate(known, names=self._names, now_s=self._clock())
            if wanted != known:
                secret["data"] = {n: base64.b64encode(one).decode() for n, one in wanted.items()}
                await self._kube.replace(secret)
        except KubeError as error:
            log.warning("certificates not looked after", extra={"error": str(error)})
            return None
        self._told(bundle.decode())
        return {"certificate": wanted["tls.crt"], "key": wanted["tls.key"]}

    async def _secret(self) -> Obj:
        found = await self._kube.get("Secret", self._namespace, SECRET)
        if found is not None:
            return {"apiVersion": "v1", "kind": "Secret", **found}
        return await self._kube.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"namespace": self._namespace, "name": SECRET},
                "type": "Opaque",
            }
        )
