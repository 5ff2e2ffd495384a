"""The package has every file that belongs to it, and comes, is renewed and goes without a trace."""

import gzip
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from tests import junit, source_tree
from tools import package

_BUILT = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"])
_CONFIGURATION = "etc/twinroot/hvd.yaml"
# The database of dpkg itself, and the users and groups that stay.
_OTHERS = re.compile(r"var/lib/dpkg(/|$)|etc/(passwd|group|shadow|gshadow)-?$|etc/\.pwd\.lock$")


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)


def tree(root):
    """The paths of files and links below root, without what is not the package's."""
    found = {str(path.relative_to(root)) for path in root.rglob("*")
             if path.is_symlink() or not path.is_dir()}
    return {path for path in found if not _OTHERS.match(path)}


class Manifest(unittest.TestCase):

    def test_EveryFileOfDeployHasALine(self):
        top = source_tree.root()
        taken = package.places((top / "deploy/install/manifest.txt").read_text(), top, _BUILT)
        files = {str(path.relative_to(top)) for path in (top / "deploy").rglob("*")
                 if path.is_file() and "__pycache__" not in path.parts}
        self.assertGreater(len(files), 15)
        self.assertEqual(files - set(taken), set())

    def test_EverythingThatIsBuiltHasALine(self):
        top = source_tree.root()
        taken = package.places((top / "deploy/install/manifest.txt").read_text(), top, _BUILT)
        built = {name for name in taken if name.startswith("bazel-bin/")}
        pages = {f"bazel-bin/cli/{page.name}" for page in (_BUILT / "cli").glob("*.1")}
        self.assertLess(pages, built)
        self.assertEqual(len(built - pages), 2 + 2 + 3 + 1)  # programs, hvd's pages, completions

    def test_BadLinesAreRefused(self):
        for line in ["one", "a b 9999", "a /etc/", "a ../b", "a b c d"]:
            with self.subTest(line), self.assertRaises(package.BadManifest):
                package.lines(line)

    def test_AFileThatIsNotThereIsRefused(self):
        for source in ["no/such/file", "bazel-bin/nothing"]:
            with self.subTest(source), self.assertRaisesRegex(package.BadManifest, source):
                package.places(f"{source} usr/bin/", source_tree.root(), _BUILT)


