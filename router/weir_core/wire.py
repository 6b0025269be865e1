"""What operator and routers say to each other: policy down, evidence up, one packed snapshot.

Messages are JSON. Fields that a reader does not know are passed over, and fields that a writer
did not know have defaults, so either end may be one release ahead. A route, a tally or a trip
that cannot be read harms itself only. It refuses to know how messages travel.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from weir_core.evidence import Tally, Trip
from weir_core.snapshot import Limits, RoutePolicy

FORMAT = 1
"""Grows when a message changes its meaning; formats one apart are read."""

MAX_PACKED = 64 << 20
"""Bytes of an unpacked snapshot."""
MAX_REPORT = 4 << 20
"""Bytes of a report; a larger one is not read. Evidence that does not fit goes in the next."""
MAX_WHY = 500
"""Characters of a reason that a router gives."""

Version = tuple[int, int]
"""(term of the operator, number within it): routers take only greater ones."""


class WireError(ValueError):
    """A message that cannot be read; says what was seen and what was wanted."""


class Nack(msgspec.Struct, frozen=True):
    """A version of a route that a router cannot obey, and why. It keeps what it had."""

    version: Version
    reason: str


class Routed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One route at one version. `policy` None: the route is gone.

    `unreadable` is set by the reader alone: why it could not read the policy.
    """

    version: Version
    policy: RoutePolicy | None = None
    unreadable: str = ""


def latest_term(routes: Mapping[str, Routed]) -> int:
    """Return the greatest term of any version, 0 without one."""
    return max((routed.version[0] for routed in routes.values()), default=0)


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a router tells, several times a second.

    `start` counts the starts of this pod's router from 1, `unclean` how many of them ended in no
    order, and `clean` says whether the last one that ended did. `acks` are the versions obeyed,
    all of them. `tallies` are cumulative: those that changed since they were last sent on this
    stream. When `whole`, those not sent have not changed up to `as_of_s` (Unix seconds).
    `trips` are all that are not latched in the policy obeyed. `ejected` are backend identities
    that get no requests, and why. `draining`: the router takes no new requests, or soon will not.
    """

    start: int
    as_of_s: float
    format: int = FORMAT
    clean: bool = True
    unclean: int = 0
    acks: dict[str, Version] = {}
    nacks: dict[str, Nack] = {}
    tallies: tuple[Tally, ...] = ()
    whole: bool = True
    trips: tuple[Trip, ...] = ()
    ejected: dict[str, str] = {}
    draining: bool = False


class Push(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What routers shall obey: the routes that changed since the last push of this stream.

    `complete` (the first push of a stream): routes not named are gone. `limits` by backend
    identity, None where they have not changed. A push that says nothing shows that the operator
    is alive.
    """

    term: int
    format: int = FORMAT
    complete: bool = False
    routes: dict[str, Routed] = {}
    limits: dict[str, Limits] | None = None


class Packed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A namespace's whole snapshot, as it stands in the ConfigMap that routers mount."""

    format: int = FORMAT
    routes: dict[str, Routed] = {}
    limits: dict[str, Limits] = {}


def encode(message: Report | Push | Packed) -> bytes:
    """Return a message as it goes over the wire."""
    return _ENCODER.encode(message)


def filled(
    report: Report, tallies: Sequence[Tally], *, most: int = MAX_REPORT // 2
) -> tuple[bytes, int]:
    """Return the report with the first of `tallies` as it goes over the wire, and how many.

    As many as fit into `most` bytes, but at least one; `whole` says whether all did.
    """
    left = most
    encoded: list[msgspec.Raw] = []
    for tally in tallies:
        data = _ENCODER.encode(tally)
        left -= len(data)
        if left < 0 and encoded:
            break
        encoded.append(msgspec.Raw(data))
    whole = len(encoded) == len(tallies)
    told = {name: getattr(report, name) for name in _RawReport.__struct_fields__}
    raw = _RawReport(**{**told, "tallies": encoded, "whole": whole})
    return _ENCODER.encode(raw), len(encoded)


def pack(packed: Packed) -> bytes:
    """Return a snapshot compressed; the same snapshot gives the same bytes."""
    return zlib.compress(_ENCODER.encode(packed), 6)


_ENCODER = msgspec.json.Encoder(order="sorted")


# Reading: the frame first, then each part by itself.


class _RawRouted(msgspec.Struct, frozen=True):
    version: Version
    policy: msgspec.Raw = msgspec.Raw(b"null")


