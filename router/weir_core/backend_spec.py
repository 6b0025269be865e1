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
    output_per_million_tokens: Number


class Accelerator(Form):
    """The devices of one replica."""

    resource_name: str = Field(min_length=1, max_length=253)
    """The extended resource, such as nvidia.com/gpu."""
    count: int = Field(ge=0, le=64)
    node_selector: dict[str, str] | None = None


class Parallelism(Form):
    """How one replica spreads over its devices."""

    tensor: int | None = Field(None, ge=1, le=64)
    pipeline: int | None = Field(None, ge=1, le=64)


class VolumeClaim(Form):
    """A claim of the same namespace."""

    claim_name: Subdomain


class WeightsCache(Form):
    """Where downloaded weights are kept."""

    persistent_volume_claim: VolumeClaim


class SecretKey(Form):
    """One key of a Secret of the same namespace."""

    name: Subdomain
    key: FileName


class Token(Form):
    """A token to download weights with."""

    secret_key_ref: SecretKey


class Startup(Form):
    """How long loading may take."""

    budget_ms: SomeTime


class Drain(Form):
    """How a replica is let go."""

    pre_stop_delay_ms: Duration | None = None
    grace_period_ms: Duration | None = None


class Vllm(Form):
    """A vLLM server that Weir runs."""

    image: str = Field(min_length=1, max_length=512)
    accelerator: Accelerator | None = None
    parallelism: Parallelism | None = None
    shared_memory: Quantity | None = None
    args: Listed[str] | None = Field(None, max_length=64)
    """Further flags of the server; those that Weir owns are refused."""
    weights_cache: WeightsCache | None = None
    hugging_face_token: Token | None = None
    startup: Startup | None = None
    drain: Drain | None = None
    pod_template: dict[str, Any] | None = None
    """Laid over the pod template that Weir makes."""


class ApiKeyRef(Form):
    """A key by the name of its file in the router's keys folder (Secret weir-router-keys)."""

    key: FileName


class External(Form):
    """An OpenAI-compatible service that somebody else runs."""

    url: BaseUrl
    """Scheme, host, optional port and path prefix; API paths such as /v1/models are appended."""
    api_key_ref: ApiKeyRef | None = None


class Queue(Form):
    """Requests that wait for room."""

    max_length: int | None = Field(None, ge=0, le=1_000_000)
    max_wait_ms: Duration | None = None


class BackendLimits(Form):
    """How much one router sends to the backend at once."""

    max_in_flight: int | None = Field(None, ge=1, le=1_000_000)
    queue: Queue | None = None


class BackendSpec(Form):
    """A place that answers: exactly one of vllm and external."""

    model: Model
    capabilities: Listed[Capability] | None = Field(None, max_length=16)
    """What it can do; a Confidence check needs Logprobs."""
    context_window: int | None = Field(None, ge=1, le=100_000_000)
    """Tokens of prompt and answer together."""
    pricing: Pricing | None = None
    vllm: Vllm | None = None
    external: External | None = None
    replicas: int | None = Field(None, ge=0, le=10_000)
    limits: BackendLimits | None = None