class Package(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = pathlib.Path(folder.name)
        cls.deb = pathlib.Path(package.make(source_tree.root(), _BUILT, cls.work))

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(dir=self.work))

    def quickstart(self, *arguments):
        """Runs ./quickstart for the root of this test; returns its exit code and what it says."""
        done = run(source_tree.root() / "quickstart", *arguments, "--destdir", self.root)
        return done.returncode, done.stdout

    def install(self, deb=None):
        code, said = self.quickstart("install", "--package", deb or self.deb)
        self.assertEqual(code, 0, said)
        return said

    def changed(self, version, change):
        """The package again, as another version, after change(folder of its files)."""
        folder = self.work / version
        self.assertEqual(run("dpkg-deb", "-R", self.deb, folder).returncode, 0)
        control = folder / "DEBIAN/control"
        control.write_text(re.sub("(?m)^Version: .*", f"Version: {version}", control.read_text()))
        change(folder)
        made = run("dpkg-deb", "--root-owner-group", "-Znone", "-b", folder, self.work)
        self.assertEqual(made.returncode, 0, made.stdout)
        [deb] = self.work.glob(f"twinroot_{version}_*.deb")
        return deb

    def test_ItHasEveryFileOfTheManifestAndNoOther(self):
        top = source_tree.root()
        taken = package.places((top / "deploy/install/manifest.txt").read_text(), top, _BUILT)
        listed = run("dpkg-deb", "-c", self.deb).stdout.splitlines()
        files = {}
        for line in listed:
            mode, owner, _, _, _, path = line.split(None, 5)
            self.assertEqual(owner, "root/root", line)
            if mode.startswith("-"):
                files[path.removeprefix("./")] = mode
            else:
                self.assertEqual(mode, "drwxr-xr-x", line)
        self.assertEqual(set(files), {to for _, to, _ in taken.values() if to})
        for path, mode in files.items():
            program = path.startswith("usr/bin/")
            self.assertEqual(mode, "-rwxr-xr-x" if program else "-rw-r--r--", path)

    def test_ItDependsOnTheLibrariesItNeeds(self):
        depends = run("dpkg-deb", "-f", self.deb, "Depends").stdout
        for name in ["libc6", "libgrpc++", "libprotobuf", "libsqlite3-0", "libsystemd0", "systemd"]:
            self.assertIn(name, depends)
        self.assertNotIn("@", run("dpkg-deb", "-f", self.deb).stdout)

    def test_ManualPagesAreCompressedAndWithoutAFault(self):
        self.install()
        pages = sorted((self.root / "usr/share/man").rglob("*.gz"))
        self.assertGreater(len(pages), 7)
        for page in pages:
            with self.subTest(page.name):
                plain = self.work / page.stem
                plain.write_bytes(gzip.decompress(page.read_bytes()))
                done = run("mandoc", "-T", "lint", plain)
                self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_WhatIsInstalledRuns(self):
        self.install()
        hvd = self.root / "usr/bin/hvd"
        done = run(hvd, "--check-config", "--config", self.root / _CONFIGURATION)
        self.assertEqual((done.returncode, done.stdout), (0, "ok\n"))
        version = run("dpkg-deb", "-f", self.deb, "Version").stdout.strip()
        self.assertEqual(run(hvd, "--version").stdout, f"hvd {version}\n")
        self.assertIn(version, run(self.root / "usr/bin/hvctl", "version").stdout)

    def test_ItComesAndGoesWithoutATrace(self):
        (self.root / "etc").mkdir()
        (self.root / "etc/hostname").write_text("here\n")
        before = tree(self.root)
        self.assertIn("systemctl enable --now hvd", self.install())
        self.assertLess(before | {"usr/bin/hvd", _CONFIGURATION}, tree(self.root))
        state = self.root / "var/lib/twinroot"
        state.mkdir(parents=True, exist_ok=True)
        (state / "events.sqlite").write_text("events")

        code, said = self.quickstart("uninstall")
        self.assertEqual(code, 0, said)
        self.assertIn("are kept", said)
        kept = {_CONFIGURATION, "var/lib/twinroot/events.sqlite"}
        self.assertEqual(tree(self.root), before | kept)

        self.assertEqual(self.quickstart("uninstall", "--purge")[0], 0)
        self.assertEqual(tree(self.root), before)
        self.assertFalse(state.exists() or (self.root / "etc/twinroot").exists())
        self.assertEqual(self.quickstart("uninstall"),
                         (0, f"twinroot is not installed in {self.root}\n"))

    def test_ARepeatedInstallKeepsAConfigurationThatWasChanged(self):
        self.install()
        files = tree(self.root)
        (self.root / _CONFIGURATION).write_text("log_level: debug\n")
        self.install()
        self.assertEqual((self.root / _CONFIGURATION).read_text(), "log_level: debug\n")
        self.assertEqual(tree(self.root), files)

    def test_AnUpgradeTakesAwayWhatIsNoMoreAndKeepsTheConfiguration(self):
        def change(folder):
            (folder / "usr/share/man/man8/hvd.8.gz").unlink()
            (folder / _CONFIGURATION).write_text("log_level: warning\n")

        self.install()
        (self.root / _CONFIGURATION).write_text("log_level: debug\n")
        said = self.install(self.changed("0.9.1", change))
        self.assertNotIn("next", said)
        self.assertFalse((self.root / "usr/share/man/man8/hvd.8.gz").exists())
        self.assertEqual((self.root / _CONFIGURATION).read_text(), "log_level: debug\n")
        self.assertEqual((self.root / (_CONFIGURATION + ".dpkg-dist")).read_text(),
                         "log_level: warning\n")

    def test_AnInstallThatFailsLeavesWhatWasThere(self):
        def change(folder):
            (folder / "usr/bin/hvd").write_text("another\n")
            (folder / "DEBIAN/preinst").write_text("#!/bin/sh\necho no room; exit 1\n")
            (folder / "DEBIAN/preinst").chmod(0o755)

        self.install()
        files = tree(self.root)
        code, said = self.quickstart("install", "--package", self.changed("0.9.2", change))
        self.assertNotEqual(code, 0)
        self.assertIn("no room", said)
        self.assertEqual(tree(self.root), files)
        self.assertEqual(run(self.root / "usr/bin/hvd", "--version").returncode, 0)

    @unittest.skipUnless(shutil.which("systemctl"), "systemctl is missing; install systemd")
    def test_AUnitThatWasEnabledIsNotAfterwards(self):
        self.install()
        link = self.root / "etc/systemd/system/multi-user.target.wants/hvd.service"
        self.assertEqual(run("systemctl", f"--root={self.root}", "enable", "hvd").returncode, 0)
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.quickstart("uninstall")[0], 0)
        self.assertFalse(link.is_symlink())

    def test_WhatCannotBeDoneIsSaid(self):
        code, said = self.quickstart("install", "--package", "no.deb")
        self.assertEqual((code, said), (1, "quickstart: there is no package no.deb\n"))
        for wrong in (["install", "--purge"], ["uninstall", "--package", "x"], ["package", "--x"]):
            with self.subTest(wrong):
                done = run(source_tree.root() / "quickstart", *wrong)
                self.assertEqual(done.returncode, 2)
                self.assertIn("usage: ./quickstart package", done.stdout)


if __name__ == "__main__":
    junit.main()
