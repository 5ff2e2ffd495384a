"""The list of mutations (mutations.toml), and what must be true of it."""

import pathlib
import tomllib

TREE = pathlib.Path(__file__).resolve().parents[2]
_KEYS = {"name", "file", "old", "new", "why", "test", "filter", "hangs", "survives"}
_NEEDED = {"name", "file", "old", "new", "why", "test"}


def load(path=TREE / "tests/mutations/mutations.toml"):
    with open(path, "rb") as file:
        return tomllib.load(file)["mutation"]


def mistakes(entries, text_of):
    """One sentence for each thing that is wrong; `text_of(path)`: a source file, or None."""
    names = [entry.get("name") for entry in entries]
    for entry in entries:
        name = entry.get("name", "a mutation without a name")
        if names.count(entry.get("name")) != 1:
            yield f"{name}: the name is there {names.count(entry.get('name'))} times"
        if set(entry) - _KEYS or _NEEDED - set(entry):
            yield f"{name}: has {sorted(entry)}, needs {sorted(_NEEDED)}"
            continue
        text = text_of(entry["file"])
        if text is None:
            yield f"{name}: there is no {entry['file']}"
        elif text.count(entry["old"]) != 1:
            yield (f"{name}: its old text is {text.count(entry['old'])} times in {entry['file']}, "
                   "not once; adapt the entry to what the file says now")
        if entry["old"] == entry["new"]:
            yield f"{name}: changes nothing"
        if not entry["test"].startswith("//tests/"):
            yield f"{name}: {entry['test']} is no test"
