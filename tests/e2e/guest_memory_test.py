"""The host sees shared memory as the guest does, and private memory not at all; on both backends."""

import base64
import re
import struct

from tests import junit
from tests.e2e import harness
from tests.e2e.harness import MIB, PAGE

_DENIED = 6
_PRIVATE, _SHARED = "MEMORY_KIND_PRIVATE", "MEMORY_KIND_SHARED"
_SECRET = 0x5EC2E7BADC0FFEE5  # in private memory; nowhere else

# Two shared pages written across their border, the secret in private pages on both sides and
# elsewhere, then a conversion that waits for the orchestrator (the second one; the first is the
# MapGPA), then a look at what the host wrote meanwhile.
_BEFORE, _PAGES, _AFTER, _DOORBELL = 0x3FF000, 0x400000, 0x402000, 0x500000
_HOST_WORD = 0x1122334455667788
_TALK = f"""
vcpus {{
  steps {{ write {{ gpa: {_BEFORE + PAGE - 8} value: {_SECRET} }} }}
  steps {{ write {{ gpa: {_AFTER} value: {_SECRET} }} }}
  steps {{ write {{ gpa: {_PAGES} value: {_SECRET} }} }}
  steps {{ map_gpa {{ gpa: {_PAGES} pages: 2 kind: {_SHARED} }} }}
  steps {{ expect {{ value: 0 }} }}
  steps {{ write {{ gpa: {_PAGES + PAGE - 8} alias: {_SHARED} value: 0x0706050403020100 }} }}
  steps {{ write {{ gpa: {_PAGES + PAGE} alias: {_SHARED} value: 0x0F0E0D0C0B0A0908 }} }}
  steps {{ print {{ text: "over to you\\n" }} }}
  steps {{ write {{ gpa: {_DOORBELL} alias: {_SHARED} size: 1 value: 1 }} }}
  steps {{ read {{ gpa: {_PAGES + 16} alias: {_SHARED} expect: {_HOST_WORD} }} }}
  steps {{ read {{ gpa: {_PAGES + PAGE - 8} alias: {_SHARED} expect: 0x6867666564636261 }} }}
  steps {{ read {{ gpa: {_PAGES + PAGE} alias: {_SHARED} expect: 0x706F6E6D6C6B6A69 }} }}
  steps {{ read {{ gpa: {_BEFORE + PAGE - 8} expect: {_SECRET} }} }}
  steps {{ read {{ gpa: {_AFTER} expect: {_SECRET} }} }}
  steps {{ print {{ text: "all as it should be\\n" }} }}
}}"""

# Conversions that must destroy the secret, and an expectation that fails where it is.
_BLUNDER = f"""
vcpus {{
  steps {{ loop {{ count: 512 steps {{ write {{ gpa: 0x600000 stride: 8 value: {_SECRET} }} }} }} }}
  steps {{ map_gpa {{ gpa: 0x600000 pages: 1 kind: {_SHARED} }} }}
  steps {{ write {{ gpa: 0x700000 value: {_SECRET} }} }}
  steps {{ read {{ gpa: 0x700000 expect: 1 }} }}
}}"""
_CRASH = f"""
vcpus {{
  steps {{ write {{ gpa: 0x700000 value: {_SECRET} }} }}
  steps {{ fetch {{ gpa: 0x700000 }} }}
}}"""


