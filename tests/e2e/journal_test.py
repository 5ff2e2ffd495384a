"""The event journal outlives hvd: what was shown stays, cursors stay good, whoever is killed."""

import os
import random
import signal
import time

from tests import junit
from tests.e2e import harness

_PROGRAM = "tests/scenarios/programs/one_conversion.textproto"
_FAILURE = 1
# Converts one page to and fro until somebody ends it.
_STORM = """vcpus { steps { loop { count: 100000000
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_SHARED } }
    steps { map_gpa { gpa: 0x400000 pages: 1 kind: MEMORY_KIND_PRIVATE } } } } }"""
# The same by accesses, which wait for the VM's rate: so many events a second and no more, however
# slow those are who read them.
_PACED = """vcpus { steps { loop { count: 100000000
    steps { write { gpa: 0x400000 alias: MEMORY_KIND_SHARED } }
    steps { write { gpa: 0x400000 alias: MEMORY_KIND_PRIVATE } } } } }"""
_PACE = 1000


def place(event):
    """(epoch, position) of an event's cursor."""
    epoch, position = event["cursor"].split("-")
    return epoch, int(position)


def told(stream):
    return [event for event in stream.events() if "bookmark" not in event]


class Journal(harness.E2eTest):

    def start_again(self, hvd):
        return self.start("--backend", "sim", folder=hvd.folder)

    def kill(self, hvd):
        os.kill(hvd.pid, signal.SIGKILL)
        self.assertEqual(hvd.process.wait(), -signal.SIGKILL)

    def assertJoins(self, events):
        """One epoch, every place once and in order, every VM's sequence without a hole."""
        self.assertEqual({epoch for epoch, _ in map(place, events)}, {place(events[0])[0]})
        first = place(events[0])[1]
        self.assertEqual([position for _, position in map(place, events)],
                         list(range(first, first + len(events))))
        sequences = {}
        for event in events:
            if event["vm"]:
                sequences.setdefault(event["vm"], []).append(int(event["vmSequence"]))
        for vm, sequence in sequences.items():
            self.assertEqual(sequence, list(range(sequence[0], sequence[0] + len(sequence))), vm)

    def test_AGuestWaitsForALosslessWatchThatStandsStill(self):
        hvd = self.start("--backend", "sim")
        (hvd.folder / "storm.textproto").write_text(_STORM)
        conversions = lambda: sum(hvd.metrics("twinroot_conversions_total").values())
        stream = hvd.follow("--lossless", "60s")
        hvd.run("storm", "--program", hvd.folder / "storm.textproto")
        harness.until(lambda: len(told(stream)) > 100, "the storm is shown")
        os.kill(stream.process.pid, signal.SIGSTOP)
        harness.until(lambda: hvd.metrics("twinroot_held_back_conversions_total"),
                      "the guest is held")

        def stands_still():
            seen = conversions()
            time.sleep(0.3)
            return conversions() == seen

        # What is on its way to the watch has room there for a while.
        harness.until(stands_still, "the guest stands still")
        before = conversions()
        os.kill(stream.process.pid, signal.SIGCONT)
        harness.until(lambda: conversions() > before + 1000, "the guest goes on")
        hvd.do("vm", "stop", "storm")
        harness.until(lambda: '"STOPPED"' in stream.text()[-4000:], "the end is shown")
        self.assertJoins(told(stream))
        self.assertEqual([event for event in told(stream) if "gap" in event], [])
        self.stop(hvd)

    def test_WhatAKilledDaemonHasShownStaysAndTheRestIsResumed(self):
        hvd = self.start("--backend", "sim")
        (hvd.folder / "storm.textproto").write_text(_PACED)
        shown, since = [], []
        for round_ in range(4):
            stream = hvd.follow(*since)
            hvd.run("storm", "--program", hvd.folder / "storm.textproto",
                    "--max-conversion-rate", _PACE)
            enough = len(shown) + random.randrange(200, 2000)
            harness.until(lambda: len(shown) + len(told(stream)) > enough, "the storm is shown")
            self.kill(hvd)
            stream.wait()
            shown += told(stream)
            since = ["--since", shown[-1]["cursor"]]
            hvd = self.start_again(hvd)
            listed = hvd.events()
            # What was shown is there, and nothing else in its place.
            self.assertEqual(listed[:len(shown)], shown)
            # What was committed and not shown yet comes next, then this daemon's first word.
            self.assertEqual(hvd.events(*since), listed[len(shown):])
            started = listed[-1]["daemonStarted"]
            self.assertEqual((started["previousEnd"], started["epochKept"]), ("KILLED", True))
            self.assertEqual(round_ + 2, sum("daemonStarted" in event for event in listed))
        self.assertJoins(hvd.events())
        self.stop(hvd)

    def test_ACleanRestartKeepsEverything(self):
        hvd = self.start("--backend", "sim")
        hvd.run("p", "--program", _PROGRAM)
        self.assertExits(0, hvd, "p")
        before = hvd.events()
        self.assertEqual(before[0]["daemonStarted"]["previousEnd"], "NONE")
        self.stop(hvd)
        hvd = self.start_again(hvd)
        hvd.run("p", "--program", _PROGRAM)
        self.assertExits(0, hvd, "p")
        after = hvd.events("--since", before[-1]["cursor"])
        self.assertEqual(after[0]["daemonStarted"],
                         {"version": before[0]["daemonStarted"]["version"],
                          "previousEnd": "CLEAN", "epochKept": True})
        self.assertJoins(before + after)
        self.assertEqual(hvd.events(), before + after)
        self.assertEqual(hvd.events("--kind", "daemon-started"), [before[0], after[0]])
        # A deleted VM's name begins anew.
        hvd.do("vm", "delete", "p", "--yes")
        hvd.create("p", "--program", _PROGRAM)
        self.assertEqual(hvd.events("--vm", "p")[-1]["vmSequence"], "1")
        self.stop(hvd)

    def test_AJournalThatIsGoneIsAnotherEpochThatSaysWhereToBegin(self):
        hvd = self.start("--backend", "sim")
        cursor = hvd.events()[-1]["cursor"]
        self.stop(hvd)
        for file in hvd.folder.glob("**/events.sqlite*"):
            file.unlink()
        hvd = self.start_again(hvd)
        answer = hvd.hvctl("events", "--since", cursor)
        self.assertCode(_FAILURE, answer)
        self.assertIn("belongs to another journal", answer.err)
        self.assertIn("the oldest event kept is at --since ", answer.err)
        oldest = answer.err.split("--since ")[1].split()[0]
        self.assertEqual(hvd.events("--since", oldest), hvd.events())
        self.stop(hvd)

    def test_ADamagedJournalIsSetAsideAndNeverKeepsTheDaemonFromStarting(self):
        hvd = self.start("--backend", "sim")
        cursor = hvd.events()[-1]["cursor"]
        self.stop(hvd)
        [journal] = hvd.folder.glob("**/events.sqlite")
        with open(journal, "r+b") as file:
            file.write(b"not a database")
        hvd = self.start_again(hvd)
        self.assertIn("is unusable", hvd.log())
        self.assertEqual(len(list(journal.parent.glob("events.sqlite.aside-*"))), 1)
        self.assertCode(_FAILURE, hvd.hvctl("events", "--since", cursor))
        self.assertEqual(hvd.events()[0]["daemonStarted"]["epochKept"], False)
        self.stop(hvd)

    def test_TwoDaemonsDoNotShareAJournal(self):
        first = self.start("--backend", "sim")
        state = next(first.folder.glob("**/events.sqlite")).parent
        folder = self.folder()
        (folder / "state").symlink_to(state)
        second = self.launch("--backend", "sim", folder=folder)
        self.assertEqual(second.process.wait(harness.PATIENCE), 1, second.log())
        self.assertIn("another hvd keeps its events in", second.log())
        self.stop(first)


if __name__ == "__main__":
    junit.main()
