"""tools/install_npm_packages.sh: once, from the lock file, and a sentence where there is no network."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from tests import junit, source_tree

_COMMANDS = ("bash cat cp cut dirname env getent grep ln mkdir mktemp mv rm sha256sum").split()
# What stands for npm: notes that it was called, and does what its case says.
_NPM = """#!/bin/bash
echo "$*" >>"$HOME/calls"
case "$(cat "$HOME/mood")" in
  well) while [[ $1 != --prefix ]]; do shift; done; mkdir "$2/node_modules" ;;
  offline) echo 'npm error code EAI_AGAIN'; exit 1 ;;
  tampered) echo 'npm error code EINTEGRITY'; exit 1 ;;
esac
"""


class NpmPackages(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        root = source_tree.root()
        shutil.copytree(root / "third_party/npm", self.top / "third_party/npm")
        for name in ("tools", "bin", "home"):
            (self.top / name).mkdir()
        shutil.copy(root / "tools/install_npm_packages.sh", self.top / "tools")
        # No Debian package can be had here.
        self.program("tools/install_packages.sh", "#!/bin/bash\nexit 1\n")
        for command in _COMMANDS:
            (self.top / "bin" / command).symlink_to(shutil.which(command))
        self.program("bin/npm", _NPM)
        self.program("bin/node", "#!/bin/bash\n")
        self.excuse = self.top / ".quickstart/npm-unavailable"
        self.modules = self.top / ".quickstart/npm/node_modules"

    def program(self, path, text):
        (self.top / path).write_text(text)
        (self.top / path).chmod(0o755)

    def install(self, mood):
        (self.top / "home/mood").write_text(mood)
        done = subprocess.run([self.top / "tools/install_npm_packages.sh"],
                              env={"PATH": str(self.top / "bin"), "HOME": str(self.top / "home")},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def cached(self):
        return sorted(os.listdir(self.top / "home/.cache/twinroot/npm"))

    def test_TheSecondTimeItSaysAndFetchesNothing(self):
        self.assertEqual(self.install("well")[0], 0)
        self.assertTrue(self.modules.is_dir())
        [call] = (self.top / "home/calls").read_text().splitlines()
        self.assertRegex(call, r"^ci .*--ignore-scripts")
        self.assertEqual(self.install("offline"), (0, ""))
        self.assertTrue(self.modules.is_dir())
        self.assertEqual(len(self.cached()), 1)

    def test_AChangedLockIsInstalledAnew(self):
        self.install("well")
        first = self.modules.resolve()
        with open(self.top / "third_party/npm/package-lock.json", "a") as lock:
            lock.write("\n")
        self.assertEqual(self.install("well")[0], 0)
        self.assertNotEqual(self.modules.resolve(), first)

    def test_WithoutANetworkItLeavesTheReason(self):
        code, said = self.install("offline")
        self.assertEqual(code, 0, said)
        self.assertIn("will be skipped", said)
        self.assertIn("the npm registry cannot be reached", self.excuse.read_text())
        self.assertFalse(self.modules.exists())
        self.assertEqual(self.cached(), [])
        self.assertEqual(self.install("well")[0], 0)
        self.assertFalse(self.excuse.exists())
        self.assertTrue(self.modules.is_dir())

    def test_WithoutNodeItLeavesTheReason(self):
        (self.top / "bin/node").unlink()
        code, said = self.install("well")
        self.assertEqual(code, 0, said)
        self.assertIn("nodejs could not be installed", self.excuse.read_text())

    def test_AnyOtherFailureIsOne(self):
        code, said = self.install("tampered")
        self.assertEqual(code, 1, said)
        self.assertIn("EINTEGRITY", said)
        self.assertFalse(self.excuse.exists())
        self.assertFalse(self.modules.exists())
        self.assertEqual(self.cached(), [])

    def test_TheLockNamesHashesAndNoPlace(self):
        lock = json.loads((self.top / "third_party/npm/package-lock.json").read_text())
        packages = {name: package for name, package in lock["packages"].items() if name}
        self.assertGreater(len(packages), 10)
        for name, package in packages.items():
            self.assertTrue(package["integrity"].startswith("sha512-"), name)
            self.assertNotIn("resolved", package, name)


if __name__ == "__main__":
    junit.main()
