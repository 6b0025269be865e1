"""OpenAI's dialect: requests in, bodies for the upstreams, answers read, errors written.

Unknown fields pass through untouched: a body is a mapping of raw JSON values, of which only
those that Weir must know are decoded. It refuses to know routes, tiers and evidence.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

Kind = Literal["chat", "completion"]
PATHS: dict[Kind, bytes] = {"chat": b"/v1/chat/completions", "completion": b"/v1/completions"}
JSON = (b"content-type", b"application/json")


class Refusal(msgspec.Struct, frozen=True):
    """A request that is not served, in OpenAI's words."""

    status: int
    code: str
    message: str
    param: str = ""
    retry_after_s: int = 0

    def body(self) -> bytes:
        """Return the error body that the OpenAI SDKs turn into their exceptions."""
        return error_body(self.status, self.code, self.message, self.param)


def error_body(status: int, code: str, message: str, param: str = "") -> bytes:
    """Return an OpenAI-shaped error object as JSON."""
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": param or None, "code": code}
    return msgspec.json.encode({"error": error})


_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# Requests.


class _Part(msgspec.Struct):
    type: str
    text: str = ""


class Message(msgspec.Struct):
    """One message of a chat, as far as Weir reads it."""

    role: str
    content: str | list[_Part] | None = None


class _JsonSchema(msgspec.Struct):
    schema_: Raw | UnsetType = msgspec.field(default=UNSET, name="schema")


class ResponseFormat(msgspec.Struct):
    """What shape the client wants the answer in."""

    type: str
    json_schema: _JsonSchema | None = None


class _Function(msgspec.Struct):
    name: str
    parameters: Raw | UnsetType = UNSET


class Tool(msgspec.Struct):
    """A tool that the answer may call."""

    type: str = "function"
    function: _Function | None = None


class StreamOptions(msgspec.Struct):
    """What a streaming client wants beside the text."""

    include_usage: bool = False


_Count = Annotated[int, Meta(ge=0)]


class Body(msgspec.Struct, kw_only=True):
    """The fields of a chat or completion request that Weir reads."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)] | UnsetType = UNSET
    prompt: str | list[Any] | UnsetType = UNSET
    stream: bool | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: bool | int | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    stream_options: StreamOptions | None = None


class Request(msgspec.Struct, kw_only=True, gc=False):
    """A request that was validated: what it says, and its fields as raw JSON."""

    kind: Kind
    body: Body
    fields: dict[str, Raw]
    size: int

    @property
    def wants_logprobs(self) -> bool:
        """Whether the client itself asked for logprobs."""
        asked = self.body.logprobs
        return asked is not None and asked is not False

    @property
    def wants_usage(self) -> bool:
        """Whether the client itself asked for a usage event at the end of its stream."""
        options = self.body.stream_options
        return options is not None and options.include_usage

    @property
    def max_tokens(self) -> int:
        """The cap on the answer that the client asked for, 0 for none."""
        return self.body.max_completion_tokens or self.body.max_tokens or 0


_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_BODY = msgspec.json.Decoder(Body)
_MESSAGES = msgspec.json.Decoder(list[dict[str, Raw]])
"""Raw: what Weir does not read of a message goes on as it came, were it a number of no size."""


def parse(kind: Kind, raw: bytes) -> Request | Refusal:
    """Return the validated request, or a 400 that says what was wanted."""
    try:
        body = _BODY.decode(raw)
        fields = _FIELDS.decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return _bad(error)
    except RecursionError:
        return Refusal(400, "invalid_json", "the body is nested too deeply")
    if kind == "chat" and body.messages is UNSET:
        return Refusal(400, "missing_required_parameter", "saw no messages", "messages")
    if kind == "completion" and body.prompt is UNSET:
        return Refusal(400, "missing_required_parameter", "saw no prompt", "prompt")
    return Request(kind=kind, body=body, fields=fields, size=len(raw))


def _bad(error: Exception) -> Refusal:
    if not isinstance(error, msgspec.ValidationError):
        return Refusal(400, "invalid_json", f"the body is not JSON: {error}")
    message = str(error)
    _, _, path = message.partition(" - at `$.")
    return Refusal(400, "invalid_type", message, path.rstrip("`"))


def signals(request: Request, deadline_ms: int) -> dict[str, Any]:
    """Return what is known of a request from its shape (`routing.SIGNALS`)."""
    body = request.body
    messages = body.messages if body.messages is not UNSET else []
    chars = len(body.prompt) if isinstance(body.prompt, str) else 0
    images = False
    for message in messages:
        if isinstance(message.content, str):
            chars += len(message.content)
        elif message.content:
            chars += sum(len(part.text) for part in message.content)
            images = images or any("image" in part.type for part in message.content)
    return {
        "prompt_tokens": chars // 4,
        "prompt_chars": chars,
        "messages": len(messages),
        "turns": sum(message.role == "user" for message in messages),
        "has_tools": bool(body.tools),
        "has_schema": body.response_format is not None and body.response_format.type != "text",
        "has_images": images,
        "stream": bool(body.stream),
        "max_tokens": request.max_tokens,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "deadline_ms": deadline_ms,
        "model": body.model,
    }


# Bodies for the upstreams.


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is changed for one upstream.

    `logprobs` -1 leaves them, otherwise the number of top logprobs wanted for verification.
    """

    model: str
    system_prompt: str = ""
    max_tokens: int = 0
    logprobs: int = -1
    stream: bool = False


def upstream_body(request: Request, ask: Ask) -> bytes:
    """Return the request's body with the model and what else `ask` changes."""
    fields = dict(request.fields)
    fields["model"] = _raw(ask.model)
    if ask.stream:
        if not request.wants_usage:
            fields["stream_options"] = Raw(b'{"include_usage":true}')
    elif "stream" in fields:
        del fields["stream"]
        fields.pop("stream_options", None)
    if ask.max_tokens:
        old = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
        fields[old] = _raw(ask.max_tokens)
    if ask.logprobs >= 0:
        _ask_logprobs(request, fields, ask.logprobs)
    if ask.system_prompt:
        _put_system_prompt(request, fields, ask.system_prompt)
    return msgspec.json.encode(fields)


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def _ask_logprobs(request: Request, fields: dict[str, Raw], top: int) -> None:
    if request.kind == "completion":
        asked = request.body.logprobs
        fields["logprobs"] = _raw(max(top, int(asked or 0)))
        return
    fields["logprobs"] = Raw(b"true")
    if top > (request.body.top_logprobs or 0):
        fields["top_logprobs"] = _raw(top)


def _put_system_prompt(request: Request, fields: dict[str, Raw], prompt: str) -> None:
    """Put the tier's prompt before the request's own: many templates take one system message."""
    if request.kind == "completion":
        if isinstance(request.body.prompt, str):
            fields["prompt"] = _raw(f"{prompt}\n\n{request.body.prompt}")
        return
    messages = _MESSAGES.decode(fields["messages"])
    assert request.body.messages is not UNSET
    first = request.body.messages[0]
    if first.role in ("system", "developer") and isinstance(first.content, str):
        messages[0]["content"] = _raw(f"{prompt}\n\n{first.content}")
    else:
        messages.insert(0, {"role": Raw(b'"system"'), "content": _raw(prompt)})
    fields["messages"] = _raw(messages)
