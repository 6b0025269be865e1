"""Keeps what requests showed: drawn for an arm, settled or not, failed in which objectives.

One ledger per router boot. It takes the time as an argument, does no I/O, and refuses to know
how a request went (`serve`) and what the evidence proves (`weir_core.sequential`).
"""

from collections.abc import Iterable
from math import inf
from typing import Literal

import msgspec

from weir_core.evidence import (
    ASSIGNED,
    AUDITS_BEGUN,
    AUDITS_DROPPED,
    AUDITS_ENDED,
    BAD,
    BOTH_HARMED,
    CANARY_HARMED,
    SETTLED,
    STABLE_HARMED,
    Judgement,
    Key,
    Tally,
)
from weir_core.sequential import judge_view, merge
from weir_core.snapshot import RoutePolicy
from weir_router.book import Book, key_of
from weir_router.labels import Receipts
from weir_router.slots import YOUNG, Session, Slot, cell

MAX_BOOKS = 1_024
MAX_RESTORED_TALLIES = 4_096


Labelled = Literal["again", "fine", "held", "late", "unused"]
"""What became of a label. Held: it is evidence when its window is over for all requests of its
time; late: it came after that window; unused: no objective is about labels."""


class Ticket:
    """A request that is evidence; settle it once its outcome is known.

    `settled_s` is infinite until then. `is_bad` is whether it counts as a bad answer.
    """

    __slots__ = ("arm", "is_bad", "is_labelled", "session", "settled_s", "slot")

    def __init__(self, slot: Slot, arm: int, session: Session | None) -> None:
        self.slot = slot
        self.arm = arm
        self.session = session
        self.settled_s = inf
        self.is_bad = False
        self.is_labelled = False


