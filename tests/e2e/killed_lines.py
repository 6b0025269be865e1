"""Run as the operator's container: the operator is killed at chosen lines of its own, then runs on.

    python -c SOURCE SEED TURNS

Nothing in the product knows of it. Each turn runs the real entry point under a trace function
that counts executed lines of the walk's modules and sends SIGKILL at the one that was drawn.
"""

import os
import random
import signal
import subprocess
import sys

CHILD = """
import os, signal, sys, time
from weir_operator import __main__ as program

ROOMS = (
    "walk settle publish persist apply applied think memory leader kube feed mark cache "
    "backends standing revisions drift in_place gather inbox contest unapplied"
).split()
left = int(sys.argv[1])

def line(frame, event, arg):
    global left
    if event == "line":
        left -= 1
        if left <= 0:
            place = os.path.basename(frame.f_code.co_filename)
            print(f"killed at {place}:{frame.f_lineno} {time.time():.1f}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    return line

def call(frame, event, arg):
    folder, name = os.path.split(frame.f_code.co_filename)
    return line if folder.endswith("weir_operator") and name[:-3] in ROOMS else None

sys.argv = sys.argv[:1]
sys.settrace(call)
sys.exit(program.main())
"""


def main() -> None:
    seed, turns = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)
    for turn in range(turns):
        # From the first lines after the start to some seconds of walks.
        lines = int(10 ** chance.uniform(2.3, 4.6))
        print(f"turn {turn + 1}: {lines} lines", flush=True)
        subprocess.run([sys.executable, "-c", CHILD, str(lines)], check=False)
    print("turns over", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "weir_operator"])


if __name__ == "__main__":
    main()
