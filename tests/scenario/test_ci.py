"""What CI may not pass: a run of the cluster's tests that had no time for the most important."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_without_time_for_what_matters_most_fails(tmp_path):
    left = tmp_path / "cut"
    command = (sys.executable, "-m", "pytest", "tests/e2e", "-q", "-p", "no:cacheprovider")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "WEIR_E2E_SECONDS": "-1", "WEIR_E2E_CUT": str(left)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout
    assert "no time for what matters most" in done.stdout
    assert "passed" not in done.stdout
    assert "tests/e2e/test_ring.py::" in left.read_text(), "what a second try does not know of"
