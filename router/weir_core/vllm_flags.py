"""Flags of vLLM: which of them Weir gives itself, and how many devices the others take.

Written for vLLM 0.32, and read as its parser reads: shortened, with underscores, with a key of a
JSON value after a dot, with a number joined to one letter. The one place that knows: `weir
validate`, the CRD's rules (`hack/gen`) and the operator go by it.
"""

from collections.abc import Mapping, Sequence

_SERVICE = "Weir's Service and probes rely on it"
_TLS = "routers and probes speak plain HTTP to it"
_ONE_POD = "a replica is one pod, and its one port answers for all of it"
OWNED_FLAGS: Mapping[str, str] = {
    "--model": "spec.model.uri says it",
    "--served-model-name": "spec.model.servedName says it",
    "--revision": "spec.model.revision says it",
    "--tensor-parallel-size": "spec.vllm.parallelism.tensor says it",
    "-tp": "spec.vllm.parallelism.tensor says it",
    "--pipeline-parallel-size": "spec.vllm.parallelism.pipeline says it",
    "-pp": "spec.vllm.parallelism.pipeline says it",
    "--shutdown-timeout": "spec.vllm.drain says it",
    "--host": _SERVICE,
    "--port": _SERVICE,
    "--uds": _SERVICE,
    "--root-path": "routers call the plain API paths",
    "--grpc": "routers speak HTTP to it",
    "--ssl-keyfile": _TLS,
    "--ssl-certfile": _TLS,
    "--ssl-ca-certs": _TLS,
    "--ssl-cert-reqs": _TLS,
    "--ssl-ciphers": _TLS,
    "--enable-ssl-refresh": _TLS,
    "--api-key": "the workload is closed to all but routers, and keys do not belong in specs",
    "--hf-token": "spec.vllm.huggingFaceToken says it, and keys do not belong in specs",
    "--config": "a file could set any of the flags that Weir owns",
    "--headless": _ONE_POD,
    "--nnodes": _ONE_POD,
    "-n": _ONE_POD,
    "--node-rank": _ONE_POD,
    "-r": _ONE_POD,
    "--data-parallel-rank": _ONE_POD,
    "-dpn": _ONE_POD,
    "--data-parallel-start-rank": _ONE_POD,
    "-dpr": _ONE_POD,
    "--data-parallel-external-lb": _ONE_POD,
    "-dpe": _ONE_POD,
    "--data-parallel-hybrid-lb": _ONE_POD,
    "-dph": _ONE_POD,
    "--data-parallel-multi-port-external-lb": _ONE_POD,
    "-dpm": _ONE_POD,
}
"""Flags that people may not give, each with the reason."""

LEAST_SHORTENED = 4
"""Signs that a long flag has at least, however it is shortened."""

WIDENING: Mapping[str, str] = {
    "--data-parallel-size": "--data-parallel-size",
    "-dp": "--data-parallel-size",
    "--prefill-context-parallel-size": "--prefill-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
}
"""Flags by which a server takes more devices than tensor times pipeline, and their full names."""


def flag_of(arg: str) -> str:
    """Return the flag that an argument gives, "" for a value.

    Up to "=", "." (`--flag.key value` sets a key of a flag in JSON) or a space, underscores as
    dashes.
    """
    if not arg.startswith("-"):
        return ""
    words = arg.partition("=")[0].partition(".")[0].split()
    return words[0].replace("_", "-")


def owned_flag(flag: str) -> str | None:
    """Return the flag of Weir's own that vLLM takes `flag` for, None for one of people's."""
    return next((one for one in OWNED_FLAGS if flag and _means(flag, one)), None)


def widened(args: Sequence[str]) -> dict[str, int]:
    """Return the sizes that WIDENING flags give; of one given twice vLLM takes the last."""
    sizes = {}
    for place, arg in enumerate(args):
        flag = flag_of(arg)
        name = next((told for one, told in WIDENING.items() if flag and _means(flag, one)), None)
        text = arg.partition("=")[2] if "=" in arg else "".join(args[place + 1 : place + 2])
        if name is not None and text.isdigit():
            sizes[name] = max(1, int(text))
    return sizes


def _means(flag: str, owned: str) -> bool:
    """Whether vLLM takes a flag for `owned`: whole, shortened, or with its number joined to it."""
    if owned.startswith("--"):
        return flag == owned or (len(flag) >= LEAST_SHORTENED and owned.startswith(flag))
    if len(owned) == 2 and flag.startswith(owned):
        return len(flag) == 2 or flag[2:].isdigit()
    # One letter is enough for -tp; -dp is a flag of its own beside -dpn.
    return flag == owned or (len(flag) == 2 and owned.startswith(flag))
