"""The sources of the workspace, for tests that read them.

They see the real tree, not a list in a BUILD file, so that a new file cannot be forgotten; such
tests carry the tags "local" and "external" and are never cached.
"""

import os
import pathlib

_GENERATED = ("bazel-", ".", "__pycache__")  # also .git, .quickstart


def root():
    """The workspace. Raises if this is not it, so that no test passes on an empty tree."""
    here = pathlib.Path(os.environ["TEST_SRCDIR"], os.environ["TEST_WORKSPACE"], "README.md")
    folder = here.resolve().parent
    if not (folder / "mmu/vm/guest_address_space.h").is_file():
        raise RuntimeError(f"{folder} is not the workspace")
    return folder


def files(*suffixes, under=""):
    """(path relative to the workspace, text) of every file with a suffix; third_party is left out.

    Raises if there is none.
    """
    top = root()
    found = []
    for folder, folders, names in os.walk(top / under):
        relative = pathlib.Path(folder).relative_to(top)
        folders[:] = sorted(
            name for name in folders
            if not name.startswith(_GENERATED) and str(relative / name) != "third_party")
        for name in sorted(names):
            if name.endswith(suffixes):
                found.append((str(relative / name), (top / relative / name).read_text("utf-8")))
    if not found:
        raise RuntimeError(f"no {suffixes} under {top / under}")
    return found
