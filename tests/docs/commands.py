"""The shell blocks of a document, and the script that runs those marked so.

A ```sh block follows a line that says what becomes of it: <!-- run --> or
<!-- not run: the reason -->. All run blocks of a document are one script, in order.
"""

import re

_RUN = "<!-- run -->"
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


class BadDocument(Exception):
    """A block without a mark, a mark without a block, or a block without an end."""


def blocks(path, text):
    """[(line number, commands)] of the blocks to run. Raises BadDocument."""
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
            if line == _RUN or _NOT_RUN.fullmatch(line):
                mark = line
            elif line.startswith(("<!-- run", "<!-- not run")):
                raise BadDocument(f"{path}:{number}: not a mark: {line}")
        elif line == "```":
            if fence == "```sh" and mark == _RUN:
                found.append((start, "\n".join(body)))
            fence, mark = None, None
        else:
            body.append(line)
    if fence is not None or mark is not None:
        raise BadDocument(f"{path}: the last block does not end")
    return found


def script(path, text):
    """One bash script of all run blocks; it stops at the first command that fails. "" if none."""
    found = blocks(path, text)
    if not found:
        return ""
    lines = ["set -euo pipefail"]
    for start, body in found:
        lines += [f"printf '%s\\n' '== {path}:{start}'", body]
    return "\n".join(lines) + "\n"
