"""The reply bodies of the OpenAI dialect: whole answers, stream chunks, token logprobs.

The end token counts as a completion token and stands in logprobs.content with its name, as the
model said it; the text of the answer never holds it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weir_lab.answers import Answer, Piece
from weir_lab.tokens import Tokenizer
from weir_lab.wire import Order

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """Shapes everything one request gets back. `created` is in seconds since 1970."""

    id: str
    created: int
    model: str
    fingerprint: str
    order: Order
    tokenizer: Tokenizer

    def whole(self, answer: Answer) -> bytes:
        text, order = answer.text(), self.order
        choice: dict[str, Any] = {"index": 0}
        if order.chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        choice["logprobs"] = self._logprobs(answer.pieces, 0) if order.logprobs else None
        choice["finish_reason"] = answer.finish
        body = self._body("chat.completion" if order.chat else "text_completion", [choice])
        return json.dumps(body | {"usage": usage(answer)}).encode()

    def opening(self) -> bytes:
        """Return the first chunk of a chat stream; completions have none."""
        if not self.order.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._chunk([choice])

    def parts(self, pieces: Sequence[Piece], offset: int, finish: str | None) -> bytes:
        """Return a chunk for each new piece; `finish` rides with the last.

        `offset` is the length of the text before them.
        """
        chunks = []
        for number, piece in enumerate(pieces, start=1):
            chunks.append(self._part(piece, offset, finish if number == len(pieces) else None))
            offset += len(piece.text)
        return b"".join(chunks)

    def _part(self, piece: Piece, offset: int, finish: str | None) -> bytes:
        logprobs = self._logprobs([piece], offset) if self.order.logprobs else None
        if not piece.text and not logprobs and not finish:
            return b""
        choice: dict[str, Any] = {"index": 0}
        if self.order.chat:
            choice["delta"] = {"content": piece.text} if piece.text else {}
        else:
            choice["text"] = piece.text
        return self._chunk([choice | {"logprobs": logprobs, "finish_reason": finish}])

    def closing(self, answer: Answer) -> bytes:
        """Return what follows the last chunk: usage where asked for, and the end mark."""
        if not self.order.usage:
            return DONE
        return self._chunk([], usage(answer)) + DONE

    def _chunk(self, choices: list[dict[str, Any]], used: dict[str, int] | None = None) -> bytes:
        kind = "chat.completion.chunk" if self.order.chat else "text_completion"
        body = self._body(kind, choices)
        if self.order.usage:
            body["usage"] = used
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _logprobs(self, pieces: Sequence[Piece], offset: int) -> dict[str, Any]:
        if self.order.chat:
            content = [
                self._entry(piece.token, piece.logprob)
                | {"top_logprobs": [self._entry(*pair) for pair in piece.top]}
                for piece in pieces
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece.text)
        return {
            "tokens": [self._name(piece.token) for piece in pieces],
            "token_logprobs": [piece.logprob for piece in pieces],
            "top_logprobs": [self._alternatives(piece) for piece in pieces],
            "text_offset": offsets,
        }

    def _alternatives(self, piece: Piece) -> dict[str, float]:
        """Return the most likely tokens; the chosen one is always among them."""
        pairs = (*piece.top, (piece.token, piece.logprob))
        return {self._name(token): logprob for token, logprob in pairs}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        spelling = self.tokenizer.spelling(token)
        return {"token": self._name(token), "logprob": logprob, "bytes": list(spelling)}

    def _name(self, token: int) -> str:
        return self.tokenizer.spelling(token).decode("utf8", "replace")


def usage(answer: Answer) -> dict[str, int]:
    prompt, completion = len(answer.ask.prompt), len(answer.pieces)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
