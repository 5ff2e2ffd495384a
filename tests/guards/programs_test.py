"""Access programs in the tree are well-formed AccessProgram messages with at least one step."""

import subprocess
import unittest

from tests import junit, source_tree


class Programs(unittest.TestCase):

    def test_EveryProgramParses(self):
        for path, text in source_tree.files(".textproto", under="tests/scenarios/programs"):
            with self.subTest(path):
                done = subprocess.run(
                    ["protoc", "-Iproto", "--encode=twinroot.v1.AccessProgram",
                     "twinroot/v1/program.proto"],
                    cwd=source_tree.root(), input=text.encode(), capture_output=True)
                self.assertEqual(done.returncode, 0, done.stderr.decode())
                self.assertTrue(done.stdout, "the program is empty")


if __name__ == "__main__":
    junit.main()
