"""Answers many requests with one decoder, in one thread, joining and leaving between tokens.

New requests are read together and then continue with those already being answered: a request
waits for one token of the others, not for their end. Alone or in company, greedy answers agree.
"""

import queue
import threading
from collections.abc import Callable

import numpy as np

from weir_lab.answers import Answer, Ask, Node, Piece, Writer
from weir_lab.llama import Decoder
from weir_lab.tokens import END, Tokenizer
from weir_lab.weights import Floats


class _Row:
    """One answer on its way: its writer, its place in the trie, its own chance."""

    def __init__(self, answer: Answer, tokenizer: Tokenizer, trie: Node) -> None:
        self.answer = answer
        self.writer = Writer(tokenizer, answer.ask.stop)
        self.node = trie if answer.ask.constrained else None
        self.chance = np.random.default_rng(answer.ask.seed) if answer.ask.temperature else None


class Batch:
    """`deliver` is called from the batch's thread with the answers that have news.

    An answer that is not streamed has news once, at its end.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        trie: Node,
        deliver: Callable[[list[Answer]], object],
    ) -> None:
        self._decoder, self._tokenizer, self._trie = decoder, tokenizer, trie
        self._deliver = deliver
        self._waiting: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._rows: list[_Row] = []
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current token; unfinished answers end in error."""
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def submit(self, answer: Answer) -> None:
        self._waiting.put(answer)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        return len(self._rows)

    @property
    def waiting(self) -> int:
        return self._waiting.qsize()

    def _run(self) -> None:
        try:
            while (fresh := self._take()) is not None:
                news = self._admit(fresh) + self._step()
                if news:
                    self._deliver(list(dict.fromkeys(news)))
        finally:
            self._fail()

    def _take(self) -> list[_Row] | None:
        """Return what fits into free rows; wait when idle. None ends the thread.

        A request that was cancelled while it waited is dropped: nobody listens any more.
        """
        fresh: list[_Row] = []
        for _ in range(self._decoder.rows - len(self._rows)):
            try:
                answer = self._waiting.get(block=not (self._rows or fresh))
            except queue.Empty:
                break
            if answer is None:
                self._rows += fresh
                return None
            if not answer.cancelled:
                fresh.append(_Row(answer, self._tokenizer, self._trie))
        return fresh

    def _admit(self, fresh: list[_Row]) -> list[Answer]:
        if not fresh:
            return []
        first = len(self._rows)
        self._rows += fresh
        told = self._decoder.admit([row.answer.ask.prompt for row in fresh])
        return self._write(told, first)

    def _step(self) -> list[Answer]:
        if not self._rows:
            return []
        told = self._decoder.step([row.answer.pieces[-1].token for row in self._rows])
        return self._write(told, 0)

    def _write(self, told: Floats, first: int) -> list[Answer]:
        """Append one token to the rows from `first` on; return the answers with news."""
        best = told.argmax(-1).tolist()
        news = []
        for number in reversed(range(len(told))):
            row = self._rows[first + number]
            token = _pick(row, told[number], best[number])
            _append(row, token, told[number], full=self._decoder.full(first + number))
            answer = row.answer
            if answer.finish or answer.stream:
                news.append(answer)
            if answer.finish:
                self._release(first + number)
        return news

    def _release(self, number: int) -> None:
        self._decoder.release(number)
        self._rows[number] = self._rows[-1]
        self._rows.pop()

    def _fail(self) -> None:
        left = [row.answer for row in self._rows]
        while not self._waiting.empty():
            answer = self._waiting.get()
            left += [answer] if answer else []
        for answer in left:
            answer.finish = "error"
        if left:
            self._deliver(left)


def _pick(row: _Row, told: Floats, best: int) -> int:
    """Return the next token: among the trie's where constrained, by chance where asked."""
    if row.node is None and row.chance is None:
        return best
    allowed = np.arange(len(told)) if row.node is None else np.array(list(row.node))
    if row.chance is None:
        token = int(allowed[told[allowed].argmax()])
    else:
        token = _draw(row.answer.ask, told[allowed], allowed, row.chance)
    if row.node is not None:
        row.node = row.node[token]
    return token


def _draw(ask: Ask, told: Floats, allowed: np.ndarray, chance: np.random.Generator) -> int:
    """Draw by temperature from the smallest set that holds top_p (Holtzman et al., 2020)."""
    scaled = told.astype(np.float64) / ask.temperature
    share = np.exp(scaled - scaled.max())
    share /= share.sum()
    order = np.argsort(-share, kind="stable")
    # The token that crosses top_p is still in.
    inside = order[: int((np.cumsum(share[order]) < ask.top_p).sum()) + 1]
    weight = share[inside] / share[inside].sum()
    return int(allowed[chance.choice(inside, p=weight)])


def _append(row: _Row, token: int, told: Floats, *, full: bool) -> None:
    answer = row.answer
    used = len(answer.pieces) + 1
    finish = "stop" if token == END else None
    if finish is None and (used >= answer.ask.max_tokens or full):
        finish = "length"
    text = row.writer.add(token, last=finish is not None)
    if row.writer.stopped:
        finish = "stop"
    if answer.cancelled:
        finish = "abort"
    top = _best(told, answer.ask.top) if answer.ask.top else ()
    answer.pieces.append(Piece(token, float(told[token]), top, text))
    answer.finish = finish


def _best(told: Floats, count: int) -> tuple[tuple[int, float], ...]:
    found = np.argpartition(-told, count)[:count]
    found = found[np.argsort(-told[found], kind="stable")]
    return tuple(zip(found.tolist(), told[found].tolist(), strict=True))
