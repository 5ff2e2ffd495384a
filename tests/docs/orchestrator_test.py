"""The orchestrators of docs/examples, in C++ and in Node.js, do what docs/orchestrator.md says of
them, against a real hvd; and the document shows these very programs."""

import os
import pathlib
import re
import shutil
import signal
import subprocess

from tests import junit, npm, source_tree
from tests.docs import extracts
from tests.e2e import harness

_GUIDE = "docs/orchestrator.md"
_EXAMPLES = "docs/examples"
_STORM = """vcpus { steps { loop { count: 3000
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_PRIVATE } } } } }"""
# The words of a tour that differ from run to run.
_VARIES = re.compile(r"^\d+(?= pages were left for the pause$)", re.MULTILINE)


def position(cursor):
    """The place of a cursor in its journal."""
    return int(cursor.split("-")[1])


class Example(harness.E2eTest):

    def commands(self):
        """{language: the command that runs its orchestrator}, and the environment that it needs."""
        folder = self.folder()
        for name in ("client.mjs", "orchestrator.mjs"):
            shutil.copy(pathlib.Path(_EXAMPLES, name), folder)
        # As in a project that has installed them.
        (folder / "node_modules").symlink_to(npm.modules(self))
        program, _ = npm.node(self)
        return {"C++": [str(pathlib.Path(_EXAMPLES, "orchestrator").resolve())],
                "Node.js": [program, str(folder / "orchestrator.mjs")]}

    def launch_example(self, hvd, language, *arguments, endpoint=None, **variables):
        """It goes on by itself."""
        environment = {**hvd.environment, "TWINROOT_SOURCES": str(source_tree.root()), **variables}
        stream = harness.Stream(
            [*self.commands()[language], endpoint or f"unix:{hvd.socket}", *map(str, arguments)],
            environment, hvd.folder)
        self.addCleanup(stream.close)
        return stream

    def tour(self, hvd, language, **how):
        """What a whole tour says."""
        stream = self.launch_example(hvd, language, "tour", _EXAMPLES, **how)
        code = stream.wait()
        self.assertEqual(code, 0, f"{stream.text()}{stream.errors()}{hvd.log()}")
        return stream.text()

    def each_language(self, check):
        for language in ("C++", "Node.js"):
            with self.subTest(language):
                check(language)


class Tour(Example):

    def test_ItPrintsWhatTheGuideShows(self):
        [expected] = extracts.blocks_after(source_tree.root() / _GUIDE, "<!-- tour -->")

        def check(language):
            hvd = self.start("--backend", "sim")
            said = self.tour(hvd, language)
            self.assertEqual(_VARIES.sub("N", said), _VARIES.sub("N", expected))
            # All of the buffer at most: a slow guest may still fill it.
            self.assertLessEqual(int(_VARIES.search(said)[0]), 256)
            self.assertEqual(hvd.do("vm", "list", "-o", "name").out, "")
            self.assertIn("vm guest: defined, 16 MiB, 1 vCPUs, backend sim\n", hvd.log())
            self.stop(hvd)
        self.each_language(check)

    def test_ItWaitsWhileItsUserHasTooManyCallsUnderWay(self):
        def check(language):
            folder = self.folder()
            (folder / "hvd.yaml").write_text("limits:\n  calls_per_principal: 3\n")
            hvd = self.start("--backend", "sim", "--config", folder / "hvd.yaml", folder=folder)
            followers = [hvd.follow() for _ in range(3)]
            self.assertIn("calls", hvd.hvctl("vm", "list").err)
            tour = self.launch_example(hvd, language, "tour", _EXAMPLES)
            harness.until(lambda: "trying again: code 8 TOO_MANY_CALLS, quota of" in tour.errors(),
                          "it is refused")
            self.assertIn(", again in 1 s: ", tour.errors())
            for follower in followers:
                follower.signal(signal.SIGTERM)
            self.assertEqual(tour.wait(), 0, tour.errors())
            self.stop(hvd)
        self.each_language(check)

    def test_OverTcpItShowsItsCertificate(self):
        def check(language):
            folder = self.folder()
            self.certificates(folder)
            (folder / "hvd.yaml").write_text(f"""
tcp:
  address: 127.0.0.1:0
  certificate: {folder}/server.pem
  key: {folder}/server.key
  client_ca: {folder}/ca.pem
roles:
  - role: operator
    uris: ["spiffe://test/ops/*"]
  - role: admin
    users: [root, {os.geteuid()}]
""")
            hvd = self.start("--backend", "sim", "--config", folder / "hvd.yaml", folder=folder)
            address = hvd.log().split(", tcp ")[1].split(",")[0]
            self.assertIn("\ndeleted\n", self.tour(hvd, language, endpoint=address,
                                                   TLS=str(folder)))
            self.assertIn("spiffe://test/ops/example",
                          (folder / "state/audit.jsonl").read_text())
            self.stop(hvd)
        self.each_language(check)

    def certificates(self, folder):
        """ca.pem, server.pem and client.pem, with their keys."""
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-subj",
                "/CN=ca", "-days", "1", "-out", "ca.pem")
        for name, alternative in (("server", "IP:127.0.0.1"),
                                  ("client", "URI:spiffe://test/ops/example")):
            (folder / "san").write_text(f"subjectAltName={alternative}")
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-subj",
                    f"/CN={name}", "-out", f"{name}.csr")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                    "-CAcreateserial", "-days", "1", "-extfile", "san", "-out", f"{name}.pem")


