#!/usr/bin/env python3
"""Makes the Debian package of what is built, by deploy/install/manifest.txt.

usage: package.py BUILT FOLDER

BUILT is bazel-bin, with //deploy/install:built in it. The package goes into FOLDER; its path is
printed.
"""

import gzip
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

_TOP = pathlib.Path(__file__).resolve().parent.parent
_INSTALL = "deploy/install"
_BUILT = "bazel-bin/"


class BadManifest(Exception):
    """A line that is none, or that names a file which is not there."""


def lines(text):
    """[(source, destination, mode)] of a manifest. Raises BadManifest."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in (2, 3) or (len(words) == 3 and not re.fullmatch("[0-7]{3}", words[2])):
            raise BadManifest(f"manifest.txt:{number}: not SOURCE DESTINATION [MODE]: {line}")
        if words[1].startswith("/") or ".." in words[1].split("/"):
            raise BadManifest(f"manifest.txt:{number}: not below the root: {words[1]}")
        found.append((words[0], words[1], int(words[2], 8) if len(words) == 3 else 0o644))
    return found


def sources(pattern, top, built):
    """[(name as in the manifest, path)] of the files that a SOURCE names; a plain one must exist."""
    folder, below = (built, pattern.removeprefix(_BUILT)) if pattern.startswith(_BUILT) else (
        top, pattern)
    if "*" not in below:
        if not (folder / below).is_file():
            raise BadManifest(f"{pattern} is not there")
        return [(pattern, folder / below)]
    prefix = _BUILT if folder is built else ""
    glob = below + "/*" if below.endswith("**") else below
    return [(prefix + str(path.relative_to(folder)), path) for path in sorted(folder.glob(glob))
            if path.is_file() and "__pycache__" not in path.parts]


def places(manifest, top, built):
    """{name as in the manifest: (path, destination or None, mode)} of every file it takes."""
    taken = {}
    for pattern, destination, mode in lines(manifest):
        for name, path in sources(pattern, top, built):
            if name in taken:
                continue
            to = destination
            if to == "-":
                to = None
            elif to.endswith("/"):
                to += name.removeprefix(pattern.split("**")[0]) if "**" in pattern else path.name
            if to and to.startswith("usr/share/man/"):
                to += ".gz"
            taken[name] = (path, to, mode)
    return taken


def stage(top, built, root):
    """Puts every file of the manifest below root."""
    manifest = (top / _INSTALL / "manifest.txt").read_text()
    for path, to, mode in places(manifest, top, built).values():
        if to is None:
            continue
        target = root / to
        if target.exists():
            raise BadManifest(f"{to} is installed twice, the second time from {path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        if to.endswith(".gz"):
            target.write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        else:
            shutil.copyfile(path, target)
        target.chmod(mode)
    for program in (root / "usr/bin").iterdir():
        subprocess.run(["strip", "--strip-unneeded", "--remove-section=.comment", program],
                       check=True)


def libraries(root):
    """The packages of the libraries that the programs need, in the versions that they need."""
    with tempfile.TemporaryDirectory() as folder:
        # dpkg-shlibdeps looks for the sources' control file, and reads only the package's name.
        (pathlib.Path(folder) / "debian").mkdir()
        (pathlib.Path(folder) / "debian/control").write_text("Source: twinroot\n")
        found = subprocess.run(
            ["dpkg-shlibdeps", "-O", *sorted((root / "usr/bin").iterdir())], cwd=folder,
            check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout
    return re.fullmatch(r"shlibs:Depends=(.+)\n", found)[1]


def describe(top, root):
    """Writes root/DEBIAN: what dpkg is told about the files below root."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    version = subprocess.run([root / "usr/bin/hvd", "--version"], check=True,
                             stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    fields = {
        "VERSION": version,
        "ARCHITECTURE": subprocess.run(["dpkg", "--print-architecture"], check=True,
                                       stdout=subprocess.PIPE, text=True).stdout.strip(),
        "SIZE": str(sum(path.stat().st_size for path in files) // 1024),
        "LIBRARIES": libraries(root),
    }
    folder = root / "DEBIAN"
    folder.mkdir()
    control = (top / _INSTALL / "control").read_text()
    (folder / "control").write_text(re.sub(r"@(\w+)@", lambda match: fields[match[1]], control))
    relative = [path.relative_to(root) for path in files]
    (folder / "conffiles").write_text(
        "".join(f"/{path}\n" for path in relative if path.parts[0] == "etc"))
    (folder / "md5sums").write_text("".join(
        f"{hashlib.md5((root / path).read_bytes()).hexdigest()}  {path}\n" for path in relative
        if path.parts[0] != "etc"))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(top / _INSTALL / script, folder / script)
        (folder / script).chmod(0o755)


def make(top, built, folder):
    """Makes the package in folder; returns its path."""
    with tempfile.TemporaryDirectory() as work:
        root = pathlib.Path(work, "root")
        root.mkdir(mode=0o755)
        stage(top, built, root)
        describe(top, root)
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)  # whatever the umask is
        done = subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, folder],
                              check=True, stdout=subprocess.PIPE, text=True)
    return re.search(r"'([^']+)'\.?$", done.stdout.strip())[1]


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    built, folder = map(pathlib.Path, arguments)
    try:
        print(make(_TOP, built, folder))
    except BadManifest as error:
        print(f"package: {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"package: {error.cmd[0]} failed\n{error.stderr or ''}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
