#!/usr/bin/env python3
"""Applies each mutation of mutations.toml to a copy of the tree and demands that its test fails.

  python3 tests/mutations/run.py [--only NAME]... [--scratch DIR] [--minutes N] [BAZEL OPTIONS]

Not part of the default lane: it builds for each mutation. First every named test must pass on the
copy as it is, and run at least one case. A mutation that does not compile is an error of the list; a
test that hangs has caught it only if the entry says `hangs`. One that survives needs a reason,
`survives`; one that has a reason and is caught, too, must lose it. Results go to results.json in the
scratch directory, so a run that was stopped (--minutes) goes on where it was. At the end the table
for README.md; exit code 1 if anything is not as the list says.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import mutations

_TIMEOUT = 300  # seconds; of one test


def copy_tree(scratch):
    """The files that git knows, as they are now; those that did not change keep their times."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], check=True,
                           cwd=mutations.TREE, stdout=subprocess.PIPE).stdout.decode()
    tree = scratch / "tree"
    for name in filter(None, names.split("\0")):
        source, target = mutations.TREE / name, tree / name
        if not source.is_file():
            continue
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    packages = mutations.TREE / ".quickstart"
    if packages.is_dir():
        shutil.copytree(packages, tree / ".quickstart", dirs_exist_ok=True)
    return tree


class Runner:

    def __init__(self, tree, scratch, options):
        self._tree = tree
        self._startup = [option for option in options if option.startswith("--output_base")]
        self._startup = self._startup or [f"--output_base={scratch / 'output'}"]
        self._options = [option for option in options if option not in self._startup]

    def test(self, target, name_filter=None):
        """'passed', 'failed', 'hung', 'no case' or 'not built', and the end of the output."""
        command = ["bazel", *self._startup, "test", "--symlink_prefix=/", "--test_output=all",
                   "--noshow_progress", f"--test_timeout={_TIMEOUT}", "--cache_test_results=no",
                   *self._options]
        if name_filter:
            command.append(f"--test_filter={name_filter}")
        done = subprocess.run([*command, target], cwd=self._tree, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
        text = done.stdout
        if re.search(r"^TIMEOUT:|\bTIMEOUT in\b", text, re.M):
            return "hung", text
        if done.returncode == 0:
            ran = re.search(r"\[  PASSED  \] ([1-9]\d*) test", text)
            return ("passed" if ran else "no case"), text
        return ("failed" if done.returncode == 3 else "not built"), text


def verdict(entry, outcome):
    if outcome == "failed":
        return "caught"
    if outcome == "hung":
        return "caught, hangs" if entry.get("hangs") else "hangs"
    return "survived" if outcome == "passed" else outcome


def as_expected(entry, result):
    return result == "survived" if entry.get("survives") else result.startswith("caught")


def table(entries, results):
    yield "| mutation | in | result | by |"
    yield "|---|---|---|---|"
    for entry in entries:
        result = results.get(entry["name"], {"result": "not run"})["result"]
        by = entry["test"].removeprefix("//tests/")
        if entry.get("filter"):
            by += f" `{entry['filter']}`"
        reason = f": {entry['survives']}" if entry.get("survives") else ""
        yield f"| {entry['name']} | `{entry['file']}` | {result}{reason} | {by} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--scratch", type=pathlib.Path,
                        default=pathlib.Path.home() / ".cache/twinroot/mutations")
    parser.add_argument("--minutes", type=float, help="stop then; the next run goes on")
    parser.add_argument("--again", action="store_true", help="forget the results so far")
    arguments, options = parser.parse_known_args()
    start = time.monotonic()
    entries = mutations.load()
    wrong = list(mutations.mistakes(
        entries, lambda path: (mutations.TREE / path).read_text()
        if (mutations.TREE / path).is_file() else None))
    if wrong:
        sys.exit("\n".join(wrong))
    unknown = set(arguments.only or []) - {entry["name"] for entry in entries}
    if unknown:
        sys.exit(f"no such mutation: {', '.join(sorted(unknown))}")

    arguments.scratch.mkdir(parents=True, exist_ok=True)
    book = arguments.scratch / "results.json"
    results = json.loads(book.read_text()) if book.is_file() and not arguments.again else {}
    tree = copy_tree(arguments.scratch)
    runner = Runner(tree, arguments.scratch.resolve(), options)
    todo = [entry for entry in entries
            if results.get(entry["name"], {}).get("entry") != entry
            and (not arguments.only or entry["name"] in arguments.only)]
    sound = set()
    for number, entry in enumerate(todo, 1):
        if arguments.minutes and time.monotonic() - start > 60 * arguments.minutes:
            print(f"stopped after {arguments.minutes} minutes; {len(todo) - number + 1} are left")
            break
        check = (entry["test"], entry.get("filter"))
        if check not in sound:
            outcome, text = runner.test(*check)
            if outcome != "passed":
                sys.exit(f"{text[-4000:]}\nwithout any mutation: {check} {outcome}")
            sound.add(check)
        path = tree / entry["file"]
        original = path.read_text()
        path.write_text(original.replace(entry["old"], entry["new"]))
        try:
            outcome, text = runner.test(*check)
        finally:
            path.write_text(original)
        result = verdict(entry, outcome)
        results[entry["name"]] = {"result": result, "entry": entry}
        book.write_text(json.dumps(results, indent=1))
        sign = "" if as_expected(entry, result) else "   <-- not as the list says"
        print(f"[{number}/{len(todo)}] {entry['name']}: {result}{sign}", flush=True)
        if result == "not built":
            print("\n".join(line for line in text.splitlines() if "error" in line)[:2000])

    print("\n".join(table(entries, results)))
    known = [(entry, results[entry["name"]]["result"]) for entry in entries
             if results.get(entry["name"], {}).get("entry") == entry]
    caught = sum(result.startswith("caught") for _, result in known)
    survived = sum(result == "survived" for _, result in known)
    print(f"{caught} caught, {survived} survived, {len(known) - caught - survived} neither, "
          f"{len(entries) - len(known)} not run")
    sys.exit(any(not as_expected(entry, result) for entry, result in known))


if __name__ == "__main__":
    main()
