"""The example configuration is one that hvd takes, shows every key, and shows the defaults."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from tests import junit

_EXAMPLE = pathlib.Path("deploy/hvd.yaml").read_text()


def check(text):
    """(exit code, output, errors) of hvd --check-config for a file of this text."""
    with tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"]) as folder:
        path = pathlib.Path(folder, "hvd.yaml")
        path.write_text(text)
        done = subprocess.run(["daemon/hvd", "--check-config", "--config", str(path)],
                              capture_output=True, text=True,
                              env={**os.environ, "HOME": folder, "XDG_RUNTIME_DIR": folder})
        return done.returncode, done.stdout, done.stderr.replace(str(path), "hvd.yaml")


class ExampleConfiguration(unittest.TestCase):

    def test_HvdTakesIt(self):
        self.assertEqual(check(_EXAMPLE), (0, "ok\n", ""))

    def test_WhatIsCommentedOutIsRightToo(self):
        # Prose has one space after its sign, settings have none or a whole indentation.
        settings = re.sub(r"^#(?=\S|  )", "", _EXAMPLE, flags=re.MULTILINE)
        self.assertIn("\ntcp:\n", settings)
        self.assertIn("\n  - role: viewer\n", settings)
        code, _, errors = check(settings)
        self.assertEqual((code, errors), (
            2, "hvd.yaml: tcp.certificate: /etc/twinroot/tls/server.pem cannot be read: "
            "No such file or directory\n"))

    def test_ItShowsEveryKey(self):
        for before in ["", "tcp:\n  ", "audit:\n  ", "limits:\n  ", "roles:\n  - "]:
            code, _, errors = check(f"{before}no_such_key: 1\n")
            self.assertEqual(code, 2, errors)
            keys = re.search(r'unknown key "no_such_key": allowed .*?are (.*)\n', errors)[1]
            for key in keys.split(", "):
                self.assertRegex(_EXAMPLE, rf"(?m)^#?[ -]*{key}:")

    def test_AMistakeIsRefusedWithItsPlace(self):
        self.assertEqual(
            check("log_level: loud\n"),
            (2, "", 'hvd.yaml:1:12: log_level: "loud" is none of debug, info, warning, error\n'))


if __name__ == "__main__":
    junit.main()
