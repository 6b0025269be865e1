from collections import Counter

from weir_lab import questions, weights


def test_all_published_test_questions_are_there() -> None:
    assert len(questions.load()) == 3_080


def test_each_of_the_77_intents_has_40_questions() -> None:
    counts = Counter(question.intent for question in questions.load())
    assert set(counts.values()) == {40}
    assert len(counts) == 77


def test_every_gold_label_is_one_the_models_know() -> None:
    known = set(weights.load("small").intents)
    assert {question.intent for question in questions.load()} == known - {"unknown"}


def test_a_body_asks_as_the_models_were_trained() -> None:
    first = questions.load()[0]
    body = first.body("small", logprobs=True)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == first.text
    assert body["logprobs"] is True


def test_the_attribution_names_source_and_licence() -> None:
    assert "banking77" in questions.ATTRIBUTION
    assert "CC BY 4.0" in questions.ATTRIBUTION
