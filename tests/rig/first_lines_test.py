"""Where the host's KVM emulates ring 0 a kernel is far too slow to boot; its first lines it says."""

import os
import pathlib
import pwd
import unittest

from tests import junit
from tests.e2e import harness

_SECONDS = 40


def guest_folder():
    """Of the rig that was prepared last, or None."""
    cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache"))
    found = sorted(pathlib.Path(cache, "twinroot/rig").glob("*/guest"),
                   key=lambda folder: folder.stat().st_mtime)
    return found[-1] if found else None


class FirstLines(harness.E2eTest):

    def test_LinuxSaysWhoItIsAndWhatMemoryItFound(self):
        guest = guest_folder()
        if guest is None:
            self.skipTest("no kernel: the rig was not prepared (./quickstart rig)")
        hvd = self.start_with_kvm()
        hvd.create("os", "--image", guest / "vmlinux", "--initrd", guest / "initrd", "--cmdline",
                   "earlyprintk=ttyS0 console=ttyS0", memory="256MiB")
        hvd.do("vm", "start", "os")
        harness.until(lambda: "BIOS-provided" in hvd.console("os"),
                      "the first lines", _SECONDS)
        console = hvd.console("os")
        self.assertIn("Linux version", console)
        self.assertIn("Command line: earlyprintk=ttyS0 console=ttyS0", console)
        self.assertEqual(hvd.vm("os")["state"], "RUNNING")
        hvd.do("vm", "delete", "os", "--yes")
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
