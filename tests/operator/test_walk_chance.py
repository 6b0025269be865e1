"""Whatever happens to a ring, its promises hold: some hundred things at random, by seed.

More seeds by WEIR_SEEDS, as in `WEIR_SEEDS=500 .venv/bin/python -m pytest THIS_FILE -x`.
"""

import logging
import os

import pytest

from support.chance import Ring
from support.chance_acts import EVERYTHING
from support.virtual import run

SEEDS = int(os.environ.get("WEIR_SEEDS", "20"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_promised_holds_whatever_happens(seed, monkeypatch, caplog):
    caplog.set_level(logging.ERROR)
    ring = Ring(seed)
    run(ring.run(100, EVERYTHING), monkeypatch)
    assert ring.broken == [], "\n".join(ring.broken)
    assert [record for record in caplog.records if record.exc_info] == []
