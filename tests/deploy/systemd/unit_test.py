"""The units are ones that systemd accepts without a complaint, with little exposed, and their names
agree with each other."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from tests import junit

_SOURCE = pathlib.Path("deploy/systemd")
_DROP_IN = "hvd.service.d/50-newer-systemd.conf"
# systemd-analyze's figure, times ten.
_MOST_EXPOSED = 20


def text_of(name):
    return (_SOURCE / name).read_text()


def run(*command):
    """(exit code, output with errors)"""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def setting(unit, key):
    return re.findall(rf"(?m)^{key}=(.*)$", text_of(unit))


class UnitTest(unittest.TestCase):

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ["TEST_TMPDIR"]))
        self.addCleanup(shutil.rmtree, self.folder)


@unittest.skipUnless(shutil.which("systemd-analyze"),
                     "systemd-analyze is missing; install the Debian package systemd")
class Units(UnitTest):

    def setUp(self):
        super().setUp()
        self.names = sorted(path.name for path in _SOURCE.iterdir()
                            if path.suffix in (".service", ".socket", ".slice"))
        for name in self.names:
            (self.folder / name).write_text(text_of(name))
        # The real binary is not installed.
        self.change("hvd.service", "ExecStart=/usr/bin/hvd\n", "ExecStart=/usr/bin/true\n")

    def change(self, name, old, new):
        text = (self.folder / name).read_text()
        self.assertEqual(text.count(old), 1, name)
        (self.folder / name).write_text(text.replace(old, new))

    def add_drop_in(self):
        (self.folder / "hvd.service.d").mkdir()
        (self.folder / _DROP_IN).write_text(text_of(_DROP_IN))

    def complaints(self):
        """What systemd-analyze says about our units; others of the host are not ours to judge, and
        neither is whether our manual is installed."""
        _, said = run("systemd-analyze", "verify", *(str(self.folder / name) for name in self.names))
        return [line for line in said.splitlines()
                if re.search("hvd|twinroot", line) and "Command 'man " not in line]

    def exposure(self, *options):
        return run("systemd-analyze", "security", "--offline=true", *options,
                   str(self.folder / "hvd.service"))

    def test_TheseAreThere(self):
        self.assertEqual(self.names, ["hvd-operator.socket", "hvd-viewer.socket", "hvd.service",
                                      "hvd.socket", "twinroot.slice"])

    def test_SystemdAcceptsThem(self):
        self.assertEqual(self.complaints(), [])

    def test_SystemdWouldReportAMistake(self):
        for name, key in [("hvd.service", "RestartSec="), ("hvd-viewer.socket", "Backlog="),
                          ("twinroot.slice", "IOAccounting=")]:
            self.change(name, f"\n{key}", f"\nNo{key}")
        for name in ["hvd.service", "hvd-viewer.socket", "twinroot.slice"]:
            self.assertTrue([line for line in self.complaints() if name in line], name)

    def test_SystemdWouldReportAMissingBinary(self):
        self.change("hvd.service", "/usr/bin/true", "/nowhere/hvd")
        self.assertTrue(self.complaints())

    def test_AnOlderSystemdIgnoresTheDropInAndNothingElse(self):
        self.add_drop_in()
        for line in self.complaints():
            self.assertIn(_DROP_IN, line)
            self.assertRegex(line, "ignoring")

    def test_LittleIsExposed(self):
        code, said = self.exposure(f"--threshold={_MOST_EXPOSED}")
        self.assertEqual(code, 0, said)

    def test_ExposureWouldBeSeen(self):
        self.change("hvd.service", "User=twinroot\n", "")
        self.change("hvd.service", "CapabilityBoundingSet=\n", "")
        code, said = self.exposure(f"--threshold={_MOST_EXPOSED}")
        self.assertNotEqual(code, 0, said)

    def test_TheCommentSaysTheExposureAsItIs(self):
        code, said = run("systemd-analyze", "--version")
        if not said.startswith("systemd 252"):
            self.skipTest("the comment is about systemd 252, and this is " + said.split("\n")[0])
        level = re.search(r"Overall exposure level for hvd.service: (\S+)", self.exposure()[1])[1]
        self.assertIn(f"gives it {level} on systemd 252", text_of("hvd.service"))

    def test_EveryParagraphOfSettingsHasItsReason(self):
        for name in [*self.names, _DROP_IN]:
            for section in re.split(r"(?m)^\[(?:Service|Socket|Slice)\]$", text_of(name))[1:]:
                settings = section.split("[Install]")[0]
                for paragraph in settings.strip().split("\n\n"):
                    self.assertRegex(paragraph, r"(?m)^#", name)


class Names(UnitTest):
    """Of sockets, users, groups and folders: one file makes them, others use them."""

    def test_EverySocketIsNamedAfterItsRole(self):
        for unit, path, role in [("hvd.socket", "hvd", "admin"),
                                 ("hvd-operator.socket", "operator", "operator"),
                                 ("hvd-viewer.socket", "viewer", "viewer")]:
            self.assertEqual(setting(unit, "ListenStream"), [f"/run/twinroot/{path}.sock"])
            self.assertEqual(setting(unit, "FileDescriptorName"), [role])
            self.assertEqual(setting(unit, "SocketGroup"), [f"twinroot-{role}"])
            self.assertEqual(setting(unit, "SocketMode"), ["0660"])

    @unittest.skipUnless(shutil.which("systemd-sysusers"),
                         "systemd-sysusers is missing; install the Debian package systemd")
    def test_UsersAndGroupsAreMade(self):
        path = self.folder / "twinroot.conf"
        path.write_text(text_of("sysusers.d/twinroot.conf"))
        (self.folder / "root/etc").mkdir(parents=True)
        code, said = run("systemd-sysusers", f"--root={self.folder}/root", str(path))
        self.assertEqual(code, 0, said)
        made = (self.folder / "root/etc/group").read_text()
        groups = {line.split(":")[0]: line.split(":")[3] for line in made.splitlines()}
        self.assertEqual(groups.get("kvm"), "twinroot", made)
        used = {group for unit in _SOURCE.glob("*.socket")
                for group in setting(unit.name, "SocketGroup")}
        for group in [*used, *setting("hvd.service", "Group"),
                      *setting("hvd.service", "SupplementaryGroups")]:
            self.assertIn(group, groups)
        users = (self.folder / "root/etc/passwd").read_text()
        self.assertRegex(users, rf"(?m)^{setting('hvd.service', 'User')[0]}:")
        self.assertRegex(users, r"(?m)^twinroot:.*:/usr/sbin/nologin$")

    @unittest.skipUnless(shutil.which("systemd-tmpfiles"),
                         "systemd-tmpfiles is missing; install the Debian package systemd")
    def test_TheFolderOfTheSocketsIsMade(self):
        path = self.folder / "twinroot.conf"
        # Only root may give files away.
        text = text_of("tmpfiles.d/twinroot.conf").replace(" root root ", " - - ")
        path.write_text(re.sub("(?m)^z .*$", "", text))
        (self.folder / "root").mkdir()
        code, said = run("systemd-tmpfiles", "--create", f"--root={self.folder}/root", str(path))
        self.assertEqual(code, 0, said)
        made = self.folder / "root/run/twinroot"
        self.assertEqual(made.stat().st_mode & 0o777, 0o755)


if __name__ == "__main__":
    junit.main()
