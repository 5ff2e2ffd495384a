"""Writes hvd(8) from the text of `hvd --help`, or hvd.yaml(5) from the configuration with every key.

  pages.py hvd < HELP        pages.py hvd.yaml < deploy/hvd.yaml

Both texts are given on the standard input; the page, in man(7), goes to the standard output.
"""

import re
import sys
import textwrap

_DATE = "2026-11-22"
_OPTION = re.compile(r"^  (?P<names>-\S+)(?: (?P<value>\S+))?(?:\s{2,}(?P<text>.*))?$")
_KEY = re.compile(r"^#?(?P<indent>(?:  )*)(?:- )?(?P<key>[a-z_]+):(?: +(?P<value>.*))?$")

_HVD = r""".TH HVD 8 "{date}" "Twinroot" "System Administration"
.SH NAME
hvd \- run confidential VMs and own their memory
.SH SYNOPSIS
\fBhvd\fR [\fIoptions\fR]
.SH DESCRIPTION
\fBhvd\fR runs confidential virtual machines and keeps the books of their memory:
which pages are private to a guest and which it shares with the host.
It is controlled over gRPC, by \fBhvctl\fR(1) and by programs, on a unix socket
and, if \fBhvd.yaml\fR(5) says so, over TCP with mutual TLS.
.PP
It needs no configuration.
Under systemd it is \fBhvd.service\fR.
.SH OPTIONS
{options}.SH SIGNALS
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
Drain and end: streams end with a bookmark, guests stop, their memory is given
back.
.TP
\fBSIGHUP\fR
Read the configuration again.
A file with a mistake changes nothing; what needs a restart is logged.
.SH EXIT STATUS
.TP
\fB0\fR
It was told to end, and has drained.
.TP
\fB1\fR
It could not serve, or failed.
.TP
\fB2\fR
An option or the configuration file cannot be taken.
.SH FILES
.TP
\fB/etc/twinroot/hvd.yaml\fR
The configuration, if there is one: see \fBhvd.yaml\fR(5).
.TP
\fB/run/twinroot/hvd.sock\fR
Where it serves.
.TP
\fB/var/lib/twinroot\fR
The journal of events and the audit log.
.SH SEE ALSO
\fBhvctl\fR(1), \fBhvd.yaml\fR(5), \fBsystemctl\fR(1)
"""

_YAML = r""".TH HVD.YAML 5 "{date}" "Twinroot" "File Formats"
.SH NAME
hvd.yaml \- configuration of hvd
.SH SYNOPSIS
\fB/etc/twinroot/hvd.yaml\fR
.br
\fB$XDG_CONFIG_HOME/twinroot/hvd.yaml\fR
.SH DESCRIPTION
{purpose}.SH KEYS
{keys}.SH EXAMPLE
.nf
{example}.fi
.SH SEE ALSO
\fBhvd\fR(8), \fBhvctl\fR(1)
"""


def escaped(text):
    return text.replace("\\", "\\e").replace("-", "\\-")


def prose(text):
    """Filled lines that begin anew with each sentence; what stands in backquotes is bold."""
    parts = escaped(" ".join(text.split())).split("`")
    marked = "".join(part if i % 2 == 0 else f"\\fB{part}\\fR" for i, part in enumerate(parts))
    lines = []
    for sentence in re.split(r"(?<=\.) (?=[A-Z])", marked):
        lines += textwrap.wrap(sentence, 76, break_long_words=False, break_on_hyphens=False)
    return "".join(("\\&" if line[0] in ".'" else "") + line + "\n" for line in lines)


def options(help_text):
    """[(names, value, text)] of CLI11's help."""
    found = []
    for line in help_text.splitlines():
        if match := _OPTION.match(line):
            found.append([match["names"].split(","), match["value"] or "", match["text"] or ""])
        elif found and line.startswith("      "):
            found[-1][2] += " " + line.strip()
    if not found:
        raise SystemExit("pages.py: this is not the help of hvd")
    return found


def hvd(help_text):
    text = ""
    for names, value, meaning in options(help_text):
        tag = ", ".join(f"\\fB{escaped(name)}\\fR" for name in names)
        tag += f" \\fI{escaped(value)}\\fR" if value else ""
        text += f".TP\n{tag}\n{prose(meaning if meaning.endswith('.') else meaning + '.')}"
    return _HVD.format(date=_DATE, options=text)


def paragraphs(text):
    """[(comment, [setting lines])]: the file is paragraphs of prose, each above its keys."""
    for block in re.split(r"\n\n+", text.strip()):
        comment, settings = [], []
        for line in block.splitlines():
            prose_line = re.match(r"^# (?! )(.*)$", line)
            (comment if prose_line and not settings else settings).append(
                prose_line[1] if prose_line and not settings else line)
        yield " ".join(comment), settings


def hvd_yaml(text):
    purpose, keys = "", ""
    for comment, settings in paragraphs(text):
        if not settings:
            purpose = prose(comment)
            continue
        names = [match["indent"] + match["key"] for line in settings if (match := _KEY.match(line))]
        tops = [name for name in names if not name.startswith(" ")]
        inner = list(dict.fromkeys(name.strip() for name in names if name.startswith(" ")))
        title = ", ".join(f"\\fB{name}\\fR" for name in tops)
        keys += f".TP\n{title}\n{prose(comment)}"
        if inner:
            within = ", ".join(f"\\fB{name}\\fR" for name in inner)
            keys += ".br\nWithin it:\n" + "\n".join(
                textwrap.wrap(within, 76, break_long_words=False)) + ".\n"
    example = "".join(
        ("\\&" if line.startswith((".", "'")) else "") + escaped(line) + "\n"
        for line in text.splitlines() if line and not re.match(r"^(#  )?# (?! )", line))
    return _YAML.format(date=_DATE, purpose=purpose, keys=keys, example=example)


if __name__ == "__main__":
    sys.stdout.write({"hvd": hvd, "hvd.yaml": hvd_yaml}[sys.argv[1]](sys.stdin.read()))