class _RawReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    start: int
    as_of_s: float
    format: int = FORMAT
    clean: bool = True
    unclean: int = 0
    acks: dict[str, Version] = {}
    nacks: dict[str, Nack] = {}
    tallies: list[msgspec.Raw] = []
    whole: bool = True
    trips: list[msgspec.Raw] = []
    ejected: dict[str, str] = {}
    draining: bool = False


class _RawPush(msgspec.Struct, frozen=True, kw_only=True):
    term: int
    format: int = FORMAT
    complete: bool = False
    routes: dict[str, _RawRouted] = {}
    limits: dict[str, Limits] | None = None


class _RawPacked(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    routes: dict[str, _RawRouted] = {}
    limits: dict[str, Limits] = {}


_Frame = TypeVar("_Frame", _RawReport, _RawPush, _RawPacked)
_Part = TypeVar("_Part")


class _Reader(Generic[_Frame]):
    """Reads one kind of message. Raises WireError."""

    def __init__(self, kind: type[_Frame], name: str) -> None:
        self._decoder: msgspec.json.Decoder[_Frame] = msgspec.json.Decoder(kind)
        self._name = name

    def read(self, data: bytes) -> _Frame:
        try:
            frame = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"{self._name}: saw {error}, wanted format {FORMAT}") from error
        if abs(frame.format - FORMAT) > 1:
            seen = f"format {frame.format}"
            raise WireError(f"{self._name}: saw {seen}, wanted {FORMAT} or one beside it")
        return frame


_REPORTS = _Reader(_RawReport, "report")
_PUSHES = _Reader(_RawPush, "push")
_PACKED = _Reader(_RawPacked, "snapshot")
_POLICY: msgspec.json.Decoder[RoutePolicy | None] = msgspec.json.Decoder(RoutePolicy | None)
_TALLY = msgspec.json.Decoder(Tally)
_TRIP = msgspec.json.Decoder(Trip)


def decode_report(data: bytes) -> tuple[Report, int]:
    """Return a report, and how many of its tallies and trips could not be read.

    Raises WireError.
    """
    raw = _REPORTS.read(data)
    tallies, trips = _all(raw.tallies, _TALLY), _all(raw.trips, _TRIP)
    report = Report(
        start=raw.start,
        as_of_s=raw.as_of_s,
        format=raw.format,
        clean=raw.clean,
        unclean=raw.unclean,
        acks=raw.acks,
        nacks=raw.nacks,
        tallies=tallies,
        whole=raw.whole,
        trips=trips,
        ejected=raw.ejected,
        draining=raw.draining,
    )
    return report, len(raw.tallies) + len(raw.trips) - len(tallies) - len(trips)


def decode_push(data: bytes) -> Push:
    """Return a push; a route that cannot be read says so. Raises WireError."""
    raw = _PUSHES.read(data)
    return Push(
        term=raw.term,
        format=raw.format,
        complete=raw.complete,
        routes=_routes(raw.routes),
        limits=raw.limits,
    )


def unpack(data: bytes) -> Packed:
    """Return a snapshot from its packed form; a route that cannot be read says so.

    Raises WireError, also for one that unpacks to more than MAX_PACKED bytes.
    """
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(data, MAX_PACKED)
    except zlib.error as error:
        raise WireError(f"snapshot: saw {error}, wanted a packed snapshot") from error
    if not inflater.eof:
        raise WireError(f"snapshot: saw one cut short or over {MAX_PACKED:,} bytes unpacked")
    raw = _PACKED.read(text)
    return Packed(format=raw.format, routes=_routes(raw.routes), limits=raw.limits)


def _routes(raw: dict[str, _RawRouted]) -> dict[str, Routed]:
    return {key: _routed(routed) for key, routed in raw.items()}


def _routed(raw: _RawRouted) -> Routed:
    try:
        return Routed(version=raw.version, policy=_POLICY.decode(raw.policy))
    except (msgspec.DecodeError, RecursionError) as error:
        return Routed(version=raw.version, unreadable=str(error)[:MAX_WHY])


def _all(raw: list[msgspec.Raw], decoder: "msgspec.json.Decoder[_Part]") -> tuple[_Part, ...]:
    read = []
    for one in raw:
        try:
            read.append(decoder.decode(one))
        except (msgspec.DecodeError, RecursionError):
            continue
    return tuple(read)