class _Cases:

    def run_program(self, hvd, name, text, *options):
        path = hvd.folder / f"{name}.textproto"
        path.write_text(text)
        hvd.run(name, "--program", path, "--backend", self.BACKEND, *options)

    def read(self, hvd, name, gpa, size):
        return hvd.do("memory", "read", name, f"{gpa:#x}", size).raw

    def assertPrivate(self, hvd, name, gpa, size):
        """Neither read nor written, and nothing of it in the answer."""
        read = hvd.hvctl("memory", "read", name, f"{gpa:#x}", size)
        write = hvd.hvctl("memory", "write", name, f"{gpa:#x}", "--data", "x" * size)
        for answer in (read, write):
            self.assertCode(_DENIED, answer)
            self.assertEqual(answer.raw, b"")
            self.assertIn("is private memory", answer.err)
            self.assertIn("memory get", answer.err)
            self.assertHoldsNoSecret(answer.err)

    def assertHoldsNoSecret(self, text):
        raw = struct.pack("<Q", _SECRET)
        lower = text.lower()
        for secret in (f"{_SECRET:x}", str(_SECRET), str(_SECRET - 2**64), raw.hex(),
                       raw.hex(" "), base64.b64encode(raw)[:8].decode().lower(),
                       # halves, in case it is printed in parts
                       f"{_SECRET >> 32:x}", f"{_SECRET & 0xFFFFFFFF:x}"):
            self.assertNotIn(secret, lower)
        self.assertNotIn(raw.decode("latin-1"), text)

    def assertSecretIsNowhere(self, hvd, name):
        for text in (hvd.log(), hvd.do("events", "-o", "json").out,
                     str(hvd.metrics()), str(hvd.vm(name)), str(hvd.runs(name)),
                     hvd.do("memory", "translate", name, f"{_PAGES:#x}").out):
            self.assertHoldsNoSecret(text)

    def test_HostAndGuestTalkThroughSharedPages(self):
        hvd = self.start_here()
        self.run_program(hvd, "talk", _TALK, "--policy", "orchestrator")
        hvd.wait_for_request("talk")
        self.assertPrivate(hvd, "talk", _PAGES, 8)
        hvd.do("conversion", "approve", "talk", "1")
        harness.until(lambda: "over to you" in hvd.console("talk"), "the guest goes on")
        hvd.wait_for_request("talk")

        # What the guest wrote, across the pages' border; the rest is zero, not the secret.
        self.assertEqual(self.read(hvd, "talk", _PAGES, 2 * PAGE),
                         bytes(PAGE - 8) + bytes(range(16)) + bytes(PAGE - 8))
        self.assertEqual(self.read(hvd, "talk", _PAGES + PAGE - 3, 7), bytes(range(5, 12)))
        for gpa, size in ((_BEFORE, 8), (_BEFORE + PAGE - 1, 1), (_BEFORE + PAGE - 8, 16),
                          (_PAGES + 2 * PAGE - 8, 16), (_AFTER, 8), (_PAGES - 8, 2 * PAGE + 16)):
            self.assertPrivate(hvd, "talk", gpa, size)

        # What the host writes, across the border too; one file, one text.
        word = hvd.folder / "word"
        word.write_bytes(struct.pack("<Q", _HOST_WORD))
        hvd.do("memory", "write", "talk", f"{_PAGES + 16:#x}", "--file", word)
        hvd.do("memory", "write", "talk", f"{_PAGES + PAGE - 8:#x}", "--data", "abcdefghijklmnop")
        hvd.do("conversion", "approve", "talk", "--all")
        self.assertExits(0, hvd, "talk")
        self.assertEqual(hvd.console("talk"), "over to you\nall as it should be\n")
        self.assertSecretIsNowhere(hvd, "talk")
        # The memory of a VM that ended is there until it is deleted, under the same rule.
        self.assertEqual(self.read(hvd, "talk", _PAGES + PAGE - 8, 16), b"abcdefghijklmnop")
        self.assertPrivate(hvd, "talk", _AFTER, 8)
        self.stop(hvd)

    def test_PrivateBytesAppearNowhereWhateverGoesWrong(self):
        hvd = self.start_here()
        self.run_program(hvd, "blunder", _BLUNDER)
        # On its own console a guest may say what it likes, and this one says what it found.
        self.assertExits(1, hvd, "blunder")
        self.assertSecretIsNowhere(hvd, "blunder")
        self.run_program(hvd, "crash", _CRASH)
        answer = hvd.wait("crash")
        self.assertCode(125, answer)
        self.assertIn("TRIPLE_FAULT", answer.err)
        self.assertHoldsNoSecret(answer.err)
        self.assertSecretIsNowhere(hvd, "crash")
        self.assertEqual(self.read(hvd, "blunder", 0x600000, PAGE), bytes(PAGE))
        self.assertPrivate(hvd, "blunder", 0x700000, 8)
        # The host makes the secret's page shared: it is destroyed, not disclosed.
        answer = hvd.hvctl("memory", "set", "blunder", "--range", "0x700000:4KiB", "--shared",
                           "--preserve")
        self.assertCode(_DENIED, answer)
        self.assertPrivate(hvd, "blunder", 0x700000, 8)
        hvd.do("memory", "set", "blunder", "--range", "0x700000:4KiB", "--shared")
        self.assertEqual(self.read(hvd, "blunder", 0x700000, PAGE), bytes(PAGE))
        self.assertSecretIsNowhere(hvd, "blunder")
        self.stop(hvd)

    def test_ANewVmFindsNothingOfAnOldOne(self):
        hvd = self.start_here()
        self.run_program(hvd, "old", f"""vcpus {{ steps {{ loop {{ count: 512 steps {{
            write {{ gpa: 0x400000 stride: 4096 value: {_SECRET} }} }} }} }} }}""")
        self.assertExits(0, hvd, "old")
        hvd.do("vm", "delete", "old")
        self.run_program(hvd, "new", """vcpus { steps { loop { count: 512 steps {
            read { gpa: 0x400000 stride: 4096 expect: 0 } } } } }""")
        self.assertExits(0, hvd, "new")
        hvd.do("memory", "set", "new", "--range", "0:16MiB", "--shared")
        self.assertEqual(self.read(hvd, "new", 4 * MIB, 2 * MIB), bytes(2 * MIB))
        self.stop(hvd)

    def test_TheDemoProgramEndsWell(self):
        hvd = self.start_here()
        hvd.run("demo", "--program", "tests/scenarios/programs/demo.textproto", "--backend",
                self.BACKEND)
        self.assertExits(0, hvd, "demo")
        said = re.findall(r"^demo: (.*)$", hvd.console("demo"), re.MULTILINE)
        self.assertEqual(said[-1], "all reads as promised")
        conversions = harness.conversions(hvd.events("--vm", "demo"))
        keys = ("id", "gpa", "size", "direction", "cause", "decision")
        self.assertEqual(  # the same on every backend
            [tuple(c[key] for key in keys) for _, c in conversions],
            [("1", str(0x400000), str(PAGE), "TO_SHARED", "IMPLICIT", "APPLIED"),
             ("2", str(0x400000), str(PAGE), "TO_PRIVATE", "IMPLICIT", "APPLIED"),
             ("3", str(0x600000), str(2 * MIB), "TO_SHARED", "EXPLICIT", "APPLIED"),
             ("4", str(0x600000), str(2 * MIB), "TO_PRIVATE", "EXPLICIT", "APPLIED"),
             ("5", str(0x601000), str(2 * PAGE), "TO_SHARED", "EXPLICIT", "APPLIED"),
             ("6", str(0x602000), str(PAGE), "TO_PRIVATE", "EXPLICIT", "APPLIED")])
        self.assertEqual(hvd.runs("demo"), [(0, 0x601000, "PRIVATE"), (0x601000, PAGE, "SHARED"),
                                            (0x602000, 16 * MIB - 0x602000, "PRIVATE")])
        self.assertEqual(harness.conversion_metrics(hvd), harness.metrics_of(conversions))
        self.stop(hvd)


class OnSim(_Cases, harness.E2eTest):
    BACKEND = "sim"

    def start_here(self):
        return self.start("--backend", "sim")


class OnKvm(_Cases, harness.E2eTest):
    BACKEND = "kvm"

    def start_here(self):
        return self.start_with_kvm()


if __name__ == "__main__":
    junit.main()
