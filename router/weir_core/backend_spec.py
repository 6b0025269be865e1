"""What people write of a backend: a model, what it can do and costs, and where it runs.

Fields that stand together wrongly are found by `crosscheck`; defaults belong to `compile`.
"""

from typing import Any, Literal

from pydantic import Field

from weir_core.forms import (
    BaseUrl,
    Duration,
    FileName,
    Form,
    Listed,
    ModelName,
    ModelUri,
    Number,
    Quantity,
    SomeTime,
    Subdomain,
)

Capability = Literal["Chat", "Completions", "Tools", "StructuredOutput", "Logprobs"]


class Model(Form):
    """The model that a backend serves."""

    uri: ModelUri | None = None
    """Where the weights are: hf://, oci://, s3:// or pvc://. Needed by vllm."""
    revision: str | None = Field(None, min_length=1, max_length=128)
    """The pinned version of the weights: a commit or a digest."""
    served_name: ModelName
    """The name in the `model` field of requests sent to the backend."""


class Pricing(Form):
    """What tokens cost, in the one currency of the route's budget."""

    input_per_million_tokens: Number
    """Price of a million tokens of prompt."""
    output_per_million_tokens: Number
    """Price of a million tokens of answer."""


class Accelerator(Form):
    """The devices of one replica."""

    resource_name: str = Field(min_length=1, max_length=253)
    """The extended resource, such as nvidia.com/gpu."""
    count: int = Field(ge=0, le=64)
    """Devices of one replica; 0 for a server on the CPU."""
    node_selector: dict[str, str] | None = None
    """Labels of the nodes that have the devices."""


class Parallelism(Form):
    """How one replica spreads over its devices."""

    tensor: int | None = Field(None, ge=1, le=64)
    """Devices that share each layer."""
    pipeline: int | None = Field(None, ge=1, le=64)
    """Stages that the layers are split into."""


class VolumeClaim(Form):
    """A claim of the same namespace."""

    claim_name: Subdomain
    """The PersistentVolumeClaim's name."""


class WeightsCache(Form):
    """Where downloaded weights are kept."""

    persistent_volume_claim: VolumeClaim
    """A PersistentVolumeClaim of the same namespace."""


class SecretKey(Form):
    """One key of a Secret of the same namespace."""

    name: Subdomain
    """The Secret's name."""
    key: FileName
    """The key in its data."""


class Token(Form):
    """A token to download weights with."""

    secret_key_ref: SecretKey
    """One key of a Secret of the same namespace."""


class Startup(Form):
    """How long loading may take."""

    budget_ms: SomeTime
    """From the start of a replica until it serves; past it the replica is called failed."""


class Drain(Form):
    """How a replica is let go."""

    pre_stop_delay_ms: Duration | None = None
    """Time for routers to stop sending, before the server is told to end."""
    grace_period_ms: Duration | None = None
    """Time for requests in flight to end, the delay included."""


class Vllm(Form):
    """A vLLM server that Weir runs."""

    image: str = Field(min_length=1, max_length=512)
    """The container image; pin it by a tag that does not move, or by digest."""
    accelerator: Accelerator | None = None
    """The devices of one replica; absent, none."""
    parallelism: Parallelism | None = None
    """How one replica spreads over its devices."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, such as 2Gi; tensor parallelism needs it."""
    args: Listed[str] | None = Field(None, max_length=64)
    """Further flags of the server; those that Weir owns are refused."""
    weights_cache: WeightsCache | None = None
    """Where downloaded weights are kept; absent, each replica downloads them anew."""
    hugging_face_token: Token | None = None
    """A token to download weights with."""
    startup: Startup | None = None
    """How long loading may take."""
    drain: Drain | None = None
    """How a replica is let go."""
    pod_template: dict[str, Any] | None = None
    """Laid over the pod template that Weir makes."""


class ApiKeyRef(Form):
    """A key by the name of its file in the router's keys folder (Secret weir-router-keys)."""

    key: FileName
    """The key in the Secret weir-router-keys of the route's namespace; without a cluster, the name
    of a file in the folder that --keys names. While it is missing the service is not called."""


class External(Form):
    """An OpenAI-compatible service that somebody else runs."""

    url: BaseUrl
    """Scheme, host, optional port and path prefix; API paths such as /v1/models are appended."""
    api_key_ref: ApiKeyRef | None = None
    """The key that is sent as bearer token; absent, none."""


class Queue(Form):
    """Requests that wait for room."""

    max_length: int | None = Field(None, ge=0, le=1_000_000)
    """Requests that may wait; further ones go elsewhere or are refused. 0 is no queue."""
    max_wait_ms: Duration | None = None
    """How long one may wait."""


class BackendLimits(Form):
    """How much one router sends to the backend at once."""

    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    """Requests of one router that the backend works on at the same time."""
    queue: Queue | None = None
    """Requests that wait for room."""


class BackendSpec(Form):
    """A place that answers: exactly one of vllm and external."""

    model: Model
    """The model that it serves."""
    capabilities: Listed[Capability] | None = Field(None, max_length=16)
    """What it can do; a Confidence check needs Logprobs."""
    context_window: int | None = Field(None, ge=1, le=100_000_000)
    """Tokens of prompt and answer together."""
    pricing: Pricing | None = None
    """What tokens cost; absent, nothing."""
    vllm: Vllm | None = None
    """A vLLM server that Weir runs in this cluster."""
    external: External | None = None
    """An OpenAI-compatible service that somebody else runs."""
    replicas: int | None = Field(None, ge=0, le=10_000)
    """Pods of a vllm backend."""
    limits: BackendLimits | None = None
    """How much one router sends to it at once."""
