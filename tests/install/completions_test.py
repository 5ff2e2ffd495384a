"""The TAB key completes hvctl in each shell, with the files where the package puts them."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from tests import junit, source_tree
from tests.install import terminal
from tools import package

_BUILT = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"])


class Completions(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        package.stage(source_tree.root(), _BUILT, cls.root)
        cls.environment = dict(os.environ, TERM="dumb", INPUTRC="/dev/null", HOME=folder.name,
                               ZDOTDIR=folder.name, HVCTL_ENDPOINT=f"unix:{folder.name}/none.sock",
                               PATH=f"{cls.root}/usr/bin:{os.environ['PATH']}")

    def need(self, shell):
        if not shutil.which(shell):
            self.skipTest(f"{shell} is not installed")

    def test_BashCompletesAVerbAtTheTabKey(self):
        self.need("bash")
        script = self.root / "usr/share/bash-completion/completions/hvctl"
        with terminal.Terminal(["bash", "--norc", "--noprofile", "-i"],
                               dict(self.environment, PS1="ready> ")) as bash:
            self.assertTrue(bash.sees("ready> "), bash.shown)
            bash.type(f"source {script} && echo lo''aded\n")
            self.assertTrue(bash.sees("loaded"), bash.shown)
            bash.type("hvctl vm cre\t")
            self.assertTrue(bash.sees("hvctl vm create "), bash.shown)
            bash.type("--mem\t")
            self.assertTrue(bash.sees("--memory"), bash.shown)

    def test_ZshCompletesAVerbAtTheTabKey(self):
        self.need("zsh")
        folder = self.root / "usr/share/zsh/vendor-completions"
        with terminal.Terminal(["zsh", "-f", "-i"], dict(self.environment, PS1="ready> ")) as zsh:
            self.assertTrue(zsh.sees("ready> "), zsh.shown)
            # As Debian's zsh has it: the folder is in fpath, and compinit finds it by its name.
            zsh.type(f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D;"
                     " echo lo''aded\n")
            self.assertTrue(zsh.sees("loaded"), zsh.shown)
            zsh.type("hvctl vm cre\t")
            self.assertTrue(zsh.sees("hvctl vm create"), zsh.shown)

    def test_FishCompletesAVerb(self):
        self.need("fish")
        script = self.root / "usr/share/fish/vendor_completions.d/hvctl.fish"
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C 'hvctl vm cre'"],
            env=self.environment, capture_output=True, text=True, check=False)
        self.assertRegex(done.stdout, r"(?m)^create\t", done.stderr)


if __name__ == "__main__":
    junit.main()
