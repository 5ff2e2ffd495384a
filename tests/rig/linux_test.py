"""An unmodified Debian kernel boots to its shell on kvm and on kvm-native, and memory calls are made
while it runs.

For the rig, whose processor runs a guest's ring 0 natively (tests/rig/README.md); RIG_GUEST names
the folder with the kernels and the initrd that prepare.sh made.
"""

import os
import pathlib
import re
import subprocess
import unittest

from tests import junit
from tests.e2e import harness

MIB = harness.MIB
PROMPT = "guest# "
_ESCAPES = re.compile(r"\r|\x1b\[[0-9;?]*[A-Za-z]")
PATIENCE = max(240, harness.PATIENCE)  # seconds


class Terminal:
    """`hvctl vm console --interactive`, typed on by the test."""

    def __init__(self, hvd, name):
        self._out = pathlib.Path(hvd.folder, f"{name}.console")
        self._seen = 0
        with open(self._out, "wb") as out:
            self._hvctl = subprocess.Popen(["cli/hvctl", "vm", "console", name, "-i"],
                                           env=hvd.environment, stdin=subprocess.PIPE, stdout=out,
                                           stderr=subprocess.STDOUT)

    def text(self):
        # The shell edits its lines with escape sequences.
        return _ESCAPES.sub("", self._out.read_text(errors="replace"))

    def until(self, what):
        """What came before `what`, since the last call; `what` is passed over."""
        def found():
            rest = self.text()[self._seen:]
            if what not in rest and self._hvctl.poll() is not None:
                raise AssertionError(f"the console ended without {what!r}:\n{self.text()}")
            return what in rest
        try:
            harness.until(found, f"the console says {what!r}", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\nthe console:\n{self.text()}") from None
        begin = self._seen
        self._seen = self.text().index(what, begin) + len(what)
        return self.text()[begin:self._seen - len(what)]

    def type(self, line):
        self._hvctl.stdin.write(line.encode() + b"\n")
        self._hvctl.stdin.flush()

    def do(self, command):
        """What a command of the guest's shell says."""
        self.type(command)
        self.until(command + "\n")
        return self.until(PROMPT).strip()

    def wait(self):
        return self._hvctl.wait(PATIENCE)

    def close(self):
        if self._hvctl.poll() is None:
            self._hvctl.kill()
        self._hvctl.wait()
        self._hvctl.stdin.close()


class LinuxTest(harness.E2eTest):

    BACKEND = "kvm"

    def setUp(self):
        guest = os.environ.get("RIG_GUEST")
        if guest is None:
            self.skipTest("no kernel: RIG_GUEST names no folder; run ./quickstart rig")
        self.guest = pathlib.Path(guest)
        self.hvd = self.start_with_kvm()
        if self.BACKEND.upper().replace("-", "_") not in self.hvd.host()["backends"]:
            self.skipTest(f"this host has no {self.BACKEND}")

    def words(self):
        """What Linux is told on kvm-native: no I/O APIC; and, where there is no kvmclock, the TSC, which
        it would measure by a timer: an emulated host is too slow for that."""
        if self.BACKEND == "kvm":
            return ""
        mhz = re.search(r"cpu MHz\s*: ([\d.]+)", pathlib.Path("/proc/cpuinfo").read_text())
        return f"noapic tsc_early_khz={float(mhz[1]) * 1000:.0f}"

    def boot(self, name, kernel="vmlinuz", cmdline="", memory="256MiB", vcpus=2):
        """A system that has come to its prompt."""
        self.hvd.create(name, "--image", self.guest / kernel, "--initrd", self.guest / "initrd",
                        "--cmdline", f"console=ttyS0 quiet {self.words()} {cmdline}",
                        "--backend", self.BACKEND, memory=memory, vcpus=vcpus)
        self.hvd.do("vm", "start", name)
        terminal = Terminal(self.hvd, name)
        self.addCleanup(terminal.close)
        terminal.until(PROMPT)
        return terminal

    def end(self, terminal, name):
        """It powers off by itself, and everybody sees an ordinary end."""
        terminal.type("exit")
        self.assertEqual(terminal.wait(), 0)
        self.assertExits(0, self.hvd, name)
        self.hvd.do("host", "audit")  # fails if an invariant of the engine does not hold

    def shared_bit(self, name):
        """The number of the address bit that tells the aliases apart."""
        bits = re.search(r"(\d+) bits", self.hvd.do("host", "show").out)
        return min(int(bits[1]), 48) - 1


class Boot(LinuxTest):

    def test_ABzImageBootsToItsShell(self):
        terminal = self.boot("bzimage")
        self.assertEqual(terminal.do("nproc"), "2")
        self.assertIn("ttyS0", terminal.do("grep ttyS /proc/interrupts"))
        self.assertIn("KVM", terminal.do("dmesg | grep -i hypervisor"))
        self.assertEqual(self.hvd.runs("bzimage"), [(0, 256 * MIB, "PRIVATE")])
        print(terminal.text())
        self.end(terminal, "bzimage")

    def test_APvhKernelBootsToItsShell(self):
        terminal = self.boot("pvh", kernel="vmlinux", vcpus=1)
        self.assertEqual(terminal.do("nproc"), "1")
        self.end(terminal, "pvh")

    def test_AResetIsAStopWithItsReason(self):
        terminal = self.boot("reset", vcpus=1)
        terminal.type("reboot -f")
        self.assertEqual(terminal.wait(), 0)
        self.assertExits(125, self.hvd, "reset")
        self.assertEqual(self.hvd.vm("reset")["stopReason"], "GUEST_RESET")

    def test_ATripleFaultIsAStopWithItsReason(self):
        terminal = self.boot("triple", cmdline="reboot=t", vcpus=1)
        terminal.type("reboot -f")
        self.assertEqual(terminal.wait(), 0)
        self.assertExits(125, self.hvd, "triple")
        self.assertEqual(self.hvd.vm("triple")["stopReason"], "TRIPLE_FAULT")


class Running(LinuxTest):
    """What an orchestrator does to a system that runs."""

    # Linux leaves alone what lies above `mem=`; its /dev/mem reaches it through both aliases.
    FREE = 224 * MIB

    def devmem(self, terminal, address, *value):
        return terminal.do(" ".join(["devmem", hex(address), "32", *map(hex, value)]))

    def test_GuestAndHostShareAPage(self):
        terminal = self.boot("share", cmdline="mem=224M", vcpus=2)
        shared = self.FREE | 1 << self.shared_bit("share")
        self.devmem(terminal, shared, 0x12345678)  # an implicit conversion
        self.assertEqual(self.hvd.do("memory", "read", "share", hex(self.FREE), 4).raw,
                         bytes.fromhex("78563412"))
        self.hvd.do("memory", "write", "share", hex(self.FREE), "--data", "hiya")
        self.assertEqual(int(self.devmem(terminal, shared), 16), int.from_bytes(b"hiya", "little"))
        self.devmem(terminal, self.FREE, 1)  # and back: the host may not look any more
        self.assertCode(6, self.hvd.hvctl("memory", "read", "share", hex(self.FREE), 4))
        kinds = [conversion["direction"] for _, conversion
                 in harness.conversions(self.hvd.events("--vm", "share"))]
        self.assertEqual(kinds, ["TO_SHARED", "TO_PRIVATE"])
        self.end(terminal, "share")

    def test_ADecisionIsWaitedForWhileTheOthersRunOn(self):
        # With interrupt controllers a worker of KVM's own may be what waits.
        terminal = self.boot("gate", cmdline="mem=224M", vcpus=2)
        shared = self.FREE | 1 << self.shared_bit("gate")
        self.hvd.do("vm", "update", "gate", "--policy", "orchestrator", "--decision-timeout", "10m")
        for turn in range(3):
            terminal.type(f"devmem {shared + turn * harness.PAGE:#x} 32 {turn + 1}")
            request = self.hvd.wait_for_request("gate")
            self.assertEqual(int(request["gpa"]), self.FREE + turn * harness.PAGE)
            self.hvd.do("vm", "pause", "gate")
            self.hvd.do("vm", "resume", "gate")
            self.hvd.do("conversion", "approve", "gate", "--all")
            terminal.until(PROMPT)
            self.assertEqual(
                self.hvd.do("memory", "read", "gate", hex(self.FREE + turn * harness.PAGE), 1).raw,
                bytes([turn + 1]))
        self.end(terminal, "gate")

    def test_ItRunsOnUnderConversionsAndSplits(self):
        terminal = self.boot("busy", cmdline="mem=224M", vcpus=2)
        # It leaves the processor to others, of which an emulated host has one.
        terminal.do("(while usleep 20000; do i=$((i+1)); echo $i >/new; mv /new /count; done) & sleep 1")
        before = int(terminal.do("cat /count"))
        window = f"{self.FREE:#x}:16MiB"
        for _ in range(5):
            self.hvd.do("memory", "set", "busy", "--range", window, "--shared")
            self.hvd.do("memory", "split", "busy", "--range", window)
            self.hvd.do("memory", "set", "busy", "--range", window, "--private")
            self.hvd.do("memory", "recover", "busy", "--range", window)
            self.hvd.do("vm", "pause", "busy")
            self.hvd.do("vm", "resume", "busy")
        self.assertGreater(int(terminal.do("cat /count")), before)
        self.end(terminal, "busy")

    def show(self, *arguments):
        """The same for the transcript."""
        answer = self.hvd.hvctl(*arguments)
        print("$ hvctl", *arguments)
        print((answer.out + answer.err).rstrip(), flush=True)
        return answer

    def test_ItsMemoryIsWatched(self):
        terminal = self.boot("log", cmdline="mem=224M", vcpus=2)
        print(terminal.text())
        self.assertRegex(self.show("memory", "stats", "log").out, r"Private pages: .*2MiB")
        enabled = self.show("dirty", "enable", "log")
        if self.BACKEND == "kvm":
            self.assertRegex(enabled.out, r"is on; [1-9]\d* pages of 2MiB .* split")
            self.hvd.do("dirty", "harvest", "log")
            self.devmem(terminal, self.FREE + 0x5000, 7)
            runs = self.hvd.do("dirty", "harvest", "log", "-o", "json").out
            self.assertIn(str(self.FREE + 0x5000), runs)
            self.show("dirty", "harvest", "log")
            self.assertEqual(self.show("dirty", "disable", "log").code, 0)
            self.assertEqual(int(self.devmem(terminal, self.FREE + 0x5000), 16), 7)
        else:
            self.assertCode(5, enabled)  # its kernel logs no writes to private memory
        split = self.show("memory", "split", "log", "--range", "0x0:64MiB")
        self.assertEqual(split.code, 0)
        self.assertIn("Linux", terminal.do("uname -a"))
        self.show("memory", "recover", "log", "--range", "0x0:64MiB")
        self.show("memory", "stats", "log")
        self.end(terminal, "log")


class NativeBoot(Boot):
    BACKEND = "kvm-native"


class NativeRunning(Running):
    BACKEND = "kvm-native"


class Typing(LinuxTest):

    def test_OnlyAnOperatingSystemCanBeTypedOn(self):
        self.hvd.create("quiet", "--image", harness.image("hello"))
        answer = self.hvd.hvctl("vm", "console", "quiet", "--interactive")
        self.assertCode(5, answer)
        self.assertIn("does not run", answer.err)


if __name__ == "__main__":
    junit.main()
