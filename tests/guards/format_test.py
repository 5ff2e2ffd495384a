"""Every C++ source is formatted, and every script passes the shell's own syntax check."""

import shutil
import subprocess
import unittest

from tests import junit, source_tree


class Format(unittest.TestCase):

    @unittest.skipUnless(shutil.which("clang-format"),
                         "clang-format is missing; run ./quickstart install-packages")
    def test_ClangFormatChangesNothing(self):
        done = subprocess.run(["tools/format.sh", "--check"], cwd=source_tree.root(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, f"run ./quickstart format\n{done.stdout[-4000:]}")

    def test_ScriptsParse(self):
        scripts = [path for path, text in source_tree.files("", under="tools")
                   if text.startswith("#!") and "sh" in text.splitlines()[0]]
        for script in scripts + ["quickstart", ".ci/run", "tools/workspace.sh"]:
            with self.subTest(script):
                done = subprocess.run(["bash", "-n", script], cwd=source_tree.root(),
                                      stderr=subprocess.PIPE, text=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    junit.main()
