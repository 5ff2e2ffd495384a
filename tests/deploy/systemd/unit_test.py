"""hvd.service is a unit that systemd accepts without a complaint."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from tests import junit

_UNIT = pathlib.Path("deploy/systemd/hvd.service")


@unittest.skipUnless(shutil.which("systemd-analyze"),
                     "systemd-analyze is missing; install the Debian package systemd")
class HvdService(unittest.TestCase):

    def verify(self, text):
        """What systemd-analyze says about a unit of this text, as (exit code, complaints)."""
        with tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"]) as folder:
            path = pathlib.Path(folder, "hvd.service")
            path.write_text(text)
            done = subprocess.run(["systemd-analyze", "verify", str(path)],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # Units of the host that hvd.service pulls in are not ours to judge.
        return done.returncode, [line for line in done.stdout.splitlines() if "hvd.service" in line]

    def installed(self):
        """The unit with a binary that exists here: the real one is not installed."""
        text = _UNIT.read_text()
        self.assertEqual(text.count("ExecStart=/usr/bin/hvd\n"), 1)
        return text.replace("/usr/bin/hvd\n", "/usr/bin/true\n")

    def test_SystemdAcceptsTheUnit(self):
        self.assertEqual(self.verify(self.installed()), (0, []))

    def test_SystemdWouldReportAMistake(self):
        _, complaints = self.verify(self.installed().replace("RestartSec=", "RestartSecs="))
        self.assertTrue(complaints)

    def test_SystemdWouldReportAMissingBinary(self):
        code, complaints = self.verify(self.installed().replace("/usr/bin/true", "/nowhere/hvd"))
        self.assertNotEqual((code, complaints), (0, []))

    def test_TheUnitNotifies(self):
        self.assertIn("\nType=notify\n", _UNIT.read_text())

    def test_EveryHardeningLineHasAReasonAbove(self):
        # A paragraph of settings begins with a comment that says why.
        service = _UNIT.read_text().split("[Service]\n")[1].split("[Install]")[0]
        for paragraph in service.strip().split("\n\n"):
            self.assertTrue(paragraph.startswith("#"), paragraph)


if __name__ == "__main__":
    junit.main()