class Watch(Example):

    def entries(self, log):
        """[(cursor, words)] of the whole lines of its log, without bookmarks."""
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        entries = [line.rstrip("\n").split(" ", 1) for line in lines if line.endswith("\n")]
        return [(cursor, words) for cursor, words in entries if not words.endswith("bookmark")]

    def storm(self, hvd, name):
        (hvd.folder / "storm.textproto").write_text(_STORM)
        hvd.run(name, "--program", hvd.folder / "storm.textproto")

    def until_compacted(self, hvd):
        """What is too much is announced, and goes a second later."""
        name = "twinroot_journal_events"
        harness.until(lambda: hvd.metrics(name)[(name,)] < 1500, "the journal is compacted")

    def test_ItIsToldEachEventOnceWhoeverIsKilled(self):
        def check(language):
            hvd = self.start("--backend", "sim")
            log = hvd.folder / "watch.log"
            watch = self.launch_example(hvd, language, "watch", log)
            harness.until(lambda: self.entries(log), "it has begun")
            self.storm(hvd, "one")
            harness.until(lambda: len(self.entries(log)) > 500, "the storm is told")
            watch.signal(signal.SIGKILL)
            watch.wait()
            watch = self.launch_example(hvd, language, "watch", log)
            harness.until(lambda: len(self.entries(log)) > 2000, "it goes on")
            hvd.process.kill()
            hvd.process.wait()
            hvd = self.start("--backend", "sim", folder=hvd.folder)
            harness.until(lambda: "trying again: code 14" in watch.errors(), "nobody answered")
            last = hvd.events()[-1]["cursor"]
            harness.until(lambda: self.entries(log)[-1][0] == last, "it has seen the new daemon")
            begin, *told = [cursor for cursor, _ in self.entries(log)]
            self.assertEqual(told, [event["cursor"] for event in hvd.events("--since", begin)])
            self.assertEqual(self.entries(log)[-1][1], "- daemon_started")
            self.stop(hvd)
        self.each_language(check)

    def test_WhatItMissedIsCountedOrMakesItStartOver(self):
        def check(language):
            folder = self.folder()
            (folder / "hvd.yaml").write_text("journal:\n  max_events: 1000\n")
            hvd = self.start("--backend", "sim", "--config", folder / "hvd.yaml", folder=folder)
            log = folder / "watch.log"
            watch = self.launch_example(hvd, language, "watch", log)
            harness.until(lambda: self.entries(log), "it has begun")
            watch.signal(signal.SIGKILL)
            watch.wait()
            for number in range(2):  # too much to keep
                self.storm(hvd, f"storm{number}")
                self.assertExits(0, hvd, f"storm{number}")
            self.until_compacted(hvd)
            watch = self.launch_example(hvd, language, "watch", log)
            harness.until(lambda: len(self.entries(log)) > 1, "it goes on")
            self.assertEqual(self.entries(log)[1][1], "- start over with 2 VMs")
            hvd.do("vm", "delete", "storm0", "--yes")
            harness.until(lambda: self.entries(log)[-1][1] == "storm0 vm_state", "it hears of this")
            # It stands still until more has happened than is kept; then a gap counts the rest.
            watch.signal(signal.SIGSTOP)
            for number in range(2, 8):
                self.storm(hvd, f"storm{number}")
            for number in range(2, 8):
                self.assertExits(0, hvd, f"storm{number}")
            self.until_compacted(hvd)
            watch.signal(signal.SIGCONT)
            last = hvd.events()[-1]["cursor"]
            harness.until(lambda: self.entries(log)[-1][0] == last, "it has caught up")
            gaps, at = 0, None
            for cursor, words in self.entries(log)[1:]:
                missed = int(words.split()[-1]) if words.startswith("- gap of ") else 0
                if at is not None:
                    self.assertEqual(position(cursor), at + (missed or 1), words)
                gaps, at = gaps + missed, position(cursor)
            self.assertGreater(gaps, 0)
            told = hvd.metrics()
            self.assertGreaterEqual(told[("twinroot_event_gap_events_total",)], gaps)
            self.assertGreaterEqual(told[("twinroot_event_gaps_total",)], 1)
            self.stop(hvd)
        self.each_language(check)


class Guide(Example):

    def test_ItShowsPiecesOfThePrograms(self):
        wrong = extracts.mistakes(source_tree.root() / _GUIDE, source_tree.root())
        self.assertEqual(wrong, [], "\n".join(wrong))

    def test_EveryPieceOfTheProgramsIsShown(self):
        shown = extracts.shown(source_tree.root() / _GUIDE)
        for name in ("client.h", "client.mjs", "orchestrator.cc", "orchestrator.mjs"):
            path = f"{_EXAMPLES}/{name}"
            pieces = extracts.pieces((source_tree.root() / path).read_text())
            self.assertGreater(len(pieces), 4)
            self.assertEqual({piece for file, piece in shown if file == path}, set(pieces), path)


if __name__ == "__main__":
    junit.main()
