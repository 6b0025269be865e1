"""The shipped weights: int8 rows with one scale each, and what follows from their shape.

Tensors carry the names a Hugging Face llama gives them, so the export renames nothing.
"""

import hashlib
import io
import json
from dataclasses import dataclass, replace
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MODELS = ("small", "large")
_SCALE = ".scale"


@dataclass(frozen=True)
class Shape:
    """Sizes of one llama: tied embeddings, no biases, as many key heads as query heads."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    rope_theta: float
    norm_eps: float

    @property
    def head(self) -> int:
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        block = 4 * self.width**2 + 3 * self.width * self.inner + 2 * self.width
        return self.vocabulary * self.width + self.layers * block + self.width


@dataclass(frozen=True)
class Weights:
    """One model's tensors in float32. `digest` names the file: 12 hex digits of its SHA-256."""

    shape: Shape
    intents: tuple[str, ...]
    tensors: MappingProxyType[str, Floats]
    digest: str


def load(model: str) -> Weights:
    """Return the weights that ship as `small` or `large`."""
    if model not in MODELS:
        raise ValueError(f"model {model!r}: wanted one of {', '.join(MODELS)}")
    return unpack((files("weir_lab") / "data" / f"{model}.npz").read_bytes())


def pack(shape: Shape, intents: tuple[str, ...], tensors: dict[str, Floats]) -> bytes:
    """Return the file: matrices as int8 with a float32 scale per row, vectors as they are."""
    meta = json.dumps({"shape": shape.__dict__, "intents": intents}).encode()
    arrays: dict[str, NDArray[Any]] = {"meta": np.frombuffer(meta, np.uint8)}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            arrays[name] = tensor
            continue
        steps, scale = _rounded(tensor, 127)
        arrays[name] = steps.astype(np.int8)
        arrays[name + _SCALE] = scale
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpack(file: bytes) -> Weights:
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        meta = json.loads(arrays["meta"].tobytes())
        tensors: dict[str, Floats] = {}
        for name in arrays.files:
            if name == "meta" or name.endswith(_SCALE):
                continue
            tensor = arrays[name].astype(np.float32)
            scale = name + _SCALE
            tensors[name] = tensor * arrays[scale] if scale in arrays.files else tensor
    return Weights(
        shape=Shape(**meta["shape"]),
        intents=tuple(meta["intents"]),
        tensors=MappingProxyType(tensors),
        digest=hashlib.sha256(file).hexdigest()[:12],
    )


def coarsen(weights: Weights, levels: int = 5) -> Weights:
    """Return the weights with every matrix row rounded to `levels` values (odd, 3 or more).

    Five levels break the small model in silence: half its answers are wrong, in valid JSON. The
    large one loses its JSON too. At seven the small one is wrong in one of four, JSON untouched.
    """
    if levels < 3 or levels % 2 == 0:
        raise ValueError(f"levels {levels}: wanted an odd number, 3 or more")
    tensors = dict(weights.tensors)
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            steps, scale = _rounded(tensor, levels // 2)
            tensors[name] = steps * scale
    return replace(
        weights, tensors=MappingProxyType(tensors), digest=f"{weights.digest}-{levels}levels"
    )


def flops_per_token(shape: Shape) -> int:
    """Return the multiply-adds of one token's matrix products, times two.

    Attention itself is left out: at these lengths it is below 3 %. Prices that are set in
    proportion to this follow the models' arithmetic, not the machine they run on.
    """
    block = 4 * shape.width**2 + 3 * shape.width * shape.inner
    return 2 * (shape.layers * block + shape.vocabulary * shape.width)


def _rounded(tensor: Floats, top: int) -> tuple[Floats, Floats]:
    """Return whole steps in -top..top and the scale of each row."""
    scale = np.abs(tensor).max(axis=1, keepdims=True) / np.float32(top)
    scale = np.maximum(scale, np.float32(1e-12)).astype(np.float32)
    return np.clip(np.round(tensor / scale), -top, top).astype(np.float32), scale
