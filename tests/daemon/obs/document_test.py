"""docs/METRICS.md is what the daemon's catalogue says."""

import pathlib
import subprocess
import unittest

from tests import junit


class Document(unittest.TestCase):

    def test_ItIsWhatTheCatalogueSays(self):
        written = subprocess.run(["daemon/obs/metrics_document"], stdout=subprocess.PIPE, text=True,
                                 check=True).stdout
        self.assertEqual(pathlib.Path("docs/METRICS.md").read_text(), written,
                         "run tools/metrics_document.sh")


if __name__ == "__main__":
    junit.main()
