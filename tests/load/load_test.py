"""The daemon under load: nothing is lost in silence, memory stays flat, no thread a stream.

LOAD_SECONDS makes the mixed load longer, and everything else larger: see README.md.
"""

import os
import subprocess

from tests import junit
from tests.e2e import harness

_DRIVER = os.path.abspath("tests/load/load")


class Load(harness.E2eTest):

    def test_TheDaemonHolds(self):
        seconds = float(os.environ.get("LOAD_SECONDS", "0"))
        sizes = ["--seconds", str(seconds)] if seconds else [
            "--seconds=4", "--idle=1000", "--storm=40000"]
        hvd = self.start("--backend", "sim")
        done = subprocess.run([_DRIVER, "--socket", str(hvd.socket), "--pid", str(hvd.pid), *sizes],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=2 * seconds + 4 * harness.PATIENCE)
        print(done.stdout)
        self.assertEqual(done.returncode, 0, f"{done.stderr}\n{hvd.log()[-2000:]}")
        # A table without rows would be no load.
        for row in ("SetMemoryAttributes", "live", "KiB a watch", "events told to watchers"):
            self.assertIn(row, done.stdout)
        self.stop(hvd)

    def test_ADriverWithoutADaemonSaysSo(self):
        done = subprocess.run([_DRIVER], capture_output=True, text=True, timeout=harness.PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--socket and --pid", done.stderr)


if __name__ == "__main__":
    junit.main()
