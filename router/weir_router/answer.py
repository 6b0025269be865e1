"""Upstream answers, whole or streamed, read as far as verification and accounting need them.

One form for chat and completions. What cannot be read is None: the attempt failed, whatever
its status said. It refuses to judge an answer (`verify`) and to know sockets (`client`).
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from weir_router.dialect import Kind

_Tokens = Annotated[int, Meta(ge=0, le=1 << 40)]
"""An upstream that bills less than nothing, or more than any model reads, sends nonsense."""


class Usage(msgspec.Struct):
    """Token counts as the upstream billed them; all 0 when it said nothing."""

    prompt_tokens: _Tokens = 0
    completion_tokens: _Tokens = 0


class FunctionCall(msgspec.Struct):
    """What function an answer calls, its arguments as the model wrote them."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """One tool call of an answer."""

    index: int = 0
    function: FunctionCall = msgspec.field(default_factory=FunctionCall)


class Choice(msgspec.Struct, kw_only=True):
    """One choice, put together: logprobs are natural, margins of the top two places."""

    text: str = ""
    finish: str = ""
    refusal: str = ""
    tool_calls: tuple[FunctionCall, ...] = ()
    logprobs: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()


class Answer(msgspec.Struct, kw_only=True):
    """One upstream answer; `raw` is what came, `id` the upstream's reply id."""

    choices: tuple[Choice, ...]
    usage: Usage
    raw: bytes
    id: str = ""


# The wire forms.


class _TokenLogprob(msgspec.Struct):
    logprob: float = 0.0
    top_logprobs: list["_TokenLogprob"] | None = None


class _ChatLogprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None


class _TextLogprobs(msgspec.Struct):
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _ChatChoice(_Choice):
    logprobs: _ChatLogprobs | None = None


class _TextChoice(_Choice):
    logprobs: _TextLogprobs | None = None


class _Wire(msgspec.Struct):
    choices: list[_Choice]
    id: str = ""
    usage: Usage | None = None


class _ChatWire(_Wire):
    choices: list[_ChatChoice]  # type: ignore[assignment]


class _TextWire(_Wire):
    choices: list[_TextChoice]  # type: ignore[assignment]


