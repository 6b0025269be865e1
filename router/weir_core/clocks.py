"""Whether the clocks of routers and of who leads agree: holds and bakes are as long as they say.

One that is far off would end them early, or never. Which of the two is wrong nobody can tell, so
nothing is raised and nothing that is timed ends while they disagree.
"""

from collections.abc import Iterable

from weir_core.figures import duration

MOST_S = 60.0
"""How far apart two clocks may be that agree; a report is on its way for less."""


def routers_off_s(offs_s: Iterable[float]) -> float | None:
    """Return how far most routers' clocks are ahead of who leads; 0 while they agree.

    None while no router was heard.

    `offs_s` are of each router: its own time in a report, less the time at which that came. It
    takes more than half of them on one side: a router that is off alone is not believed.
    """
    offs = sorted(offs_s)
    if not offs:
        return None
    for side in ([s for s in offs if s > MOST_S], [s for s in offs if s < -MOST_S]):
        if 2 * len(side) > len(offs):
            return side[len(side) // 2]
    return 0.0


def clocks_text(off_s: float) -> str:
    """Return by how much the clocks disagree, and what is to be done; "" while they agree."""
    if not off_s:
        return ""
    how = "ahead of" if off_s > 0 else "behind"
    return (
        f"most routers' clocks are {duration(abs(off_s))} {how} the operator's: set the clocks of "
        "the nodes right (NTP), then restart the operator if its clock was the wrong one"
    )
