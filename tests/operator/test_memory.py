"""What is recalled of a route's evidence, and what of it is not believed."""

from msgspec.structs import replace

from support.ledgers import NOW, OBJECTIVES, fresh, only, serve
from weir_core.evidence import Merged
from weir_core.rollout import RolloutState
from weir_operator.memory import Checkpoint, RouteMemory, pack, recall, unpack


def evidence(**changes):
    ledger = fresh()
    serve(ledger, 1, 1)
    serve(ledger, 0)
    tally = only(ledger, NOW + 1)
    fields = {"key": tally.key, "unclean": {"r": (1, 2)}, "objectives": len(OBJECTIVES)}
    return Checkpoint(**{**fields, "merged": Merged(tallies=(tally,)), **changes})


def longer(tally):
    """Return a tally as a release with one more column would have it."""
    epochs = tuple(replace(e, counts=(*e.counts, 0)) for e in tally.epochs)
    cells = tuple(replace(c, counts=(*c.counts, 0)) for c in tally.cells)
    return replace(tally, epochs=epochs, cells=cells)


def test_evidence_is_recalled():
    checkpoint = evidence()
    assert unpack(pack(checkpoint)) == checkpoint
    memory = recall({"rollout": {"checkpoint": pack(checkpoint)}}, ())
    assert (memory.key, memory.merged) == (checkpoint.key, checkpoint.merged)


def test_evidence_of_another_layout_is_not_recalled():
    merged = Merged(tallies=tuple(longer(t) for t in evidence().merged.tallies))
    found = unpack(pack(evidence(merged=merged)))
    assert (found.key, found.merged) == (None, Merged())
    assert found.unclean == {"r": (1, 2)}


def test_a_retired_sum_of_another_layout_is_not_recalled():
    (tally,) = evidence().merged.tallies
    found = unpack(pack(evidence(merged=Merged(retired=longer(tally)))))
    assert found.merged == Merged()


def test_evidence_of_a_release_that_did_not_count_objectives_is_recalled():
    checkpoint = evidence(objectives=None)
    assert unpack(pack(checkpoint)).merged == checkpoint.merged


def test_rows_of_other_objectives_than_were_counted_are_not_recalled():
    assert unpack(pack(evidence(objectives=len(OBJECTIVES) + 1))).merged == Merged()


def test_pods_that_are_gone_are_one_number():
    memory = RouteMemory(RolloutState(), Checkpoint())
    for turn in range(500):
        memory.deaths({f"pod-{turn}": 1}, ())
        memory.deaths({f"pod-{turn}": 2}, ())
    assert memory.deaths({"last": 7}, ()) == 500
    assert memory.deaths({"last": 8}, ()) == 501
    assert len(memory.unclean) <= 2
    again = RouteMemory(RolloutState(), unpack(pack(memory.checkpoint())))
    assert again.deaths({}, ("last",)) == 501


def test_a_pod_that_is_there_and_not_heard_goes_on_where_it_was():
    memory = RouteMemory(RolloutState(), Checkpoint())
    memory.deaths({"r": 3}, ())
    memory.deaths({}, ("r",))
    assert memory.deaths({"r": 5}, ("r",)) == 2