_PLAIN = msgspec.json.Decoder(_Wire)
_WITH_LOGPROBS: dict[Kind, Any] = {
    "chat": msgspec.json.Decoder(_ChatWire),
    "completion": msgspec.json.Decoder(_TextWire),
}
UNREADABLE = (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises of bytes that an upstream may send."""


def read(kind: Kind, raw: bytes, *, logprobs: bool) -> Answer | None:
    """Return the answer in a whole reply body, None when it is none."""
    try:
        wire = (_WITH_LOGPROBS[kind] if logprobs else _PLAIN).decode(raw)
    except UNREADABLE:
        return None
    if not wire.choices:
        return None
    for choice in wire.choices:
        if (choice.message if kind == "chat" else choice.text) is None:
            return None
    choices = tuple([_choice([choice]) for choice in wire.choices])
    return Answer(choices=choices, usage=wire.usage or Usage(), raw=raw, id=wire.id)


def read_stream(kind: Kind, raw: bytes, *, logprobs: bool) -> Answer | None:
    """Return the answer that a complete event stream spells, None when it is none."""
    decoder = _WITH_LOGPROBS[kind] if logprobs else _PLAIN
    by_index: dict[int, list[_Choice]] = {}
    usage, id = Usage(), ""
    for event in events(raw):
        if event == b"[DONE]":
            break
        try:
            wire = decoder.decode(event)
        except UNREADABLE:
            return None
        usage, id = wire.usage or usage, id or wire.id
        for choice in wire.choices:
            by_index.setdefault(choice.index, []).append(choice)
    if not by_index:
        return None
    choices = tuple(_choice(by_index[index]) for index in sorted(by_index))
    return Answer(choices=choices, usage=usage, raw=raw, id=id)


class Prefix:
    """The first events of a stream that give each of `choices` so many tokens, or its end.

    There is none of an answer where all have ended before. Where logprobs are told each is a
    token; elsewhere each part with content is taken for one. What a prefix is does not depend on
    how a stream arrived. `end` is its length in bytes, as far as it is known.
    """

    def __init__(self, kind: Kind, *, logprobs: bool, tokens: int, choices: int) -> None:
        self._decoder = _WITH_LOGPROBS[kind] if logprobs else _PLAIN
        self._wanted = tokens
        self._choices = choices
        self._tokens: dict[int, int] = {}
        self._enough: set[int] = set()
        self._ended: set[int] = set()
        self.end = 0

    @property
    def reached(self) -> bool:
        """Whether the prefix is complete."""
        return bool(self._enough) and len(self._enough | self._ended) >= self._choices

    def look(self, stream: bytearray) -> None:
        """Look at what came of a stream since the last look, whole events each ended by LF LF."""
        while not self.reached:
            stop = stream.find(b"\n\n", self.end)
            if stop < 0:
                return
            event = event_data(bytes(stream[self.end : stop]))
            self.end = stop + 2
            if event and event != b"[DONE]":
                self._count(event)

    def _count(self, event: bytes) -> None:
        try:
            wire = self._decoder.decode(event)
        except UNREADABLE:
            return
        for part in wire.choices:
            seen = self._tokens[part.index] = self._tokens.get(part.index, 0) + _tokens(part)
            if seen >= self._wanted:
                self._enough.add(part.index)
            if part.finish_reason:
                self._ended.add(part.index)


def _tokens(part: _Choice) -> int:
    told = len(_logprobs(part)[0])
    said = part.delta
    has_content = part.text or (said and (said.content or said.refusal or said.tool_calls))
    return told or bool(has_content)


def events(raw: bytes) -> list[bytes]:
    """Return the data of the server-sent events in `raw`, comments left out."""
    blocks = raw.replace(b"\r\n", b"\n").split(b"\n\n")
    return [data for data in map(event_data, blocks) if data]


def event_data(event: bytes) -> bytes:
    """Return the data of one server-sent event, whatever other fields it has; b"" for none."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def is_chunk(data: bytes) -> bool:
    """Whether the data of an event is a chunk of a completion."""
    try:
        _PLAIN.decode(data)
    except UNREADABLE:
        return False
    return True


def _choice(parts: list[_Choice]) -> Choice:
    """Put one choice together from its only part or its deltas."""
    if len(parts) == 1 and parts[0].message is not None:
        return _whole(parts[0], parts[0].message)
    text, refusal, finish = [], [], ""
    calls: dict[int, list[FunctionCall]] = {}
    logprobs: list[float] = []
    margins: list[float] = []
    for part in parts:
        message = part.message or part.delta
        finish = part.finish_reason or finish
        text.append(part.text or (message.content if message else None) or "")
        refusal.append((message.refusal if message else None) or "")
        for call in (message.tool_calls if message else None) or ():
            calls.setdefault(call.index, []).append(call.function)
        some, gaps = _logprobs(part)
        logprobs += some
        margins += gaps
    return Choice(
        text="".join(text),
        finish=finish,
        refusal="".join(refusal),
        tool_calls=tuple(_join_call(calls[index]) for index in sorted(calls)),
        logprobs=tuple(logprobs),
        margins=tuple(margins),
    )


def _whole(part: _Choice, message: _Message) -> Choice:
    logprobs, margins = _logprobs(part)
    calls = message.tool_calls
    return Choice(
        text=message.content or "",
        finish=part.finish_reason or "",
        refusal=message.refusal or "",
        tool_calls=tuple([call.function for call in calls]) if calls else (),
        logprobs=tuple(logprobs),
        margins=tuple(margins),
    )


def _join_call(parts: list[FunctionCall]) -> FunctionCall:
    name = "".join(part.name or "" for part in parts)
    return FunctionCall(name=name, arguments="".join(part.arguments or "" for part in parts))


def _logprobs(part: _Choice) -> tuple[list[float], list[float]]:
    """Return the token logprobs, and the margins where the upstream gave a top two."""
    if isinstance(part, _ChatChoice) and part.logprobs and part.logprobs.content:
        content = part.logprobs.content
        if not content[0].top_logprobs:
            return [token.logprob for token in content], []
        tops = [[top.logprob for top in token.top_logprobs or ()] for token in content]
        return [token.logprob for token in content], _margins(tops)
    if isinstance(part, _TextChoice) and part.logprobs and part.logprobs.token_logprobs:
        found = [value for value in part.logprobs.token_logprobs if value is not None]
        tops = [list((top or {}).values()) for top in part.logprobs.top_logprobs or ()]
        return found, _margins(tops)
    return [], []


def _margins(tops: list[list[float]]) -> list[float]:
    margins = []
    for top in tops:
        if len(top) >= 2:
            first, second = sorted(top, reverse=True)[:2]
            margins.append(first - second)
    return margins


# Taking out what Weir asked for itself.

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_CHOICES = msgspec.json.Decoder(list[dict[str, Raw]])
_NULL = Raw(b"null")


def without_logprobs(raw: bytes) -> bytes:
    """Return a reply body (or one stream event) with every choice's logprobs null."""
    fields = _FIELDS.decode(raw)
    if "choices" not in fields:
        return raw
    choices = _CHOICES.decode(fields["choices"])
    for choice in choices:
        if "logprobs" in choice:
            choice["logprobs"] = _NULL
    fields["choices"] = Raw(msgspec.json.encode(choices))
    return msgspec.json.encode(fields)


def stream_for_client(raw: bytes, *, strip_logprobs: bool, strip_usage: bool) -> bytes:
    """Return a buffered event stream as the client asked for it."""
    out = []
    for event in events(raw):
        if event == b"[DONE]":
            break
        if strip_usage and b'"usage"' in event:
            if is_usage_only(event):
                continue
            event = without_null_usage(event)
        out.append(b"data: " + (without_logprobs(event) if strip_logprobs else event) + b"\n\n")
    out.append(b"data: [DONE]\n\n")
    return b"".join(out)


NULL_USAGE = (b',"usage":null}', b', "usage": null}')
"""How most events end that tell no usage."""


def without_null_usage(event: bytes) -> bytes:
    """Return an event without `"usage": null`, which stands there because Weir asked for usage.

    Mostly it comes last, where no parser is needed: no string can hold these bytes, for its
    quotes are escaped, and the brace closes the event.
    """
    if event.endswith(NULL_USAGE):
        return event[: event.rindex(b",")] + b"}"
    fields = _FIELDS.decode(event)
    if fields.get("usage") != _NULL:
        return event
    del fields["usage"]
    return msgspec.json.encode(fields)


def is_usage_only(event: bytes) -> bool:
    """Whether an event is the last one with usage and no choice, as include_usage asks for."""
    if b'"usage"' not in event:
        return False
    try:
        wire = _PLAIN.decode(event)
    except UNREADABLE:
        return False
    return not wire.choices and wire.usage is not None
