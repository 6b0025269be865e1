"""What a jump of the wall clock does to that of the operator and the routers."""

import pytest

from weir_core.steady import LOOK_S, SLEW, steady

HOUR_S = 3_600.0


class Wall:
    def __init__(self) -> None:
        self.now_s, self.off_s = 0.0, 0.0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now_s + self.off_s

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["ahead", "back"])
def test_a_jump_is_followed_slowly_and_never_backwards(wall: Wall, jump_s: float) -> None:
    clock = steady(wall.wall, wall.monotonic)
    wall.off_s = jump_s
    wall.now_s += LOOK_S
    before_s = clock()
    assert before_s == pytest.approx(wall.wall() - jump_s)
    wall.now_s += 10
    assert clock() - before_s == pytest.approx(10 * (1 + SLEW if jump_s > 0 else 1 - SLEW))
    last_s = clock()
    for _ in range(2_000):
        wall.now_s += 30
        assert clock() > last_s
        last_s = clock()
    assert clock() == pytest.approx(wall.wall())


def test_a_jump_there_and_back_leaves_nothing(wall: Wall) -> None:
    clock = steady(wall.wall, wall.monotonic)
    wall.off_s = HOUR_S
    wall.now_s += LOOK_S
    clock()
    wall.off_s = 0.0
    for _ in range(10):
        wall.now_s += 5
        clock()
    assert clock() == pytest.approx(wall.wall())
