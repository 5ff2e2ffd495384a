"""A short soak: nothing is lost, stuck or left over. README.md has the long one."""

import os
import subprocess

from tests import junit
from tests.e2e import harness
from tests.soak import soak

_MINUTES = 1 / 3


class Soak(harness.E2eTest):

    def test_ADaemonHoldsRandomVms(self):
        given = soak.arguments(["--minutes", str(_MINUTES), *os.environ.get("SOAK", "").split()])
        hvd = self.start("--allow-core-dumps")
        done = soak.soak(hvd, given, capture_output=True, text=True)
        print(done.stdout)
        self.assertEqual(done.returncode, 0, f"{done.stderr}\n{hvd.log()[-3000:]}")
        # A table without rows would be no soak.
        for word in ("HarvestDirtyLog", "AddMemslot", "each told once", "mappings", "sound"):
            self.assertIn(word, done.stdout)
        self.stop(hvd)

    def test_ADriverWithoutADaemonSaysSo(self):
        done = subprocess.run([soak.DRIVER], capture_output=True, text=True,
                              timeout=harness.PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--endpoint and --pid", done.stderr)


if __name__ == "__main__":
    junit.main()
