"""Tallies as wire values, and views of many of them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from weir_core.cells import begin_of, late_s, lines_at
from weir_core.evidence import (
    ASSIGNED,
    FAILED,
    SETTLED,
    Cell,
    Epoch,
    Key,
    Merged,
    SessionFailure,
    Tally,
    row_length,
)
from weir_core.merging import (
    MAX_FAILURES,
    SILENT_S,
    block,
    fits,
    merge,
    order,
    retire,
    sampled,
    survey,
    total,
    unite,
)

KEY = Key(route_uid="u", revision="r-1", attempt=1, objectives="0123456789")
HORIZON_S = 32
NOW = 1_700_000_000


def row(assigned=(0, 0), settled=None, failed=(0, 0)):
    counts = [0] * row_length(1)
    counts[ASSIGNED : ASSIGNED + 2] = assigned
    counts[SETTLED : SETTLED + 2] = assigned if settled is None else settled
    counts[FAILED : FAILED + 2] = failed
    return tuple(counts)


def epoch(counts=None, *, period=NOW // 600, weight_bp=1_000, first_s=NOW, units=(0, 0)):
    return Epoch(weight_bp, period, first_s, units, row() if counts is None else counts)


def tally(router="a", boot="1", seq=1, as_of_s=float(NOW), **parts):
    parts.setdefault("epochs", (epoch(),))
    return Tally(key=KEY, router=router, boot=boot, seq=seq, as_of_s=as_of_s, **parts)


def viewed(*tallies, now_s=float(NOW)):
    return survey(merge(tallies), 1, now_s=now_s, horizon_s=HORIZON_S)


def gone_from(merged, router):
    return retire(merged, router, "1", horizon_s=HORIZON_S)


def all_rows(view):
    rows = [*view.base, *(cell[2] for cell in view.window), *(row for _, row in view.beyond)]
    return [sum(column) for column in zip(*rows, strict=True)]


TALLIES = st.builds(
    lambda router, boot, seq, count: tally(
        f"r{router}", f"b{boot}", seq, NOW + seq, epochs=(epoch(row((count + seq, seq))),)
    ),
    st.integers(0, 2),
    st.integers(0, 1),
    st.integers(0, 3),
    st.just(5),
)


def test_tally_survives_json():
    one = tally(
        cells=(Cell(NOW, 0, row((2, 1), (1, 1), (0, 1))),),
        failures=(SessionFailure("00ff00ff00ff00ff", 0, 1, NOW, 0),),
    )
    assert msgspec.json.decode(msgspec.json.encode(one), type=Tally) == one


def test_cells_of_whole_seconds_as_older_states_have_them_are_read():
    raw = msgspec.json.encode([NOW, 0, row((2, 1))])
    assert msgspec.json.decode(raw, type=Cell) == Cell(NOW, 0, row((2, 1)))


def test_merged_survives_json():
    merged = gone_from(merge([tally("a"), tally("b")]), "a")
    assert msgspec.json.decode(msgspec.json.encode(merged), type=Merged) == merged


@given(st.lists(TALLIES, max_size=8), st.randoms())
def test_merge_does_not_depend_on_order(tallies, chance):
    shuffled = list(tallies)
    chance.shuffle(shuffled)
    assert merge(shuffled) == merge(tallies)


@given(st.lists(TALLIES, max_size=6), st.lists(TALLIES, max_size=6))
def test_merge_may_be_done_in_parts(some, others):
    assert merge(others, into=merge(some)) == merge([*some, *others])


@given(st.lists(TALLIES, max_size=6))
def test_merge_may_be_repeated(tallies):
    assert merge(tallies, into=merge(tallies)) == merge(tallies)


def test_higher_seq_wins_whole():
    old = tally(seq=3, epochs=(epoch(row((9, 9))),))
    new = tally(seq=4, epochs=(epoch(row((5, 1))),))
    assert merge([new, old]).tallies == (new,)


def test_equal_seq_takes_the_later_time():
    assert merge([tally(as_of_s=5.0), tally(as_of_s=9.0)]).tallies[0].as_of_s == 9.0


def test_retired_boot_is_refused_and_its_counts_stay():
    merged = merge([tally("a", epochs=(epoch(row((7, 2))),)), tally("b")])
    gone = gone_from(merged, "a")
    again = merge([tally("a", seq=99)], into=gone)
    assert again == gone
    view = survey(again, 1, now_s=NOW, horizon_s=HORIZON_S)
    assert all_rows(view)[ASSIGNED : ASSIGNED + 2] == [7, 2]


def test_retiring_twice_changes_nothing():
    gone = gone_from(merge([tally("a")]), "a")
    assert gone_from(gone, "a") == gone


def test_retiring_an_unknown_boot_refuses_it_later():
    gone = gone_from(Merged(), "a")
    assert merge([tally("a")], into=gone).tallies == ()


def test_retired_boots_are_summed():
    merged = merge([tally("a", epochs=(epoch(row((7, 2))),)), tally("b")])
    merged = merge([tally("b", seq=2, epochs=(epoch(row((1, 1))),))], into=merged)
    gone = gone_from(gone_from(merged, "a"), "b")
    assert gone.retired is not None
    assert gone.retired.epochs[0].counts[ASSIGNED : ASSIGNED + 2] == (8, 3)


def test_a_counted_boot_is_retired_with_those_before_it():
    starts = [tally("a", str(n), epochs=(epoch(row((1, 0))),)) for n in (9, 10, 11)]
    merged = merge([*starts, tally("b", "3")])
    gone = retire(merged, "a", "10", horizon_s=HORIZON_S)
    assert [(t.router, t.boot) for t in gone.tallies] == [("a", "11"), ("b", "3")]
    assert gone.retired_boots == (("a", "10"),)
    assert gone.retired is not None
    assert gone.retired.epochs[0].counts[ASSIGNED] == 2
    assert merge(starts, into=gone).tallies == gone.tallies
    assert retire(gone, "a", "11", horizon_s=HORIZON_S).retired_boots == (("a", "11"),)


def test_sum_folds_cells_into_their_epochs():
    one = tally(epochs=(epoch(row((1, 0))),), cells=(Cell(NOW, 0, row((2, 3))),))
    assert total([one], HORIZON_S).epochs[0].counts[ASSIGNED : ASSIGNED + 2] == (3, 3)
    assert total([one], HORIZON_S).cells == ()


def test_epochs_of_one_weight_and_hour_are_one_on_all_routers():
    view = viewed(
        tally("a", epochs=(epoch(row((3, 1)), first_s=NOW + 5),)),
        tally("b", epochs=(epoch(row((4, 2)), first_s=NOW + 2),)),
    )
    assert len(view.starts) == 1
    assert view.base[0][ASSIGNED] == 7


def test_epochs_stand_in_the_order_they_began():
    labels = {(10, 5_000): 6_400, (10, 500): 6_100, (11, 500): 6_700}
    index, view = order(labels, 12)
    assert [index[10, 500], index[10, 5_000], index[11, 500]] == [0, 1, 2]
    assert [weight_bp for _, weight_bp in view.starts] == [500, 5_000, 500]


def test_first_start_has_most_of_the_mass():
    _, view = order({(period, 500): period * 600 for period in range(3, 15)}, 15)
    assert view.starts[0][0] > 0.6
    assert 0.8 < sum(mass for mass, _ in view.starts) + view.rest <= 1


def test_old_periods_are_joined_into_the_same_blocks_wherever_they_began():
    assert block(17, 20) == 17
    assert {block(period, 24 + 6) for period in range(12, 18)} == {12}
    assert {block(period, 144 + 48) for period in range(48)} == {0}
    assert {block(period, 6 * (64 + 168)) for period in range(384)} == {0}


@given(st.integers(0, 9_000), st.integers(0, 9_000))
def test_joined_periods_stay_joined(period, ahead):
    now = period + ahead
    assert block(block(period, now), now + 1) == block(period, now + 1)


def test_joining_never_gives_a_start_more_mass():
    labels = {(period, 500): period * 600 for period in range(40)}
    labels |= {(period, 1_000): period * 600 + 60 for period in range(0, 40, 3)}
    index, fresh = order(labels, 39)
    later_index, later = order(labels, 39 + 9)
    for label in labels:
        if label[0] >= 36:
            before, after = fresh.starts[index[label]], later.starts[later_index[label]]
            assert after == before
    assert len(later.starts) < len(fresh.starts)
    assert sum(mass for mass, _ in later.starts) < sum(mass for mass, _ in fresh.starts)


def cells_at(*begins_s):
    return tuple(Cell(NOW + begin_s, 0, row((1, 0))) for begin_s in begins_s)


def begun(view):
    """When the cells of a window begin, and how many requests of stable are in them."""
    return [(begin_s - NOW, counts[ASSIGNED]) for begin_s, _, counts in view.window]


def test_reports_of_two_routers_are_cut_at_the_last_whole_cell_of_both():
    ahead = tally("a", as_of_s=NOW + 2.5, cells=cells_at(0.5, 1.25, 1.375, 2))
    behind = tally("b", as_of_s=NOW + 1.45, cells=cells_at(0.5, 1.25, 1.375))
    view = viewed(ahead, behind, now_s=NOW + 3)
    assert begun(view) == [(0.5, 2), (1.25, 2)]
    assert len(view.beyond) == 3


def test_cells_are_joined_by_age_however_fine_the_reports_are():
    fine = tally("a", as_of_s=NOW + 20.0, cells=cells_at(14.125, 14.25, 15.5, 16.125))
    joined = tally("b", as_of_s=NOW + 20.0, cells=cells_at(14, 15, 16.25))
    view = viewed(fine, joined, now_s=NOW + 20)
    assert begun(view) == [(14, 3), (15, 2), (16.125, 1), (16.25, 1)]


MOMENTS = st.integers(0, 2**16).map(lambda eighths: NOW + eighths / 8)


@given(MOMENTS, MOMENTS, MOMENTS, st.sampled_from([3, 32, 65, 602]))
def test_joined_cells_are_made_of_whole_cells(begin_s, one_s, other_s, horizon_s):
    sooner, later = sorted((one_s, other_s))
    before, after = lines_at(sooner, horizon_s), lines_at(later, horizon_s)
    first = begin_of(begin_s, before)
    assert begin_of(first, after) == begin_of(begin_s, after) <= first <= begin_s
    assert late_s(first, horizon_s) == late_s(begin_s, horizon_s)


@given(MOMENTS, MOMENTS, st.sampled_from([32, 65, 602]))
def test_cells_are_never_wider_than_a_quarter_of_their_age(begin_s, age_s, horizon_s):
    now_s = begin_s + age_s - NOW
    assert begin_s - begin_of(begin_s, lines_at(now_s, horizon_s)) <= (now_s - begin_s) / 4


def test_lone_router_is_judged_up_to_now():
    view = viewed(tally(as_of_s=NOW + 0.5, cells=(Cell(NOW, 0, row((1, 0))),)), now_s=NOW + 0.6)
    assert len(view.window) == 1
    assert view.beyond == []


def test_cells_past_the_horizon_are_in_the_base():
    one = tally(as_of_s=NOW + HORIZON_S + 1, cells=(Cell(NOW, 0, row((2, 1), (1, 1))),))
    view = viewed(one, now_s=NOW + HORIZON_S + 1)
    assert view.window == []
    assert view.base[0][ASSIGNED] == 2


def test_silent_router_does_not_hold_the_others_back():
    silent = tally("a", as_of_s=NOW, cells=(Cell(NOW - 1, 0, row((2, 1), (1, 1))),))
    lively = tally("b", as_of_s=NOW + SILENT_S + 1, cells=(Cell(NOW + 3, 0, row((1, 0))),))
    view = viewed(silent, lively, now_s=NOW + SILENT_S + 1)
    assert [begin_s for begin_s, _, _ in view.window] == [NOW - 1, NOW + 3]
    assert view.lost == [[0, 0]]


def test_what_a_silent_router_left_open_is_lost_past_the_horizon():
    silent = tally("a", as_of_s=NOW, cells=(Cell(NOW - 1, 0, row((2, 1), (1, 1))),))
    view = viewed(silent, now_s=NOW + HORIZON_S + 1)
    assert view.base[0][ASSIGNED] == 2
    assert view.lost == [[1, 0]]


def test_what_a_retired_router_left_open_is_lost():
    one = tally("a", cells=(Cell(NOW - 1, 0, row((2, 3), (1, 1))),))
    gone = gone_from(merge([one]), "a")
    assert gone.retired is not None
    assert gone.retired.epochs[0].lost == (1, 2)


def test_what_had_failed_for_good_before_a_router_ended_is_not_lost():
    late = NOW + HORIZON_S + 1
    cells = (Cell(NOW, 0, row((2, 3), (1, 1))), Cell(NOW + 1, 0, row((1, 4), (0, 0))))
    for as_of_s, lost in ((late - 0.1, (2, 6)), (late, (1, 4)), (late + 1, (0, 0))):
        one = tally("a", as_of_s=as_of_s, cells=cells)
        assert total([one], HORIZON_S).epochs[0].lost == lost
        assert viewed(one, now_s=late + HORIZON_S).lost == [list(lost)]


def test_what_never_settled_on_a_living_router_is_not_lost():
    late = NOW + HORIZON_S + 2
    alive = tally("a", as_of_s=late, cells=(Cell(NOW, 0, row((2, 1), (1, 1))),))
    assert viewed(alive, now_s=late).lost == [[0, 0]]


def failure(session, second, *, arm=1, objective=0):
    return SessionFailure(session, objective, arm, second, 0)


def test_session_that_failed_on_three_routers_counts_once_and_first():
    session = "aaaaaaaaffffffff"
    tallies = [
        tally(router, failures=(failure(session, NOW - 40 - back),))
        for router, back in (("a", 3), ("b", 9), ("c", 6))
    ]
    level, first = unite(tallies)
    assert level == 0
    assert first == {(session, 0): (NOW - 49, NOW // 600, 1_000, 1)}
    assert viewed(*tallies).base[0][FAILED + 1] == 1


def test_young_session_failure_is_in_the_window():
    view = viewed(
        tally(as_of_s=NOW + 5, failures=(failure("aaaaaaaaffffffff", NOW + 1),)), now_s=NOW + 5
    )
    assert view.base[0][FAILED + 1] == 0
    assert view.window[0][2][FAILED + 1] == 1


def test_union_is_sampled_at_the_highest_level():
    kept, lost = "aaaaaaaa00ffffff", "aaaaaaaaffffffff"
    one = tally("a", level=3, failures=(failure(kept, NOW),))
    other = tally("b", failures=(failure(lost, NOW), failure(kept, NOW)))
    level, first = unite([one, other])
    assert level == 3
    assert list(first) == [(kept, 0)]


def test_sampling_halves_at_each_level():
    sessions = [f"{n:08x}{(n * 2_654_435_761) % 2**32:08x}" for n in range(4_096)]
    shares = [sum(sampled(s, level) for s in sessions) / 4_096 for level in (0, 1, 2, 3)]
    assert all(abs(share - 0.5**level) < 0.02 for level, share in enumerate(shares))


def test_sum_keeps_a_bounded_sample_of_sessions():
    many = [f"{n:08x}{(n * 2_654_435_761) % 2**32:08x}" for n in range(MAX_FAILURES * 3)]
    summed = total([tally(failures=tuple(failure(s, NOW) for s in many))], HORIZON_S)
    assert summed.level == 2
    assert 0 < len(summed.failures) <= MAX_FAILURES


def test_misfit_tallies_are_told():
    good = tally(cells=(Cell(NOW, 0, row()),))
    assert fits(good, 1)
    assert not fits(good, 2)
    assert not fits(tally(cells=(Cell(NOW, 1, row()),)), 1)
    assert not fits(tally(failures=(failure("aaaaaaaaffffffff", NOW, objective=1),)), 1)
    assert not fits(tally(failures=(failure("not hex", NOW),)), 1)
    assert not fits(tally(epochs=(epoch(row((-1, 0))),)), 1)
