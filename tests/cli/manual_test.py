"""The manual pages are man(7) without a fault, and know every noun, verb, option and key."""

import os
import pathlib
import re
import subprocess
import unittest

from tests import junit

_HVCTL = os.path.abspath("cli/hvctl")
_PAGES = sorted([*pathlib.Path("cli").glob("*.1"), *pathlib.Path("deploy/man").glob("*.[58]")])


def run(*command, text=""):
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def plain(page):
    """The page as a reader sees it, without bold and lines."""
    done = run("mandoc", "-T", "utf8", str(page))
    return " ".join(re.sub(r".\x08", "", done.stdout).replace("\u2010\n", "").split())


def help_of(program, *words):
    return run(program, *words, "--help").stdout


def subcommands(text):
    _, found, rest = text.partition("\nSubcommands:\n")
    return re.findall(r"^  ([a-z-]+)\s", rest.split("\n\n")[0], re.MULTILINE) if found else []


def options(text):
    """Every name of every option, such as -o and --output."""
    found = []
    for names in re.findall(r"^  (-\S+)", text, re.MULTILINE):
        found += names.split(",")
    return found


class Manual(unittest.TestCase):

    maxDiff = None

    def test_TheLinterFindsNothing(self):
        self.assertGreater(len(_PAGES), 7)
        for page in _PAGES:
            with self.subTest(page.name):
                done = run("mandoc", "-T", "lint", str(page))
                self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_TheLinterFindsSomethingInABadPage(self):
        self.assertIn("WARNING", run("mandoc", "-T", "lint", text=".TH X 1\n.XX\n").stdout)

    def test_EveryNounHasItsPageAndEveryVerbIsInOne(self):
        top = plain("cli/hvctl.1")
        pages = {"cli/hvctl.1"}
        for noun in subcommands(help_of(_HVCTL)):
            self.assertRegex(top, rf"\b{noun}\b")
            for verb in subcommands(help_of(_HVCTL, noun)):
                pages.add(f"cli/hvctl-{noun}.1")
                self.assertIn(f"hvctl {noun} {verb}", plain(f"cli/hvctl-{noun}.1"))
        self.assertEqual(pages, {str(page) for page in _PAGES if page.suffix == ".1"})

    def test_EveryOptionIsInItsPage(self):
        top = plain("cli/hvctl.1")
        checked = 0
        for noun in subcommands(help_of(_HVCTL)):
            verbs = subcommands(help_of(_HVCTL, noun))
            for words in [(noun, verb) for verb in verbs] or [(noun,)]:
                page = plain(f"cli/hvctl-{noun}.1") if verbs else top
                own, _, common = help_of(_HVCTL, *words).partition("Common options:")
                for option in options(own):
                    self.assertRegex(page, rf"(?<![\w-]){option}(?![\w-])", words)
                    checked += 1
                for option in options(common):
                    self.assertRegex(top, rf"(?<![\w-]){option}(?![\w-])", words)
        self.assertGreater(checked, 80)

    def test_EveryOptionOfHvdIsInHvd8(self):
        page = plain("deploy/man/hvd.8")
        names = options(help_of("daemon/hvd"))
        self.assertIn("--socket", names)
        for name in names:
            self.assertRegex(page, rf"(?<![\w-]){name}(?![\w-])")

    def test_EveryKeyIsInHvdYaml5(self):
        page = plain("deploy/man/hvd.yaml.5")
        keys = re.findall(r"(?m)^#?[ -]*([a-z_]+):(?:$| )", pathlib.Path("deploy/hvd.yaml").read_text())
        self.assertGreater(len(set(keys)), 20)
        for key in set(keys):
            self.assertRegex(page, rf"\b{key}\b")

    def test_ManPrintsThePageThatIsInstalled(self):
        self.assertEqual(run(_HVCTL, "man").stdout, pathlib.Path("cli/hvctl.1").read_text())
        self.assertEqual(run(_HVCTL, "man", "vm").stdout, pathlib.Path("cli/hvctl-vm.1").read_text())


if __name__ == "__main__":
    junit.main()
