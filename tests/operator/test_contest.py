"""A person's edit is put back at once, a fight ever more slowly, and Events are few."""

import pytest

from weir_core.rollout_state import Transition
from weir_operator.contest import AT_ONCE, CALM_S, PACE_MAX_S, TOLD_S, Contest

KEY = ("Deployment", "default", "weir-router")
EDIT = Transition(reason="PutBack", message="spec.replicas changed by hpa, put back", warning=True)


class Fight:
    """One object in whose way somebody is, and the clock."""

    def __init__(self):
        self.now_s = 0.0
        self.contest = Contest(lambda: self.now_s)
        self.told = []

    def edit(self):
        """Edit the object, and look at it; return whether it was put back."""
        if self.contest.is_early(KEY):
            return False
        self.told.append(self.contest.put_back(KEY, EDIT))
        return True

    def edit_for(self, seconds, *, every_s=1.0):
        """Edit it whenever it was put back; return how often it was."""
        count, end_s = 0, self.now_s + seconds
        while self.now_s < end_s:
            count += self.edit()
            self.now_s += every_s
        return count

    @property
    def events(self):
        return [one.message for one in self.told if one is not None]


def test_first_edit_is_put_back_and_told_as_it_is():
    fight = Fight()
    assert fight.edit()
    assert fight.told == [EDIT]


def test_edits_of_a_person_are_put_back_as_they_come():
    fight = Fight()
    assert [fight.edit() for _ in range(AT_ONCE)] == [True] * AT_ONCE
    assert len(fight.events) == 1


def test_fight_is_put_back_ever_more_slowly():
    fight = Fight()
    assert fight.edit_for(60) == AT_ONCE + 2
    assert fight.edit_for(3_600) <= 3_600 / PACE_MAX_S + 5
    assert fight.contest.stands(KEY)


def test_fight_is_told_at_most_once_a_minute_with_how_often():
    fight = Fight()
    fight.edit_for(TOLD_S)
    assert len(fight.events) == 1
    fight.edit_for(3 * TOLD_S)
    assert 2 <= len(fight.events) <= 4
    assert f"; {AT_ONCE + 2} times since this was last told" in fight.events[1]
    assert "; it is put back every 1m20s at most" in fight.events[1]


def test_rare_edits_are_no_fight():
    fight = Fight()
    assert fight.edit_for(40 * CALM_S, every_s=2 * CALM_S) == 20
    assert len(fight.events) == 20


def test_edit_that_its_author_takes_back_stands_no_more():
    fight = Fight()
    fight.edit_for(30)
    assert fight.contest.stands(KEY)
    fight.contest.gone(KEY)
    assert not fight.contest.stands(KEY)


@pytest.mark.parametrize("other", [("Service", *KEY[1:]), ("Deployment", "other", KEY[2])])
def test_fight_over_one_object_is_none_over_another(other):
    fight = Fight()
    fight.edit_for(30)
    assert not fight.contest.is_early(other)
