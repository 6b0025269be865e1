"""A llama in numpy: several conversations at once, each with its own keys and values.

Rows are conversations. Active rows are always 0..count-1, so that a step works on plain slices;
`release` moves the last row into the gap. It knows ids and probabilities, never text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weir_lab.weights import Floats, Weights

LONGEST = 256
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class _Layer:
    """Matrices ready to multiply from the right; norm gains and 1/sqrt(head) are folded in."""

    qkv: Floats
    out: Floats
    gate_up: Floats
    down: Floats


class Decoder:
    def __init__(self, weights: Weights, rows: int = 16) -> None:
        shape = weights.shape
        self.shape, self.rows, self.count = shape, rows, 0
        self._embedding = weights.tensors["model.embed_tokens.weight"]
        gain = weights.tensors["model.norm.weight"]
        self._unembedding = np.ascontiguousarray((self._embedding * gain).T)
        self._layers = [_fold(weights, number) for number in range(shape.layers)]
        size = (shape.layers, rows, shape.heads, LONGEST, shape.head)
        self._keys, self._values = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._length = np.zeros(rows, np.int64)
        turns = shape.rope_theta ** -(np.arange(0, shape.head, 2) / shape.head)
        angles = np.arange(LONGEST)[:, None] * turns[None]
        cos, sin = np.cos(angles), np.sin(angles)
        self._cos = np.concatenate([cos, cos], -1).astype(np.float32)[:, None]
        self._sin = np.concatenate([-sin, sin], -1).astype(np.float32)[:, None]

    def admit(self, prompts: Sequence[Sequence[int]]) -> Floats:
        """Read prompts into new rows; return log-probabilities of each one's next token.

        A prompt has 1 to LONGEST ids. Rows of the result are the new rows, in order.
        """
        lengths = np.array([len(prompt) for prompt in prompts])
        assert self.count + len(prompts) <= self.rows
        assert lengths.max() <= LONGEST
        first = self.count
        row = np.repeat(np.arange(len(prompts)), lengths)
        ends = np.cumsum(lengths)
        position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        self.count += len(prompts)
        self._length[first : self.count] = lengths
        ids = np.array([token for prompt in prompts for token in prompt])
        return self._forward(ids, first, row, position, ends - 1)

    def step(self, ids: Sequence[int]) -> Floats:
        """Append one id to every active row; return log-probabilities of the next."""
        assert len(ids) == self.count
        position = self._length[: self.count].copy()
        self._length[: self.count] += 1
        row = np.arange(self.count)
        return self._forward(np.array(ids), 0, row, position, row)

    def full(self, row: int) -> bool:
        """Return whether the row has no room for another id."""
        return bool(self._length[row] >= LONGEST)

    def release(self, row: int) -> None:
        """End a row; the last active row takes its number."""
        self.count -= 1
        used = int(self._length[self.count])
        for cache in (self._keys, self._values):
            cache[:, row, :, :used] = cache[:, self.count, :, :used]
        self._length[row] = used

    def _forward(self, ids: Whole, first: int, row: Whole, position: Whole, last: Whole) -> Floats:
        """Run tokens through all layers. `row` counts from `first`; `last` are the wanted ones."""
        x = self._embedding[ids]
        cos, sin = self._cos[position], self._sin[position]
        rows = len(last)
        for number, layer in enumerate(self._layers):
            qkv = (self._norm(x) @ layer.qkv).reshape(len(x), 3, self.shape.heads, -1)
            query, key = _rotate(qkv[:, 0], cos, sin), _rotate(qkv[:, 1], cos, sin)
            self._keys[number, first + row, :, position] = key
            self._values[number, first + row, :, position] = qkv[:, 2]
            if number == len(self._layers) - 1:
                # Nothing reads the other tokens' states after the last layer's keys.
                x, query, row, position = x[last], query[last], row[last], position[last]
            kept = slice(first, first + rows), slice(None), slice(int(position.max()) + 1)
            mixed = _attend(
                query, row, position, self._keys[number][kept], self._values[number][kept]
            )
            x = x + mixed.reshape(len(x), -1) @ layer.out
            gate, up = np.split(self._norm(x) @ layer.gate_up, 2, axis=-1)
            # Beyond 80 the exponential leaves float32, and the gate is shut anyway.
            x = x + (gate / (1 + np.exp(np.minimum(-gate, 80))) * up) @ layer.down
        logits: Floats = self._norm(x) @ self._unembedding
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        return logits

    def _norm(self, x: Floats) -> Floats:
        """Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, eq. 4; no gain."""
        mean = np.einsum("nd,nd->n", x, x)[:, None] / np.float32(self.shape.width)
        scaled: Floats = x / np.sqrt(mean + np.float32(self.shape.norm_eps))
        return scaled


def _fold(weights: Weights, number: int) -> _Layer:
    def part(name: str) -> Floats:
        return weights.tensors[f"model.layers.{number}.{name}.weight"]

    attention, inner = part("input_layernorm"), part("post_attention_layernorm")
    query = part("self_attn.q_proj") * np.float32(weights.shape.head**-0.5)
    qkv = np.concatenate([query, part("self_attn.k_proj"), part("self_attn.v_proj")])
    gate_up = np.concatenate([part("mlp.gate_proj"), part("mlp.up_proj")])
    return _Layer(
        qkv=np.ascontiguousarray((qkv * attention).T),
        out=np.ascontiguousarray(part("self_attn.o_proj").T),
        gate_up=np.ascontiguousarray((gate_up * inner).T),
        down=np.ascontiguousarray(part("mlp.down_proj").T),
    )


def _rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Apply rotary positions, half-split form (Su et al., RoFormer, 2021, eq. 34)."""
    half = x.shape[-1] // 2
    swapped: Floats = np.concatenate([x[..., half:], x[..., :half]], -1)
    turned: Floats = x * cos + swapped * sin
    return turned


def _attend(query: Floats, row: Whole, position: Whole, keys: Floats, values: Floats) -> Floats:
    """Return the mixed values of each query (token x head x size).

    keys and values: row x head x position x size. A query sees its row up to its position.
    """
    rows, heads, span, size = keys.shape
    single = len(query) == rows
    # Several queries of one row lie side by side; a lone query needs no padding.
    place = np.zeros_like(row) if single else position
    width = 1 if single else span
    spread = np.zeros((rows, heads, width, size), np.float32)
    spread[row, :, place] = query
    until = np.zeros((rows, width), np.int64)
    until[row, place] = position
    hidden = np.arange(span) > until[..., None]
    scores = spread @ keys.swapaxes(-1, -2)
    scores = np.where(hidden[:, None], np.float32(-1e30), scores)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed: Floats = (scores @ values)[row, :, place]
    return mixed
