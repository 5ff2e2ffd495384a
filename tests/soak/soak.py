"""Soaks a daemon of its own: bazel run //tests/soak -- --minutes N. See README.md."""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile

from tests.e2e import harness

DRIVER = os.path.abspath("tests/soak/driver")


def arguments(words):
    parser = argparse.ArgumentParser(prog="soak", description="Random VMs on a daemon, watched.")
    parser.add_argument("--minutes", type=float, default=1, help="how long (1)")
    parser.add_argument("--vms", type=int, default=12, help="VMs at once (12)")
    parser.add_argument("--busy", type=int, default=2, help="of them, with guests that never rest (2)")
    parser.add_argument("--seed", type=int, help="of an earlier run; the same choices, other times")
    given = parser.parse_args(words)
    if given.minutes < 0.1 or given.vms < 2 or not 0 <= given.busy <= given.vms:
        parser.error("at least 0.1 minutes and two VMs, and no more of them busy than there are")
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(1 << 32)
    return given


def soak(hvd, given, **how):
    """Runs the driver beside a daemon; how it ended, as subprocess.run says it."""
    return subprocess.run(
        [DRIVER, f"--endpoint=unix:{hvd.socket}", f"--pid={hvd.pid}",
         f"--seconds={60 * given.minutes}", f"--vms={given.vms}", f"--busy={given.busy}",
         f"--seed={given.seed}"],
        stdin=subprocess.DEVNULL, timeout=120 * given.minutes + 5 * harness.PATIENCE, **how)


def main(words):
    given = arguments(words)
    folder = tempfile.mkdtemp(prefix="twinroot-soak.", dir="/tmp")
    # Its files can be counted by its user only if it may be traced.
    hvd = harness.Daemon(folder, "--allow-core-dumps")
    try:
        hvd.wait_until_ready()
        code = soak(hvd, given).returncode
        if code == 0 and (code := hvd.terminate()) != 0:
            print(f"soak: hvd ended with {code}", file=sys.stderr)
        if code != 0:
            print(f"hvd's log:\n{hvd.log()[-5000:]}", file=sys.stderr)
        return 1 if code else 0
    finally:
        hvd.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
