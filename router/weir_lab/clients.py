"""Live traffic for a route of the two small models: the demo's questions, asked for ever.

    python -m weir_lab.clients URL MODEL [--per-second N]

Says once in a while how many were answered, by whom, and how many in error. It scores nothing.
"""

import argparse
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

from weir_lab import questions

AT_ONCE = 8
TIMEOUT_S = 30.0
TOLD_S = 10.0


class Clients:
    """Several threads that ask one address in turn. `told` counts answers by arm and tier."""

    def __init__(self, url: str, model: str) -> None:
        self._url = urlsplit(url)
        self._bodies = [
            json.dumps(
                one.body(
                    model,
                    max_tokens=64,
                    temperature=0,
                    response_format={"type": "json_object"},
                )
            )
            for one in questions.load()
        ]
        self.told: Counter[str] = Counter()

    def run(self, per_second: float) -> None:
        """Ask until the process ends, each thread at its part of the rate."""
        for _ in range(AT_ONCE):
            threading.Thread(target=self._ask, args=(per_second / AT_ONCE,), daemon=True).start()
        while True:
            time.sleep(TOLD_S)
            told, self.told = self.told, Counter()
            print(", ".join(f"{n} {what}" for what, n in sorted(told.items())), flush=True)

    def _ask(self, per_second: float) -> None:
        chance = random.Random()
        while True:
            time.sleep(chance.expovariate(per_second))
            self.told[self.once(chance.choice(self._bodies))] += 1

    def once(self, body: str) -> str:
        """Send one request over a connection of its own; return who answered, or the error."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else None
        connection = (kind or http.client.HTTPConnection)(
            self._url.hostname or "", self._url.port, timeout=TIMEOUT_S
        )
        path = f"{self._url.path.rstrip('/')}/chat/completions"
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException) as error:
            return f"failed: {type(error).__name__}"
        finally:
            connection.close()
        if reply.status != 200:
            return f"answered with {reply.status}"
        return f"{reply.headers.get('x-weir-arm')} by {reply.headers.get('x-weir-tier')}"


def main(words: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser("weir_lab.clients", description=__doc__)
    parser.add_argument("url", help="as OpenAI clients take it: http://weir-router.llm.svc/v1")
    parser.add_argument("model")
    parser.add_argument("--per-second", type=float, default=20.0)
    args = parser.parse_args(words)
    if args.per_second <= 0:
        parser.error(f"--per-second: saw {args.per_second:g}, wanted more than 0")
    print(questions.ATTRIBUTION, file=sys.stderr)
    Clients(args.url, args.model).run(args.per_second)


if __name__ == "__main__":
    main()
