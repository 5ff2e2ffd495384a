"""Every command of every document is run, against the daemon that the document itself starts."""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

from tests import junit, source_tree
from tests.docs import commands

_SECONDS = 60
# How a document shows a command that must fail: `command || echo "refused: exit code $?"`.
_REFUSED = "refused: exit code"


def run(script):
    """(exit code, output) of a script that sees bazel-bin as a person in the workspace does."""
    built = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"])
    # A short name: that of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="docs.") as folder:
        pathlib.Path(folder, "bazel-bin").symlink_to(built)
        for name in ("deploy", "docs", "tests"):
            pathlib.Path(folder, name).symlink_to(source_tree.root() / name)
        # A file, not a pipe: what a failed script leaves running would hold a pipe open.
        with open(pathlib.Path(folder, "output"), "w+", encoding="utf-8") as output:
            child = subprocess.Popen(["bash", "-c", script], cwd=folder,
                                     env=dict(os.environ, TMPDIR=folder), start_new_session=True,
                                     stdin=subprocess.DEVNULL, stdout=output,
                                     stderr=subprocess.STDOUT)
            note = ""
            try:
                child.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                note = f"not done after {_SECONDS} seconds\n"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.returncode:
                note += "".join(log.read_text() for log in pathlib.Path(folder).rglob("hvd.log"))
            output.seek(0)
            return child.returncode, output.read() + note


class Documents(unittest.TestCase):

    def test_EveryCommandRuns(self):
        scripts = {path: commands.script(path, text) for path, text in source_tree.files(".md")}
        self.assertIn("hvctl vm start", scripts["README.md"])
        for path, script in scripts.items():
            if script:
                with self.subTest(path):
                    code, output = run(script)
                    self.assertEqual(code, 0, output)
                    self.assertEqual(output.count(_REFUSED), script.count(_REFUSED), output)


class Blocks(unittest.TestCase):

    def test_OnlyMarkedBlocksAreRun(self):
        text = "<!-- run -->\n```sh\na\nb\n```\n<!-- not run: no -->\n```sh\nc\n```\n```text\nd\n```\n"
        self.assertEqual(commands.blocks("x.md", text), [(2, "a\nb")])

    def test_OnABareMachineMoreIsRun(self):
        text = "<!-- run on a bare machine -->\n```sh\na\n```\n<!-- run -->\n```sh\nb\n```\n"
        self.assertEqual(commands.blocks("x.md", text), [(6, "b")])
        self.assertEqual(commands.blocks("x.md", text, bare=True), [(2, "a"), (6, "b")])

    def test_BadDocumentsAreRefused(self):
        for text in ["```sh\na\n```\n", "<!-- run -->\ntext\n", "<!-- run -->\n```sh\na\n",
                     "<!-- run -->\n```text\na\n```\n", "<!-- not run: -->\n```sh\na\n```\n"]:
            with self.subTest(text), self.assertRaises(commands.BadDocument):
                commands.blocks("x.md", text)

    def test_AScriptStopsAtTheFirstFailure(self):
        script = commands.script("x.md", "<!-- run -->\n```sh\nfalse\necho reached\n```\n")
        code, output = run(script)
        self.assertEqual((code, output), (1, "== x.md:2\n"))


if __name__ == "__main__":
    junit.main()
