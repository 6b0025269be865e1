"""What CI may not pass: the cluster's tests without a cluster, or without time for them."""

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


def test_a_machine_that_can_carry_no_cluster_fails_and_says_what_it_lacks(tmp_path):
    nothing = tmp_path / "bin"
    nothing.mkdir()
    (nothing / "python3").symlink_to(sys.executable)
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    test = "tests/e2e/test_ring.py"
    done = subprocess.run(
        (sys.executable, "-m", "pytest", test, "-q", "-p", "no:cacheprovider"),
        cwd=ROOT,
        env={**places, "PATH": str(nothing), "WEIR_CLUSTER_DIR": str(tmp_path / "w")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert "no cluster can be had here: no Docker daemon answers" in told
    assert "saw no `go` on the PATH" in told
