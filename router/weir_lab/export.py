"""Writes a model as a Hugging Face LlamaForCausalLM folder: the weights served here, in float32.

    python -m weir_lab.export --model small|large --out DIR

transformers and vLLM read the folder. One difference stays: they parse a control token written
out in a question as control, weir_lab.tokens as text.
"""

import argparse
import json
import struct
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from weir_lab import weights
from weir_lab.llama import LONGEST
from weir_lab.tokens import END, PAD
from weir_lab.weights import Floats, Shape

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|' + ('system' if m['role'] == 'developer' else m['role']) + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def export(model: str, out: Path, levels: int | None = None) -> None:
    """Write the folder; files of an earlier export are replaced."""
    loaded = weights.load(model)
    loaded = loaded if levels is None else weights.coarsen(loaded, levels)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(safetensors(loaded.tensors))
    tokenizer = (files("weir_lab") / "data" / "tokenizer.json").read_bytes()
    (out / "tokenizer.json").write_bytes(tokenizer)
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf8")
    parts = {
        "config": _config(loaded.shape),
        "generation_config": {"eos_token_id": END, "pad_token_id": PAD, "do_sample": False},
        "tokenizer_config": _tokenizer_config(),
    }
    for name, part in parts.items():
        (out / f"{name}.json").write_text(json.dumps(part, indent=2) + "\n", encoding="utf8")


def safetensors(tensors: Mapping[str, Floats]) -> bytes:
    """Return a safetensors file: 8 bytes of header length, the JSON header, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name in sorted(tensors):
        part = tensors[name].astype("<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(part)],
        }
        parts.append(part)
        offset += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": LONGEST,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "torch_dtype": "float32",
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "model_max_length": LONGEST,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="weir_lab.export", description=__doc__)
    parser.add_argument("--model", choices=weights.MODELS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--levels", type=int, help="export the silently broken revision")
    args = parser.parse_args(arguments)
    export(args.model, args.out, args.levels)


if __name__ == "__main__":
    main()
