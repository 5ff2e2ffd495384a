"""Every conversion is seen, once, the same by the guest, the event stream, memory get and metrics."""

import collections
import re
import unittest

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB, PAGE

_SUMMARY = re.compile(
    r"convert: ok, rounds (\d+), implicit conversions (\d+), MapGPA requests (\d+), "
    r"pages to shared (\d+), to private (\d+)\n")


def _count(conversions):
    """Ranges by direction and cause. Of a range that took long, several events tell the pieces."""
    ranges = []
    for _, c in conversions:
        last = ranges[-1] if ranges else None
        if last and last["id"] == c["id"] and int(last["gpa"]) + int(last["size"]) == int(c["gpa"]):
            last["size"] = int(last["size"]) + int(c["size"])
        else:
            ranges.append(dict(c))
    return dict(collections.Counter((c["direction"], c["cause"]) for c in ranges))


class Conversions(harness.E2eTest):

    def assertAccountsAgree(self, hvd, vm, memory):
        """Events, attributes and metrics of a VM that ended; returns its conversions."""
        events = hvd.events("--vm", vm)
        self.assertEqual([event for event in events if "gap" in event], [])
        self.assertEqual({event["vm"] for event in events}, {vm})
        self.assertEqual([int(event["vmSequence"]) for event in events],
                         list(range(1, len(events) + 1)))
        self.assertEqual(len({event["cursor"] for event in events}), len(events))
        conversions = harness.conversions(events)
        for _, conversion in conversions:
            self.assertGreater(harness.seconds(conversion["latency"]), 0, conversion)
            self.assertEqual((conversion["decision"], conversion["decider"]),
                             ("APPLIED", "POLICY"), conversion)
            self.assertEqual(int(conversion["gpa"]) % PAGE, 0, conversion)
        self.assertEqual(harness.conversion_metrics(hvd), harness.metrics_of(conversions))
        self.assertEqual(hvd.runs(vm), harness.runs_of(conversions, memory))
        return conversions

    def test_GuestEventsAttributesAndMetricsAgreeOnConvert(self):
        hvd = self.start_with_kvm()
        hvd.run("c1", "--image", harness.image("convert"), "--backend", "kvm", vcpus=2)
        self.assertExits(0, hvd, "c1")
        conversions = self.assertAccountsAgree(hvd, "c1", 16 * MIB)

        # What the guest says that it did.
        summary = _SUMMARY.fullmatch(hvd.console("c1"))
        self.assertIsNotNone(summary, hvd.console("c1"))
        self.assertEqual(summary.groups(), ("1", "4", "13", "1040", "1040"))
        pages = collections.Counter()
        for _, conversion in conversions:
            self.assertEqual(conversion["vcpu"], 0)
            pages[conversion["direction"]] += int(conversion["size"]) // PAGE
        self.assertEqual(pages, {"TO_SHARED": 1040, "TO_PRIVATE": 1040})
        # One request of the 13 finds a page shared already in the middle of its range: two events.
        self.assertEqual(_count(conversions),
                         {("TO_SHARED", "IMPLICIT"): 2, ("TO_PRIVATE", "IMPLICIT"): 2,
                          ("TO_SHARED", "EXPLICIT"): 8, ("TO_PRIVATE", "EXPLICIT"): 6})
        ids = [c["id"] for _, c in conversions if c["cause"] == "EXPLICIT"]
        self.assertEqual(len(set(ids)), 13)
        self.stop(hvd)

    def test_TheSameHoldsWhileVcpusConvertEachOthersPages(self):
        hvd = self.start_with_kvm()
        hvd.run("s1", "--image", harness.image("smp"), "--cmdline", "rounds=400", "--backend", "kvm",
                memory="8MiB", vcpus=3)
        self.assertExits(0, hvd, "s1")
        conversions = self.assertAccountsAgree(hvd, "s1", 8 * MIB)
        self.assertEqual({c["vcpu"] for _, c in conversions}, {0, 1, 2})
        self.assertEqual(set(_count(conversions)),
                         {(direction, cause) for direction in ("TO_SHARED", "TO_PRIVATE")
                          for cause in ("IMPLICIT", "EXPLICIT")})
        # A real result to compare: not all private again.
        self.assertGreater(len(hvd.runs("s1")), 1)
        self.stop(hvd)

    def test_ALiveStreamShowsWhatTheListShows(self):
        hvd = self.start_with_kvm()
        hvd.create("c1", "--image", harness.image("convert"))
        live = hvd.follow("--vm", "c1")
        hvd.do("vm", "start", "c1")
        self.assertExits(0, hvd, "c1")
        listed = hvd.events("--vm", "c1")
        shown = lambda: [event for event in live.events() if "bookmark" not in event]
        harness.until(lambda: len(shown()) >= len(listed), "the stream shows all events")
        self.assertEqual(shown(), listed)
        self.assertEqual([event["vmState"]["state"] for event in listed if "vmState" in event],
                         ["DEFINED", "RUNNING", "STOPPED"])
        # From any cursor on there is the rest, no more and no less.
        middle = len(listed) // 2
        self.assertEqual(hvd.events("--vm", "c1", "--since", listed[middle]["cursor"]),
                         listed[middle + 1:])
        self.stop(hvd)

    def test_TheOrchestratorsOwnConversionsAreEventsToo(self):
        hvd = self.start("--backend", "sim")
        hvd.create("p", "--program", "tests/scenarios/programs/one_conversion.textproto")
        def change(ranges, kind):
            return hvd.do("memory", "set", "p", "--range", ranges, kind, "-o", "json").json()
        first = change("0x600000:64KiB,0x800000:4KiB", "--shared")
        self.assertEqual(first["converted"], [{"gpa": str(0x600000), "size": str(64 << 10)},
                                              {"gpa": str(0x800000), "size": str(4 << 10)}])
        again = change("0x600000:64KiB", "--shared")
        self.assertEqual((again["converted"], again["conversionId"]), ([], "0"))
        change("0x604000:8KiB", "--private")
        conversions = harness.conversions(hvd.events("--vm", "p"))
        self.assertEqual(
            [(c["direction"], c["cause"], c["decision"], c["decider"], int(c["gpa"]),
              int(c["size"])) for _, c in conversions],
            [("TO_SHARED", "API", "APPLIED", "ORCHESTRATOR", 0x600000, 64 << 10),
             ("TO_SHARED", "API", "APPLIED", "ORCHESTRATOR", 0x800000, 4 << 10),
             ("TO_PRIVATE", "API", "APPLIED", "ORCHESTRATOR", 0x604000, 8 << 10)])
        self.assertEqual(conversions[0][1]["id"], first["conversionId"])
        self.assertNotIn("vcpu", conversions[0][1])
        self.assertEqual(hvd.runs("p"), harness.runs_of(conversions, 16 * MIB))
        self.assertEqual(harness.conversion_metrics(hvd), harness.metrics_of(conversions))
        self.stop(hvd)

    def test_MetricsAndEventSequenceEndWithTheVm(self):
        hvd = self.start("--backend", "sim")
        for _ in range(2):
            hvd.run("p", "--program", "tests/scenarios/programs/one_conversion.textproto")
            self.assertExits(0, hvd, "p")
            self.assertEqual(
                harness.conversion_metrics(hvd),
                {("twinroot_conversions_total", ("cause", "implicit"), ("direction", "to_shared"),
                  ("result", "applied"), ("vm", "p")): 1,
                 ("twinroot_converted_bytes_total", ("cause", "implicit"),
                  ("direction", "to_shared"), ("vm", "p")): PAGE})
            hvd.do("vm", "delete", "p")
            self.assertEqual([key for key in hvd.metrics() if ("vm", "p") in key], [])
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
