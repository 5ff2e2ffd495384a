"""Pieces of real programs that a document shows, and whether it shows them as they are.

In a program a line `// [name]`, at any indentation, begins a piece and `// [end]` ends it. In a
document a line `<!-- path [name] -->` stands before the code block that shows the piece, less its
common indentation. `python3 tests/docs/extracts.py DOCUMENT`, in the workspace, writes the pieces
into the document as they are now.
"""

import pathlib
import re
import sys
import textwrap

_MARK = re.compile(r"^\s*// \[([a-z]+)\]$")
_SHOWN = re.compile(r"^<!-- (\S+) \[([a-z]+)\] -->$")


def pieces(program):
    """{name: text} of a program. Raises ValueError for a piece that does not end, or comes twice."""
    found, name, body = {}, None, []
    for line in program.splitlines():
        mark = _MARK.match(line)
        if mark is None:
            body.append(line)
        elif (mark[1] == "end") == (name is None):
            raise ValueError(f"[{mark[1]}] is out of place")
        elif mark[1] != "end":
            if mark[1] in found:
                raise ValueError(f"[{mark[1]}] comes twice")
            name, body = mark[1], []
        else:
            found[name], name = textwrap.dedent("\n".join(body) + "\n"), None
    if name is not None:
        raise ValueError(f"[{name}] does not end")
    return found


def _blocks(document):
    """(the line before it, its text) of each code block."""
    before, fence, body = "", False, []
    for line in document.splitlines():
        if line.startswith("```"):
            if fence:
                yield before, "\n".join(body) + "\n"
            fence, body = not fence, []
        elif fence:
            body.append(line)
        else:
            before = line


def blocks_after(path, mark):
    """The code blocks of a document that follow this line."""
    return [text for before, text in _blocks(pathlib.Path(path).read_text()) if before == mark]


def shown(path):
    """[(path of the program, name of the piece)] that a document shows."""
    marks = [_SHOWN.match(before) for before, _ in _blocks(pathlib.Path(path).read_text())]
    return [mark.groups() for mark in marks if mark]


def mistakes(path, root):
    """What the document shows otherwise than it is, or of which no program is known."""
    wrong = []
    for before, text in _blocks(pathlib.Path(path).read_text()):
        mark = _SHOWN.match(before)
        if mark is None:
            continue
        program, name = mark.groups()
        found = pieces(pathlib.Path(root, program).read_text())
        if found.get(name) != text:
            wrong.append(f"{program} [{name}] is shown as\n{text}and is\n{found.get(name)}")
    return wrong


def renewed(document, root):
    """The document with every piece as it is now. Raises KeyError for one that is not there."""
    lines, skipping, before = [], False, ""
    for line in document.splitlines():
        mark = _SHOWN.match(before)
        if skipping:
            skipping = line != "```"
        elif mark and line.startswith("```"):
            found = pieces(pathlib.Path(root, mark[1]).read_text())
            lines += [line, found[mark[2]] + "```"]
            skipping = True
        else:
            lines.append(line)
        before = line
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.write_text(renewed(target.read_text(), "."))
