"""Runs the Node.js programs of this folder against a real hvd."""

import json
import os
import subprocess

from tests import npm, source_tree
from tests.e2e import harness


class InteropTest(harness.E2eTest):
    """Skips itself, with the reason, where the npm packages could not be had (tests/npm.py)."""

    def setUp(self):
        super().setUp()
        self._node, variables = npm.node(self)
        self._environment = {**os.environ, **variables,
                             "TWINROOT_SOURCES": str(source_tree.root())}

    def _command(self, program, *arguments):
        return [self._node, str(source_tree.root() / "tests/interop" / program),
                *map(str, arguments)]

    def node(self, hvd, program, *arguments):
        """A program that goes on."""
        stream = harness.Stream(self._command(program, hvd.socket, *arguments), self._environment,
                                hvd.folder)
        self.addCleanup(stream.close)
        return stream

    def case(self, hvd, *arguments):
        """What one case of calls.js found."""
        done = subprocess.run(self._command("calls.js", hvd.socket, *arguments),
                              env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=harness.PATIENCE)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{hvd.log()}")
        return json.loads(done.stdout)
