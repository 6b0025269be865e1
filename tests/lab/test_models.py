"""The shipped weights do what the model card says, on one question in ten or so."""

import json
import threading
from functools import cache
from importlib.resources import files

import pytest

from weir_lab import answers, questions, tokens, weights
from weir_lab.answers import Answer, Ask
from weir_lab.batch import Batch
from weir_lab.llama import Decoder

SAMPLE = questions.load()[::10][:300]
DATA = files("weir_lab") / "data"


@cache
def said(model: str, levels: int | None = None) -> tuple[str, ...]:
    loaded = weights.load(model)
    loaded = loaded if levels is None else weights.coarsen(loaded, levels)
    tokenizer, done = tokens.load(), threading.Semaphore(0)

    def deliver(news: list[Answer]) -> None:
        done.release(len(news))

    batch = Batch(Decoder(loaded), tokenizer, {}, deliver)
    batch.start()
    waiting = [Answer(Ask(tokenizer.question(question.text), 32)) for question in SAMPLE]
    for answer in waiting:
        batch.submit(answer)
    for _ in waiting:
        assert done.acquire(timeout=30)
    batch.stop()
    return tuple(answer.text() for answer in waiting)


def accuracy(model: str, levels: int | None = None) -> float:
    pairs = zip(said(model, levels), SAMPLE, strict=True)
    return sum(text == question.answer for text, question in pairs) / len(SAMPLE)


@pytest.mark.parametrize("model", weights.MODELS)
def test_accuracy_is_that_of_the_evaluation(model: str) -> None:
    """Four standard errors of a sample of 300."""
    stated = json.loads((DATA / "evaluation.json").read_text())["test"][model]["accuracy"]
    assert accuracy(model) == pytest.approx(stated, abs=0.09)


def test_the_large_model_is_clearly_better() -> None:
    assert accuracy("large") - accuracy("small") > 0.04


@pytest.mark.parametrize("model", weights.MODELS)
def test_every_answer_is_valid_json_with_one_text(model: str) -> None:
    for text in said(model):
        assert isinstance(json.loads(text)["intent"], str)


def test_five_levels_break_the_small_model_in_silence() -> None:
    json_share = sum(text.startswith('{"intent":"') for text in said("small", 5)) / len(SAMPLE)
    assert json_share > 0.95
    assert accuracy("small", 5) < accuracy("small") - 0.1


def test_a_question_of_another_domain_is_unknown() -> None:
    tokenizer, decoder = tokens.load(), Decoder(weights.load("large"), rows=1)
    told, text = decoder.admit([tokenizer.question("what is the weather in paris today")]), []
    while (token := int(told[0].argmax())) != tokens.END:
        text.append(token)
        told = decoder.step([token])
    assert tokenizer.decode(text) == answers.answer("unknown")


def test_the_calibration_belongs_to_the_shipped_small_model() -> None:
    found = json.loads((DATA / "calibration-small.json").read_text())
    assert found["model"] == weights.load("small").digest
    assert (found["version"], found["method"], found["n"]) == (1, "Logprob", 1_000)
    allowed = {"sum", "min", "mean", "q10", "margin_mean", "margin_min", "tokens"}
    assert found["features"].keys() <= allowed


def test_the_recommended_threshold_is_a_probability_below_one() -> None:
    found = json.loads((DATA / "evaluation.json").read_text())["recommended"]
    assert 0.5 < found["minProbability"] < 1
    assert found["allowedLoss"] == 0.005


def test_licences_and_card_ship_with_the_weights() -> None:
    card = (DATA / "MODEL_CARD.md").read_text()
    for needed in ("CC BY 4.0", "CC BY 3.0", "banking77", "clinc150", "MiniLM"):
        assert needed in card
