import json
import struct
from pathlib import Path

import numpy as np
import pytest

from weir_lab import export, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    export.main(["--model", "small", "--out", str(out)])
    return out


def test_the_folder_holds_what_transformers_reads(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_config_is_a_llama_of_the_model_s_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    shape = weights.load("small").shape
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] == shape.width
    assert config["head_dim"] * config["num_attention_heads"] == shape.width
    assert config["max_position_embeddings"] >= 256
    assert config["tie_word_embeddings"] is True


def test_the_safetensors_file_holds_the_served_numbers(folder: Path) -> None:
    file = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    tensors = weights.load("small").tensors
    assert header.keys() == tensors.keys()
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        numbers = np.frombuffer(file[8 + length + start : 8 + length + end], "<f4")
        assert (numbers.reshape(entry["shape"]) == tensors[name]).all()


def test_the_offsets_cover_the_file_without_a_gap(folder: Path) -> None:
    file = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    spans = sorted(entry["data_offsets"] for name, entry in header.items() if name[0] != "_")
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert 8 + length + spans[-1][1] == len(file)


def test_the_chat_template_and_the_end_token_are_set(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert "<|assistant|>" in config["chat_template"]
    assert config["eos_token"] == "<|end|>"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 4


def test_the_broken_revision_exports_too(tmp_path: Path) -> None:
    export.main(["--model", "small", "--out", str(tmp_path), "--levels", "5"])
    whole = (tmp_path / "model.safetensors").read_bytes()
    assert whole != export.safetensors(weights.load("small").tensors)
