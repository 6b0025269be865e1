"""The command line of vLLM: what Weir says itself, and what people add.

Written for vLLM 0.32; `--shutdown-timeout` asks for 0.18 at least. What people may not say is
refused before an object gets here (`weir_core.vllm_flags`), but for a count of devices that a
server would not use: earlier releases took it.
"""

import msgspec

from weir_core.backend_spec import Vllm
from weir_core.defaults import DEFAULTS
from weir_core.errors import Problem
from weir_core.identity import PORT
from weir_core.resources import ModelBackend, title_of
from weir_core.vllm_flags import flag_of, widened

MODEL_DIR = "/models"
"""Where weights are mounted that are not downloaded."""
QUIET_PATHS = "/health,/metrics,/ping"


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


def device_problems(backend: ModelBackend, vllm: Vllm) -> tuple[Problem, ...]:
    """Return what is wrong with a count of devices that vLLM would not use."""
    accelerator = vllm.accelerator
    if accelerator is None or not accelerator.count or accelerator.resource_name in MANY_CORED:
        return ()
    tensor, pipeline = _parallelism(vllm)
    used, told = tensor * pipeline, f"tensor {tensor} × pipeline {pipeline}"
    for flag, size in widened(vllm.args or ()).items():
        used, told = used * size, f"{told} × {flag} {size}"
    if used == accelerator.count:
        return ()
    return (
        Problem(
            object=title_of(backend),
            field="spec.vllm.accelerator.count",
            seen=str(accelerator.count),
            wanted=f"{used}: vLLM takes {told} devices, no fewer and no more",
        ),
    )


def _parallelism(vllm: Vllm) -> tuple[int, int]:
    parallelism = vllm.parallelism
    return (
        (parallelism and parallelism.tensor) or DEFAULTS.tensor,
        (parallelism and parallelism.pipeline) or DEFAULTS.pipeline,
    )