class AuditTicket:
    """A request that both arms and the reference answer; end, drop or abandon it."""

    __slots__ = ("is_over", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.is_over = False


class Ledger:
    """The books of all routes in rollout."""

    def __init__(self, *, router: str, boot: str) -> None:
        self._router = router
        self._boot = boot
        self._books: dict[Key, Book] = {}
        self._current: dict[str, Book] = {}
        self._restored: dict[Key, list[Tally]] = {}
        self._shown: dict[Key, Tally] = {}
        self.receipts = Receipts()

    def open(self, policy: RoutePolicy, now_s: float) -> None:
        """Count requests under `policy` from now on; evidence of the same key goes on.

        The book before the current one of a route is kept for its last report, older ones not.
        """
        key = key_of(policy)
        if key is None:
            self._current.pop(policy.uid, None)
            return
        book = self._books.pop(key, None)
        if book is None:
            self._forget(policy.uid)
            book = Book(key, policy, self._restored.get(key, ()))
            self._restored = {
                known: tallies
                for known, tallies in self._restored.items()
                if known == key or known.route_uid != policy.uid
            }
        self._books[key] = book
        book.age(now_s)
        book.use(policy)
        self._current[policy.uid] = book

    def _forget(self, uid: str) -> None:
        last = self._current.get(uid)
        old = [key for key, book in self._books.items() if key.route_uid == uid and book != last]
        idle = [key for key, book in self._books.items() if book not in self._current.values()]
        over = len(self._books) + 1 - MAX_BOOKS
        for key in [*old, *(idle[:over] if over > 0 else ())]:
            self.close(key)

    def close(self, key: Key) -> None:
        """Forget all evidence of one key."""
        book = self._books.pop(key, None)
        self._restored.pop(key, None)
        self._shown.pop(key, None)
        if book is not None and self._current.get(key.route_uid) is book:
            del self._current[key.route_uid]

    # Requests.

    def assign(self, policy: RoutePolicy, arm: int, session: str, now_s: float) -> Ticket | None:
        """Count a request drawn for `arm` with the policy's weight; None: it is no evidence.

        No evidence is what was not drawn (no canary, weight 0 or all), and a session past its
        first requests or failed already in every objective.
        """
        book = self._current.get(policy.uid)
        if book is None or book.policy is not policy:
            book = self._adopt(policy, now_s)
        if book is None or not book.is_drawn:
            return None
        slot = book.slot
        if now_s >= book.ends_s:
            turned = book.turn(now_s)
            if turned is None:
                return None
            slot = turned
        remembered = None
        if book.by_session:
            if session:
                remembered = book.seen(session, arm)
                if remembered is None:
                    return None
            else:
                book.count_unit(arm)
        slot.counts[ASSIGNED + arm] += 1
        book.changed = True
        return Ticket(slot, arm, remembered)

    def _adopt(self, policy: RoutePolicy, now_s: float) -> Book | None:
        if policy.canary is None:
            return None
        self.open(policy, now_s)
        return self._current[policy.uid]

    def settle(self, ticket: Ticket, failed: int, now_s: float, bad: bool | None = None) -> None:
        """Count the outcome: bit j of `failed` is the policy's j-th objective.

        Once only. Past the horizon the request has already counted as failed. `bad` is whether
        a problem reached the client; None takes any failed Enforce objective but Escalated.
        """
        if ticket.settled_s < inf:
            return
        ticket.settled_s = now_s
        slot = cell(ticket.slot)
        if now_s >= slot.late_s or slot.state != YOUNG:
            return
        slot.counts[SETTLED + ticket.arm] += 1
        book = slot.book
        book.changed = True
        if failed:
            book.fail(slot, ticket.arm, failed, ticket.session)
        if failed & book.bad if bad is None else bad:
            self._note_bad(ticket)

    def _note_bad(self, ticket: Ticket) -> None:
        if ticket.arm and not ticket.is_bad:
            ticket.is_bad = True
            ticket.slot.book.count(ticket.slot, BAD)

    def label(self, ticket: Ticket, harm: bool, now_s: float) -> Labelled:
        """Take a label of a person or a judge for a settled request; its first one counts."""
        if ticket.is_labelled:
            return "again"
        ticket.is_labelled = True
        if not harm:
            return "fine"
        held = ticket.slot.book.held
        if held.is_enforced:
            self._note_bad(ticket)
        if not held.is_wanted:
            return "unused"
        return "held" if held.take(ticket, now_s) else "late"

    # Audits.

    def audit_begin(self, policy: RoutePolicy, now_s: float) -> AuditTicket | None:
        """Count an audit that both arms take part in; None where the canary gets no requests."""
        book = self._current.get(policy.uid)
        if book is None or book.policy is not policy:
            book = self._adopt(policy, now_s)
        if book is None or policy.weight_bp <= 0:
            return None
        slot = book.slot if now_s < book.ends_s else book.turn(now_s)
        if slot is None:
            return None
        book.count(slot, AUDITS_BEGUN)
        return AuditTicket(slot)

    def audit_end(
        self, ticket: AuditTicket, canary_harm: bool, stable_harm: bool, now_s: float
    ) -> None:
        """Count an audit's pair. One that ends past the horizon counts when it ends."""
        if ticket.is_over:
            return
        ticket.is_over = True
        slot = ticket.slot
        slot.book.age(now_s)
        slot.book.count(slot, AUDITS_ENDED)
        if canary_harm or stable_harm:
            alone = CANARY_HARMED if canary_harm else STABLE_HARMED
            place = BOTH_HARMED if canary_harm and stable_harm else alone
            slot.book.count(slot, place)

    def audit_drop(self, ticket: AuditTicket, now_s: float) -> None:
        """Count an audit that could not be carried out: watched as coverage, no evidence."""
        if not ticket.is_over:
            ticket.is_over = True
            ticket.slot.book.age(now_s)
            ticket.slot.book.count(ticket.slot, AUDITS_DROPPED)

    def audit_abandon(self, ticket: AuditTicket) -> None:
        """Take an audit back whose request failed or whose client went: there was none."""
        if not ticket.is_over:
            ticket.is_over = True
            ticket.slot.book.count(ticket.slot, AUDITS_BEGUN, -1)

    # Judging and reporting.

    def judge(self, policy: RoutePolicy, *, alpha: float, now_s: float) -> Judgement:
        """Return the verdict on the policy's canary from this router's evidence alone.

        Raises ValueError for a policy without canary.
        """
        book = self._current.get(policy.uid)
        if book is None or book.policy is not policy:
            book = self._adopt(policy, now_s)
        if book is None:
            raise ValueError(f"{policy.namespace}/{policy.name}: no canary to judge")
        return judge_view(
            book.view(now_s),
            book.objectives,
            alpha=alpha,
            promote_alpha=policy.rollout.promote_alpha,
            promote_ratio=policy.rollout.promote_ratio,
        )

    def tallies(self, now_s: float) -> tuple[Tally, ...]:
        """Return this boot's tallies, and the restored ones of earlier boots as they were.

        `seq` grows with every change; `as_of_s` goes on without one.
        """
        shown = []
        self.receipts.age(now_s)
        for key, book in self._books.items():
            book.age(now_s)
            known = self._shown.get(key)
            if known is None or book.changed:
                known = book.tally(self._router, self._boot, now_s)
            else:
                known = msgspec.structs.replace(known, as_of_s=now_s)
            self._shown[key] = known
            shown += [known, *book.restored]
        for key, restored in self._restored.items():
            if key not in self._books:
                shown += restored
        return tuple(shown)

    def restore(self, tallies: Iterable[Tally], now_s: float) -> None:
        """Take the evidence of earlier boots: what they left open has failed, in both arms.

        To be done before the first request. Tallies of this boot are refused.
        """
        own = (self._router, self._boot)
        earlier = [tally for tally in tallies if (tally.router, tally.boot) != own]
        for key in {tally.key for tally in earlier}:
            known = merge([t for t in earlier if t.key == key])
            self._restored[key] = list(known.tallies)
            if key in self._books:
                policy = self._books[key].policy
                self._books[key] = book = Book(key, policy, known.tallies)
                if key.route_uid in self._current:
                    self._current[key.route_uid] = book
        while sum(map(len, self._restored.values())) > MAX_RESTORED_TALLIES:
            self._restored.pop(next(iter(self._restored)))
