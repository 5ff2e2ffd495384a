"""Every query of every dashboard and every rule, and which of them may say nothing here."""

import json
import pathlib
import re

# Part of a query -> why a well host on sim has no data for it.
MAY_BE_EMPTY = {
    "ALERTS": "nothing is wrong for long enough",
    'outcome="failed"': "no fault fails",
    "twinroot_kvm_exits_total": "sim has no KVM that counts",
    "twinroot_projected_leaves_kept_total": "sim needs no projection",
    "twinroot_splits_kept_total": "no VM runs out of tables",
    "twinroot_held_back_conversions_total": "no lossless watch is too slow",
}

_RULES = re.compile(r"- (record|alert): (\S+)\n\s+expr: (>-\n(?:\s{10}.*\n)+|.*\n)")
# What an alert compares with; a well host has data for what stands before it.
_BOUND = re.compile(r"\s*(?:>|<|==)\s*[\d.]+$")


def of_dashboards():
    """[(dashboard and title, expression, whether it asks for one moment)]"""
    return [(f"{path.stem}: {panel['title']}", target["expr"], target["instant"])
            for path in sorted(pathlib.Path("deploy/grafana").glob("*.json"))
            for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]


def of_rules():
    """[(name, expression, True)], alerts without what they compare with."""
    found = []
    for path in sorted(pathlib.Path("deploy/prometheus").glob("*_rules.yml")):
        for kind, name, text in _RULES.findall(path.read_text()):
            expression = " ".join(text.removeprefix(">-").split()).strip("'")
            if kind == "alert":
                expression, count = _BOUND.subn("", expression)
                if count != 1:
                    raise AssertionError(f"{name} compares with nothing")
            found.append((name, expression, True))
    return found


def excuse(expression):
    """The part of MAY_BE_EMPTY that an expression has, or None."""
    return next((part for part in MAY_BE_EMPTY if part in expression), None)
