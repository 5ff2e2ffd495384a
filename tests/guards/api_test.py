"""The proto files keep the rules of proto/buf.yaml, and what twinroot/v1/api.binpb promises."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from tests import junit, npm, source_tree

_IMAGE = "twinroot/v1/api.binpb"


class Api(unittest.TestCase):

    def setUp(self):
        self.program = npm.buf(self)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.proto = os.path.join(folder.name, "proto")
        shutil.copytree(source_tree.root() / "proto", self.proto)

    def buf(self, *arguments):
        environment = {**os.environ, "HOME": os.path.dirname(self.proto)}
        done = subprocess.run([self.program, *arguments], cwd=self.proto, env=environment,
                              capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def edit(self, path, pattern, replacement):
        path = os.path.join(self.proto, path)
        with open(path, encoding="utf-8") as file:
            text, count = re.subn(pattern, replacement, file.read(), flags=re.MULTILINE)
        self.assertEqual(count, 1, f"{pattern} in {path}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def assertRefused(self, arguments, *words):
        code, said = self.buf(*arguments)
        self.assertNotEqual(code, 0)
        for word in words:
            self.assertIn(word, said)

    def test_TheFilesAreInStyle(self):
        self.assertEqual(self.buf("lint"), (0, ""))

    def test_NothingPromisedWasBroken(self):
        code, said = self.buf("breaking", "--against", _IMAGE)
        self.assertEqual(code, 0, f"{said}\nTo break the API on purpose: ./quickstart renew-api")

    def test_BadStyleIsFound(self):
        self.edit("twinroot/v1/common.proto", r"^  BACKEND_SIM = 3;", "  SIM = 3;")
        self.assertRefused(["lint"], 'Enum value name "SIM" should be prefixed with "BACKEND_"')

    def test_ARemovedFieldIsFound(self):
        self.edit("twinroot/v1/common.proto", r"^  uint64 size = 2;\n", "")
        self.assertRefused(["breaking", "--against", _IMAGE], "size", "deleted")

    def test_AChangedTypeIsFound(self):
        self.edit("twinroot/v1/common.proto", r"^  uint64 size = 2;", "  uint32 size = 2;")
        self.assertRefused(["breaking", "--against", _IMAGE], "uint64", "uint32")

    def test_ARemovedCallIsFound(self):
        self.edit("twinroot/v1/event.proto", r"^  rpc ListEvents\(.*\n", "")
        self.assertRefused(["breaking", "--against", _IMAGE], "ListEvents", "deleted")

    def test_AnAdditionIsNotABreak(self):
        self.edit("twinroot/v1/common.proto", r"^  uint64 size = 2;",
                  "  uint64 size = 2;\n  uint64 stride = 3;")
        self.assertEqual(self.buf("breaking", "--against", _IMAGE), (0, ""))


if __name__ == "__main__":
    junit.main()
