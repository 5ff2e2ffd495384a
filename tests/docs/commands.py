"""The shell blocks of a document, and the script that runs those marked so.

A ```sh block follows a line that says what becomes of it: <!-- run -->, <!-- run on a bare machine -->
or <!-- not run: the reason -->. All run blocks of a document are one script, in order; on a bare
machine (tests/install/bare.sh) those of both kinds are.

  commands.py DOCUMENT    prints the script for a bare machine
"""

import pathlib
import re
import sys

_RUN = "<!-- run -->"
_BARE = "<!-- run on a bare machine -->"
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


class BadDocument(Exception):
    """A block without a mark, a mark without a block, or a block without an end."""


def blocks(path, text, bare=False):
    """[(line number, commands)] of the blocks to run, here or on a bare machine. Raises BadDocument."""
    wanted = (_RUN, _BARE) if bare else (_RUN,)
    found, mark, fence, start, body = [], None, None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if fence is None and line.startswith("```"):
            fence, start, body = line, number, []
            if fence == "```sh" and mark is None:
                raise BadDocument(f"{path}:{number}: a sh block without a mark")
            if fence != "```sh" and mark is not None:
                raise BadDocument(f"{path}:{number}: only sh blocks are marked")
        elif fence is None:
            if mark is not None:
                raise BadDocument(f"{path}:{number}: a mark without a block")
            if line in (_RUN, _BARE) or _NOT_RUN.fullmatch(line):
                mark = line
            elif line.startswith(("<!-- run", "<!-- not run")):
                raise BadDocument(f"{path}:{number}: not a mark: {line}")
        elif line == "```":
            if fence == "```sh" and mark in wanted:
                found.append((start, "\n".join(body)))
            fence, mark = None, None
        else:
            body.append(line)
    if fence is not None or mark is not None:
        raise BadDocument(f"{path}: the last block does not end")
    return found


def script(path, text, bare=False):
    """One bash script of all blocks to run; it stops at the first command that fails. "" if none."""
    found = blocks(path, text, bare)
    if not found:
        return ""
    lines = ["set -euo pipefail"]
    for start, body in found:
        lines += [f"printf '%s\\n' '== {path}:{start}'", body]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    document = sys.argv[1]
    sys.stdout.write(script(document, pathlib.Path(document).read_text("utf-8"), bare=True))
