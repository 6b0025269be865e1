import numpy as np
import pytest

from weir_lab import weights

SHAPE = weights.Shape(4, 1, 1, 8, 6, 10_000.0, 1e-5)


def test_packing_loses_at_most_half_a_step_of_each_row() -> None:
    tensor = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    loaded = weights.unpack(weights.pack(SHAPE, ("a",), {"matrix": tensor}))
    half_step = np.abs(tensor).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(loaded.tensors["matrix"] - tensor) <= half_step * 1.001).all()


def test_packing_keeps_vectors_shape_and_intents_exactly() -> None:
    vector = np.array([0.1, -2.5], np.float32)
    loaded = weights.unpack(weights.pack(SHAPE, ("a", "b"), {"vector": vector}))
    assert (loaded.tensors["vector"] == vector).all()
    assert (loaded.shape, loaded.intents) == (SHAPE, ("a", "b"))


def test_one_set_of_weights_always_packs_to_the_same_bytes() -> None:
    tensors = {"matrix": np.eye(3, dtype=np.float32)}
    assert weights.pack(SHAPE, (), tensors) == weights.pack(SHAPE, (), tensors)


def test_an_all_zero_row_stays_zero() -> None:
    packed = weights.pack(SHAPE, (), {"matrix": np.zeros((2, 3), np.float32)})
    assert not weights.unpack(packed).tensors["matrix"].any()


def test_five_levels_leave_five_values_a_row() -> None:
    rows = weights.coarsen(weights.load("small"), 5).tensors["model.embed_tokens.weight"]
    assert max(len(np.unique(row)) for row in rows) == 5


def test_a_coarsened_model_has_a_digest_of_its_own() -> None:
    small = weights.load("small")
    assert weights.coarsen(small).digest != small.digest


@pytest.mark.parametrize("levels", [1, 4], ids=["one level", "an even number"])
def test_levels_without_a_middle_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match="odd number"):
        weights.coarsen(weights.load("small"), levels)


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'huge'"):
        weights.load("huge")


@pytest.mark.parametrize("model", weights.MODELS)
def test_the_parameter_count_is_that_of_the_tensors(model: str) -> None:
    loaded = weights.load(model)
    assert loaded.shape.parameters == sum(tensor.size for tensor in loaded.tensors.values())


def test_the_large_model_costs_nineteen_times_the_small_one() -> None:
    small, large = (weights.flops_per_token(weights.load(m).shape) for m in weights.MODELS)
    assert (small, large) == (181_248, 3_440_640)
