"""The one text that sameness of behaviour is decided by, and names that are made from it.

Defaults are left out: a field added later with a default changes no text, so upgrading Weir
starts no canary. Equal texts mean equal behaviour and the other way round.
"""

import functools
import hashlib
import json
from typing import Any

import msgspec

from weir_core.snapshot import Behaviour

HEX = 10
"""Digits of a revision's or an identity's name."""


def canonical(value: Any) -> str:
    """Return stable JSON of a struct (or plain data): sorted keys, defaults left out."""
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def behaviour_of(content: str) -> Behaviour:
    """Return the behaviour that `canonical` told. Raises msgspec.DecodeError on other text."""
    return msgspec.json.decode(content, type=Behaviour)


def hex_of(text: str) -> str:
    """Return the digits that name a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:HEX]


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: _plain(found)
            for field in _fields(type(value))
            if (found := getattr(value, field.name)) != _default(field)
        }
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return a struct's fields; asking msgspec costs more than all else here."""
    return msgspec.structs.fields(kind)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
