"""The OpenAI dialect of the model server: bodies in, bodies out, no sockets.

Accepted and used: model, messages or prompt, max_tokens, max_completion_tokens, temperature,
top_p, seed, stop, stream, stream_options, logprobs, top_logprobs, n = 1, response_format.

Three choices of its own. Temperature is 0 where absent: these models label, they do not chat.
A text prompt of /v1/completions is framed as one question, for they know nothing else. With a
response_format of json_object or json_schema answers keep to the JSON of the known intents; the
schema itself is not read. Control tokens written in a text are text; ids pass as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from weir_lab.answers import Ask
from weir_lab.llama import LONGEST
from weir_lab.tokens import ROLES, Tokenizer, Turn

MOST_ALTERNATIVES = 20
MOST_STOPS = 4
# Far more than 256 tokens of any ordinary text; splitting a longer one would hold up the others.
LONGEST_TEXT = 2_048
Body = Mapping[str, Any]


class RequestError(Exception):
    """A request the server refuses, with what it answers instead."""

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        kind = "not_found_error" if self.status == 404 else "invalid_request_error"
        kind = "server_error" if self.status >= 500 else kind
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


@dataclass(frozen=True, slots=True)
class Order:
    """One request understood. `logprobs` says whether the reply carries them."""

    ask: Ask
    chat: bool
    stream: bool
    usage: bool
    logprobs: bool


def read_chat(body: Body, tokenizer: Tokenizer, served: str) -> Order:
    """Return the order of a /v1/chat/completions body. Raises RequestError."""
    _check(body, served)
    logprobs = _flag(body, "logprobs")
    top = _whole(body, "top_logprobs", 0, low=0, high=MOST_ALTERNATIVES)
    if top and not logprobs:
        raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    turns = [_turn(message) for message in _messages(body)]
    _fit(sum(len(turn.text) for turn in turns), "messages")
    prompt = tokenizer.frame(turns)
    wanted = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    room = _room(prompt)
    limit = min(_whole(body, wanted, room, low=1), room)
    return _order(body, prompt, chat=True, limit=limit, logprobs=logprobs, top=top)


def read_completion(body: Body, tokenizer: Tokenizer, served: str) -> Order:
    """Return the order of a /v1/completions body. Raises RequestError."""
    _check(body, served)
    logprobs = body.get("logprobs") is not None
    top = _whole(body, "logprobs", 0, low=0, high=MOST_ALTERNATIVES)
    prompt = _prompt(body, tokenizer)
    limit = min(_whole(body, "max_tokens", 16, low=1), _room(prompt))
    return _order(body, prompt, chat=False, limit=limit, logprobs=logprobs, top=top)


def _order(
    body: Body, prompt: list[int], *, chat: bool, limit: int, logprobs: bool, top: int
) -> Order:
    stream = _flag(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, Mapping):
        raise RequestError("stream_options must be an object", param="stream_options")
    if options and not stream:
        raise RequestError("stream_options needs stream to be true", param="stream_options")
    ask = Ask(
        prompt=prompt,
        max_tokens=limit,
        temperature=_number(body, "temperature", 0.0, low=0.0, high=2.0),
        top_p=_number(body, "top_p", 1.0, low=0.0, high=1.0),
        seed=_seed(body),
        stop=_stop(body),
        top=top,
        constrained=_constrained(body),
    )
    return Order(ask, chat, stream, stream and _flag(options, "include_usage"), logprobs)


def _check(body: Body, served: str) -> None:
    model = body.get("model")
    if not isinstance(model, str):
        raise RequestError("model is required and must be a string", param="model")
    if model != served:
        message = f"The model `{model}` does not exist."
        raise RequestError(message, param="model", status=404, code="model_not_found")
    if _whole(body, "n", 1, low=1) != 1:
        raise RequestError("n must be 1: this server gives one answer a request", param="n")


def _messages(body: Body) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages is required and must be a non-empty array", param="messages")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise RequestError(f"{where} must be an object", param=where)
        if message.get("role") not in ROLES:
            known = ", ".join(ROLES)
            raise RequestError(f"{where}.role must be one of {known}", param=f"{where}.role")
        if not isinstance(_content(message), str):
            raise RequestError(f"{where}.content must be text", param=f"{where}.content")
    return messages


def _turn(message: Mapping[str, Any]) -> Turn:
    return Turn(message["role"], cast(str, _content(message)))


def _content(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message, its text parts joined; None where it is not text."""
    content = message.get("content")
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    parts = [part.get("text") for part in content if isinstance(part, Mapping)]
    if len(parts) < len(content) or not all(isinstance(part, str) for part in parts):
        return None
    return "".join(cast(list[str], parts))


def _prompt(body: Body, tokenizer: Tokenizer) -> list[int]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        _fit(len(prompt), "prompt")
        return tokenizer.question(prompt)
    ids = prompt if isinstance(prompt, list) and prompt else [None]
    if all(type(token) is int and 0 <= token < tokenizer.size for token in ids):
        return cast(list[int], ids)
    raise RequestError("prompt must be one text or one array of token ids", param="prompt")


def _fit(length: int, param: str) -> None:
    if length > LONGEST_TEXT:
        message = (
            f"This model's maximum context length is {LONGEST} tokens and {LONGEST_TEXT:,} "
            f"characters; the prompt has {length:,} characters."
        )
        raise RequestError(message, param=param, code="context_length_exceeded")


def _room(prompt: list[int]) -> int:
    """Return how many tokens may follow the prompt."""
    room = LONGEST - len(prompt)
    if room < 1:
        message = (
            f"This model's maximum context length is {LONGEST} tokens; "
            f"the prompt alone has {len(prompt)}."
        )
        raise RequestError(message, param="messages", code="context_length_exceeded")
    return room


def _stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise RequestError(f"stop must be a text or up to {MOST_STOPS} texts", param="stop")
    if not all(isinstance(text, str) and text for text in stops):
        raise RequestError("stop must hold texts that are not empty", param="stop")
    return tuple(stops)


def _constrained(body: Body) -> bool:
    chosen = body.get("response_format")
    if chosen is None:
        return False
    kind = chosen.get("type") if isinstance(chosen, Mapping) else None
    if kind not in ("text", "json_object", "json_schema"):
        message = "response_format.type must be text, json_object or json_schema"
        raise RequestError(message, param="response_format")
    return bool(kind != "text")


def _seed(body: Body) -> int | None:
    if body.get("seed") is None:
        return None
    # numpy takes no negative seed; OpenAI's are any 64-bit number.
    return _whole(body, "seed", 0, low=-(2**63), high=2**63) % 2**64


def _flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false", param=name)
    return bool(value)


def _whole(body: Body, name: str, default: int, *, low: int, high: int | None = None) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < low or (high is not None and value > high):
        span = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise RequestError(f"{name} must be a whole number {span}", param=name)
    return value


def _number(body: Body, name: str, default: float, *, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name} must be a number from {low:g} to {high:g}", param=name)
    return float(value)
