"""Expected trouble as values: what was seen, what was wanted, which object.

Core returns these and never raises them; shells raise exceptions of their own.
"""

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One thing wrong with one object, told so that its owner can mend it.

    `object` reads "ModelRoute llm/assistant"; `field` is a path such as
    "spec.behaviour.tiers[0].timeout"; `source` is "file.yaml:12" where a file is known.
    `condition` is the status condition that turns False, `reason` its CamelCase reason.
    """

    object: str
    field: str
    seen: str
    wanted: str
    reason: str = "Invalid"
    condition: str = "Accepted"
    source: str = ""

    def sentence(self) -> str:
        """Return the problem in one line, source first where there is one."""
        place = f"{self.source}: " if self.source else ""
        where = f"{self.object}: {self.field}" if self.field else self.object
        return f"{place}{where}: saw {self.seen}, wanted {self.wanted}"
