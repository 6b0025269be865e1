"""The command line of vLLM: what Weir says itself, what people add, and what they may not say.

Written for vLLM 0.32; `--shutdown-timeout` asks for 0.18 at least. `weir_core.crosscheck` has
already refused the flags that would take the server away from its Service; here are those that
only matter to a server in a pod of Weir's, and the count of devices.
"""

from collections.abc import Iterator, Mapping

import msgspec

from weir_core.backend_spec import Vllm
from weir_core.crosscheck import OWNED_FLAGS
from weir_core.defaults import DEFAULTS
from weir_core.errors import Problem
from weir_core.identity import PORT
from weir_core.resources import ModelBackend, title_of

MODEL_DIR = "/models"
"""Where weights are mounted that are not downloaded."""
QUIET_PATHS = "/health,/metrics,/ping"

_TLS = "routers and probes speak plain HTTP to it"
_ONE_POD = "a replica is one pod, and its one port answers for all of it"
MORE_OWNED_FLAGS: Mapping[str, str] = {
    "--ssl-ca-certs": _TLS,
    "--ssl-cert-reqs": _TLS,
    "--ssl-ciphers": _TLS,
    "--enable-ssl-refresh": _TLS,
    "--grpc": "routers speak HTTP to it",
    "--hf-token": "spec.vllm.huggingFaceToken says it, and keys do not belong in specs",
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

_WIDENING: Mapping[str, str] = {
    "--data-parallel-size": "--data-parallel-size",
    "-dp": "--data-parallel-size",
    "--prefill-context-parallel-size": "--prefill-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
}
"""Flags by which a server takes more devices than tensor times pipeline."""

MANY_CORED = frozenset({"aws.amazon.com/neuron"})
"""Resources of which one device has several cores, each a rank of its own."""


class Weights(msgspec.Struct, frozen=True):
    """What vLLM is told of the weights, and the volume that they are on, if any.

    `claim` names a PersistentVolumeClaim, `image` an OCI artefact; at most one of them is set.
    """

    model: str
    revision: str = ""
    claim: str = ""
    image: str = ""


def weights_of(uri: str, revision: str) -> Weights:
    """Return where a model's weights are.

    vLLM itself downloads hf:// (at a revision) and s3://. A revision of an OCI artefact is its
    tag or digest; of s3:// and pvc:// it only tells one content from the next.
    """
    scheme, _, place = uri.partition("://")
    match scheme:
        case "hf":
            return Weights(place, revision=revision)
        case "pvc":
            claim, _, path = place.partition("/")
            return Weights(f"{MODEL_DIR}/{path}".rstrip("/"), claim=claim)
        case "oci":
            joint = "@" if revision.startswith("sha256:") else ":"
            return Weights(MODEL_DIR, image=f"{place}{joint}{revision}" if revision else place)
    return Weights(uri)


def arguments(backend: ModelBackend, *, shutdown_s: int) -> list[str]:
    """Return what follows `vllm serve`: Weir's flags, then those that people added.

    `shutdown_s` is how long requests in flight may take after SIGTERM.
    """
    model, vllm = backend.spec.model, backend.spec.vllm
    assert vllm is not None, "only a vllm backend has a command line"
    assert model.uri is not None, "crosscheck wants the place of the weights, for vllm"
    weights = weights_of(model.uri, model.revision or "")
    tensor, pipeline = _parallelism(vllm)
    told = [
        weights.model,
        f"--served-model-name={model.served_name}",
        "--host=0.0.0.0",
        f"--port={PORT}",
        f"--tensor-parallel-size={tensor}",
        f"--pipeline-parallel-size={pipeline}",
        f"--shutdown-timeout={shutdown_s}",
    ]
    if weights.revision:
        told.append(f"--revision={weights.revision}")
    added = list(vllm.args or ())
    if "--disable-access-log-for-endpoints" not in map(flag_of, added):
        told.append(f"--disable-access-log-for-endpoints={QUIET_PATHS}")
    return told + added


def flag_problems(backend: ModelBackend) -> tuple[Problem, ...]:
    """Return the flags that Weir owns, and a count of devices that vLLM would not use."""
    vllm = backend.spec.vllm
    if vllm is None:
        return ()
    return (*_owned(backend, vllm), *_devices(backend, vllm))


def flag_of(arg: str) -> str:
    """Return the flag that an argument gives, "" for a value.

    As vLLM's parser reads it: up to "=", and up to "." (`--flag.key value` sets a key of a flag
    in JSON), underscores as dashes.
    """
    if not arg.startswith("-"):
        return ""
    return arg.partition("=")[0].partition(".")[0].replace("_", "-")


def _owned(backend: ModelBackend, vllm: Vllm) -> Iterator[Problem]:
    known = {**OWNED_FLAGS, **MORE_OWNED_FLAGS}
    for place, arg in enumerate(vllm.args or ()):
        flag = flag_of(arg)
        owned = next((one for one in known if flag and _means(flag, one)), None)
        if owned is not None:
            field = f"spec.vllm.args[{place}]"
            yield _problem(backend, field, f"'{flag}'", f"no {owned}: {known[owned]}")


def _means(flag: str, owned: str) -> bool:
    """Whether vLLM takes a flag for `owned`: whole, shortened, or with its number joined to it."""
    if owned.startswith("--"):
        return flag == owned or (len(flag) > 3 and owned.startswith(flag))
    if len(owned) == 2 and flag.startswith(owned):
        return len(flag) == 2 or flag[2:].isdigit()
    # One letter is enough for -tp; -dp is a flag of its own beside -dpn.
    return flag == owned or (len(flag) == 2 and owned.startswith(flag))


def _devices(backend: ModelBackend, vllm: Vllm) -> Iterator[Problem]:
    accelerator = vllm.accelerator
    if accelerator is None or not accelerator.count or accelerator.resource_name in MANY_CORED:
        return
    tensor, pipeline = _parallelism(vllm)
    used, told = tensor * pipeline, f"tensor {tensor} × pipeline {pipeline}"
    for flag, size in _widened(vllm).items():
        used, told = used * size, f"{told} × {flag} {size}"
    if used != accelerator.count:
        wanted = f"{used}: vLLM takes {told} devices, no fewer and no more"
        yield _problem(backend, "spec.vllm.accelerator.count", str(accelerator.count), wanted)


def _widened(vllm: Vllm) -> dict[str, int]:
    """Return the sizes that flags give; of one given twice vLLM takes the last."""
    args, sizes = vllm.args or (), {}
    for place, arg in enumerate(args):
        flag = flag_of(arg)
        name = next((told for one, told in _WIDENING.items() if flag and _means(flag, one)), None)
        text = arg.partition("=")[2] if "=" in arg else "".join(args[place + 1 : place + 2])
        if name is not None and text.isdigit():
            sizes[name] = max(1, int(text))
    return sizes


def _parallelism(vllm: Vllm) -> tuple[int, int]:
    parallelism = vllm.parallelism
    return (
        (parallelism and parallelism.tensor) or DEFAULTS.tensor,
        (parallelism and parallelism.pipeline) or DEFAULTS.pipeline,
    )


def _problem(backend: ModelBackend, field: str, seen: str, wanted: str) -> Problem:
    return Problem(object=title_of(backend), field=field, seen=seen, wanted=wanted)
