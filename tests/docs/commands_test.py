"""Every command of every document is run, against the daemon that the document itself starts."""

import os
import pathlib
import signal
import subprocess
import unittest

from tests import junit, source_tree
from tests.docs import commands

_SECONDS = 120
# What `! command` does under `set -e` is nothing: a refusal that is not refused must fail.
_REFUSED = "refused() { if \"$@\"; then echo \"not refused: $*\"; exit 1; fi; }\n"


class Documents(unittest.TestCase):

    def run_script(self, text):
        """(exit code, output) of a script that sees bazel-bin as a person in the workspace does."""
        built = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"])
        folder = pathlib.Path(os.environ["TEST_TMPDIR"], "workspace")
        folder.mkdir()
        (folder / "bazel-bin").symlink_to(built)
        (folder / "tests").symlink_to(source_tree.root() / "tests")
        # A short TMPDIR: the name of a socket has at most 107 bytes.
        child = subprocess.Popen(["bash", "-c", text], cwd=folder, text=True,
                                 env=dict(os.environ, TMPDIR="/tmp"), start_new_session=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
        try:
            output, _ = child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, _ = child.communicate()
            output += f"\nnot done after {_SECONDS} seconds"
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)  # whatever a failed script left running
            except ProcessLookupError:
                pass
        return child.returncode, output

    def test_TheTourOfTheReadmeRuns(self):
        readme = (source_tree.root() / "README.md").read_text()
        script = commands.script("README.md", readme)
        self.assertIn("hvctl vm start", script)
        code, output = self.run_script(_REFUSED + script.replace("\n! ", "\nrefused "))
        self.assertEqual(code, 0, output)

    def test_EveryOtherDocumentRuns(self):
        for path, text in source_tree.files(".md"):
            with self.subTest(path):
                script = commands.script(path, text)
                if script and path != "README.md":
                    code, output = self.run_script(_REFUSED + script.replace("\n! ", "\nrefused "))
                    self.assertEqual(code, 0, output)


class Blocks(unittest.TestCase):

    def test_OnlyMarkedBlocksAreRun(self):
        text = "<!-- run -->\n```sh\na\nb\n```\n<!-- not run: no -->\n```sh\nc\n```\n```text\nd\n```\n"
        self.assertEqual(commands.blocks("x.md", text), [(2, "a\nb")])

    def test_BadDocumentsAreRefused(self):
        for text in ["```sh\na\n```\n", "<!-- run -->\ntext\n", "<!-- run -->\n```sh\na\n",
                     "<!-- run -->\n```text\na\n```\n", "<!-- not run: -->\n```sh\na\n```\n"]:
            with self.subTest(text), self.assertRaises(commands.BadDocument):
                commands.blocks("x.md", text)

    def test_AScriptStopsAtTheFirstFailure(self):
        script = commands.script("x.md", "<!-- run -->\n```sh\nfalse\necho reached\n```\n")
        done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn("reached", done.stdout)


if __name__ == "__main__":
    junit.main()
