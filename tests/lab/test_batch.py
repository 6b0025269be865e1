import threading
from collections.abc import Callable, Iterator

import pytest

from weir_lab import answers, questions, tokens, weights
from weir_lab.answers import Answer, Ask, Writer
from weir_lab.batch import Batch
from weir_lab.llama import Decoder

TOKENIZER = tokens.load()
SMALL = weights.load("small")
Run = Callable[[list[Ask]], list[Answer]]


class Finished:
    """Counts answers as they end."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def __call__(self, news: list[Answer]) -> None:
        self._count.release(sum(answer.finish is not None for answer in news))

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._count.acquire(timeout=20)


@pytest.fixture
def run() -> Iterator[Run]:
    finished = Finished()
    trie = answers.trie(TOKENIZER, SMALL.intents)
    batch = Batch(Decoder(SMALL, rows=4), TOKENIZER, trie, finished)
    batch.start()

    def ask(asks: list[Ask]) -> list[Answer]:
        given = [Answer(ask) for ask in asks]
        for answer in given:
            batch.submit(answer)
        finished.wait(len(given))
        return given

    yield ask
    batch.stop()
    assert not batch.alive


def question(text: str = "Where is my card?", **more: object) -> Ask:
    return Ask(TOKENIZER.question(text), **{"max_tokens": 32} | more)  # type: ignore[arg-type]


def test_more_requests_than_rows_are_all_answered_as_alone(run: Run) -> None:
    asks = [question(q.text) for q in questions.load()[::150]]
    together = [answer.text() for answer in run(asks)]
    assert together == [run([ask])[0].text() for ask in asks]


def test_an_answer_that_is_cut_ends_in_length(run: Run) -> None:
    [answer] = run([question(max_tokens=3)])
    assert (answer.finish, len(answer.pieces)) == ("length", 3)


def test_a_stop_text_ends_the_answer_before_itself(run: Run) -> None:
    [answer] = run([question(stop=('":"',))])
    assert (answer.text(), answer.finish) == ('{"intent', "stop")


def test_a_whole_answer_ends_in_stop_with_the_end_token(run: Run) -> None:
    [answer] = run([question()])
    assert (answer.finish, answer.pieces[-1].token) == ("stop", tokens.END)


def test_alternatives_come_most_likely_first(run: Run) -> None:
    [answer] = run([question(top=5)])
    for piece in answer.pieces:
        logprobs = [logprob for _, logprob in piece.top]
        assert logprobs == sorted(logprobs, reverse=True)
        assert piece.top[0] == (piece.token, piece.logprob)


def test_one_seed_draws_one_answer(run: Run) -> None:
    asks = [question("hello", temperature=1.8, seed=11)] * 2
    first, second = run(asks)
    assert first.pieces == second.pieces


def test_heat_draws_other_answers_than_greed(run: Run) -> None:
    drawn = run([question("hello", temperature=2.0, seed=seed) for seed in range(8)])
    assert len({answer.text() for answer in drawn}) > 1


def test_a_tiny_top_p_is_greedy(run: Run) -> None:
    drawn, greedy = run([question(temperature=2.0, top_p=1e-9, seed=3), question()])
    assert drawn.text() == greedy.text()


def test_a_constrained_answer_is_always_a_known_intent(run: Run) -> None:
    """Even from a prompt no training showed, at the highest temperature."""
    known = {answers.answer(intent) for intent in SMALL.intents}
    hot = [Ask([9, 8, 7], 32, temperature=2.0, seed=n, constrained=True) for n in range(10)]
    assert {answer.text() for answer in run(hot)} <= known


def test_a_cancelled_request_that_waits_is_never_read(run: Run) -> None:
    gone = question()
    given = Answer(gone)
    given.cancelled = True
    assert run([question()])[0].finish == "stop"
    assert given.pieces == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_batch_fails_its_answers() -> None:
    """An id beyond the vocabulary breaks the arithmetic; the wire never lets one through."""
    finished = Finished()
    batch = Batch(Decoder(SMALL, rows=2), TOKENIZER, {}, finished)
    given = [Answer(Ask([99_999], 5)), Answer(question()), Answer(question())]
    for answer in given:
        batch.submit(answer)
    batch.start()
    finished.wait(len(given))
    batch.stop()
    assert [answer.finish for answer in given] == ["error"] * 3
    assert not batch.alive


def test_a_writer_holds_back_what_may_become_a_stop_text() -> None:
    writer = Writer(TOKENIZER, ("card_x",))
    card, rest = TOKENIZER.encode("card"), TOKENIZER.encode("_arrival")
    assert "".join(map(writer.add, card)) == ""
    assert "".join(map(writer.add, rest)) == "card_arrival"


def test_a_writer_gives_out_whole_characters_only() -> None:
    writer = Writer(TOKENIZER)
    parts = [writer.add(token) for token in TOKENIZER.encode("é🙂")]
    assert "".join(parts) == "é🙂"
    assert not any("\ufffd" in part for part in parts)
