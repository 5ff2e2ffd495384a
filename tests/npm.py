"""The npm packages that `./quickstart install-packages` has linked into the workspace."""

import shutil

from tests import source_tree

_FOLDER = source_tree.root() / ".quickstart"


def modules(test):
    """The folder node_modules. Skips the test if the packages could not be had when they were
    installed, with the reason; fails it if nobody has tried."""
    excuse = _FOLDER / "npm-unavailable"
    if excuse.exists():
        test.skipTest(excuse.read_text().strip())
    modules = _FOLDER / "npm/node_modules"
    if not modules.is_dir():
        test.fail("the npm packages are not installed; run ./quickstart install-packages")
    return modules


def node(test):
    """(the program, the environment variables it needs); skips or fails as `modules` does."""
    packages = modules(test)
    program = shutil.which("node", path="/usr/local/bin:/usr/bin:/bin")
    if program is None:
        test.fail("there is no node; run ./quickstart install-packages")
    return program, {"NODE_PATH": str(packages)}


def buf(test):
    """The program buf; skips or fails as `modules` does."""
    return modules(test) / "@bufbuild/buf-linux-x64/bin/buf"
