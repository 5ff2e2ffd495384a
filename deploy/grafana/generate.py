#!/usr/bin/env python3
"""Writes the dashboards beside it: what is the same in every panel stands here once.

    deploy/grafana/generate.py [FOLDER]
"""

import json
import pathlib
import sys

_WIDTH = 24  # of Grafana's grid
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HOST = 'instance=~"$instance"'
_VM = 'instance=~"$instance", vm=~"$vm"'
_RATE = "[$__rate_interval]"


def _variable(name, query, label, many=True):
    return {"name": name, "label": label, "type": "query", "datasource": _SOURCE,
            "definition": query, "query": {"query": query, "refId": name}, "refresh": 2,
            "sort": 1, "multi": many, "includeAll": many,
            "current": {"text": "All", "value": "$__all"} if many else {}}


_DATASOURCE = {"name": "datasource", "label": "Data source", "type": "datasource",
               "query": "prometheus", "current": {}}
_INSTANCE = _variable("instance", 'label_values(up{job="twinroot"}, instance)', "Host")
_ONE_VM = _variable("vm", 'label_values(twinroot_table_pages{instance=~"$instance"}, vm)', "VM")


def graph(title, unit, *queries, why="", width=8, stack=False, least=0):
    """Lines over time; a query is (expression, legend)."""
    custom = {"fillOpacity": 25 if stack else 8, "showPoints": "never", "lineWidth": 1,
              "stacking": {"mode": "normal" if stack else "none"}}
    defaults = {"unit": unit, "custom": custom}
    if least is not None:
        defaults["min"] = least
    return {"type": "timeseries", "title": title, "description": why, "size": (width, 7),
            "queries": queries, "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {"legend": {"displayMode": "table", "placement": "bottom",
                                   "calcs": ["lastNotNull", "max"]},
                        "tooltip": {"mode": "multi", "sort": "desc"}}}


def number(title, unit, expression, why="", bad=None, width=4):
    """One number; red from `bad` on, or below 1 if `bad` is "zero"."""
    steps = [{"color": "green", "value": None}]
    if bad == "zero":
        steps = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
    elif bad is not None:
        steps.append({"color": "red", "value": bad})
    return {"type": "stat", "title": title, "description": why, "size": (width, 4),
            "queries": [(expression, "")],
            "fieldConfig": {"defaults": {"unit": unit, "thresholds": {
                "mode": "absolute", "steps": steps}}, "overrides": []},
            "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"}}


def quantiles(metric, selector, by):
    """The queries of the median and the 99th percentile, by a label."""
    return [(f"histogram_quantile({q}, sum by ({by}, le) "
             f"(rate({metric}_bucket{{{selector}}}{_RATE})))", f"{{{{{by}}}}} {name}")
            for q, name in (("0.5", "p50"), ("0.99", "p99"))]


def rate(metric, selector, by):
    return f"sum by ({by}) (rate({metric}{{{selector}}}{_RATE}))"


def legend(*labels):
    return " ".join(f"{{{{{label}}}}}" for label in labels)


FLEET = [
    number("Hosts that answer", "none", 'sum(up{job="twinroot"})', bad="zero"),
    number("Hosts that do not", "none", '(count(up{job="twinroot"} == 0) or vector(0))', bad=1),
    number("Alerts that fire", "none",
           '(count(ALERTS{alertname=~"Twinroot.*", alertstate="firing"}) or vector(0))', bad=1),
    number("VMs that run", "none", 'sum(twinroot_vms{state="running"})'),
    number("Guest memory on hosts", "bytes", "sum(instance:twinroot_allocated_bytes:sum)"),
    number("Restarts, last hour", "none",
           'sum(changes(process_start_time_seconds{job="twinroot"}[1h]))', bad=1),
    graph("Alerts that fire", "none",
          ('sum by (alertname, instance) (ALERTS{alertname=~"Twinroot.*", alertstate="firing"})',
           legend("instance", "alertname")), why="docs/runbooks.md has a section for each."),
    graph("VMs by state", "none", ("sum by (state) (twinroot_vms)", legend("state")), stack=True),
    graph("VMs that run, by host", "none", ('twinroot_vms{state="running"}', legend("instance"))),
    graph("Faults", "ops", ("sum by (instance) (instance:twinroot_faults:rate5m)",
                            legend("instance"))),
    graph("Conversions", "ops", ("sum by (instance) (instance:twinroot_conversions:rate5m)",
                                 legend("instance"))),
    graph("Conversion latency, p99", "s",
          ("max by (instance) (instance:twinroot_conversion_latency_seconds:p99_5m)",
           legend("instance"))),
    graph("Memory by backing", "bytes",
          ("sum by (kind) (instance:twinroot_allocated_bytes:sum)", legend("kind")), stack=True),
    graph("Events that wait for the disk", "none",
          ("twinroot_journal_waiting_events", legend("instance"))),
    graph("Versions", "none", ("count by (version) (twinroot_build_info)", legend("version")),
          why="More than one during a roll-out only."),
]

HOST = [
    number("Answers", "none", f"min(up{{job=\"twinroot\", {_HOST}}})", bad="zero"),
    number("Up for", "s", f"time() - max(process_start_time_seconds{{job=\"twinroot\", {_HOST}}})"),
    number("VMs that run", "none", f'sum(twinroot_vms{{state="running", {_HOST}}})'),
    number("Fullest table budget", "percentunit",
           f"max(instance:twinroot_table_pages:max_ratio{{{_HOST}}})", bad=0.9,
           why="Of the VM that has the fewest table pages left."),
    number("Open files", "percentunit", f'max(process_open_fds{{job="twinroot", {_HOST}}} / '
           f'process_max_fds{{job="twinroot", {_HOST}}})', bad=0.8),
    number("VMs in _other", "none", f"sum(twinroot_folded_vms{{{_HOST}}})"),
    graph("Faults by outcome", "ops", (rate("twinroot_faults_total", _HOST, "outcome"),
                                       legend("outcome"))),
    graph("Fault latency", "s", *quantiles("twinroot_fault_latency_seconds", _HOST, "kind"),
          why="Until a fault is answered; a parked vCPU waits beyond it."),
    graph("Exits by reason", "ops", (rate("twinroot_exits_total", _HOST, "reason"),
                                     legend("reason"))),
    graph("Memory by backing", "bytes",
          (f"sum by (kind) (twinroot_allocated_bytes{{{_HOST}}})", legend("kind")), stack=True),
    graph("VMs with the most faults", "ops",
          (f"topk(5, {rate('twinroot_faults_total', _HOST, 'vm')})", legend("vm"))),
    graph("VMs with the most memory", "bytes",
          (f"topk(5, sum by (vm) (twinroot_allocated_bytes{{{_HOST}}}))", legend("vm"))),
    graph("Calls by method", "ops", (f"topk(8, {rate('twinroot_grpc_started_total', _HOST, 'method')})",
                                     legend("method"))),
    graph("Calls that were not answered OK", "ops",
          (rate("twinroot_grpc_handled_total", f'code!="OK", {_HOST}', "method, code"),
           legend("method", "code"))),
    graph("Call latency, p99", "s",
          (f"topk(8, histogram_quantile(0.99, sum by (method, le) "
           f"(rate(twinroot_grpc_latency_seconds_bucket{{{_HOST}}}{_RATE}))))", legend("method")),
          why="Calls with one answer. WaitVm waits as long as it is told."),
    graph("Journal", "none", (f"twinroot_journal_waiting_events{{{_HOST}}}", "waiting for the disk"),
          (f"increase(twinroot_journal_lost_events_total{{{_HOST}}}{_RATE})", "lost"),
          (f"increase(twinroot_journal_failed_commits_total{{{_HOST}}}{_RATE})", "failed commits")),
    graph("The daemon's processors", "none",
          (f'rate(process_cpu_seconds_total{{job="twinroot", {_HOST}}}{_RATE})', legend("instance")),
          why="1 is one processor; guests on sim and their faults are in it."),
    graph("The daemon's memory", "bytes",
          (f'process_resident_memory_bytes{{job="twinroot", {_HOST}}}', legend("instance")),
          why="Guests' pages are in it."),
]

VM = [
    number("Guest memory", "bytes", f"sum(twinroot_attribute_bytes{{{_VM}}})"),
    number("On the host", "bytes", f"sum(twinroot_allocated_bytes{{{_VM}}})"),
    number("Host over guest memory", "percentunit",
           f"sum(twinroot_allocated_bytes{{{_VM}}}) / sum(twinroot_attribute_bytes{{{_VM}}})",
           bad=1.1, why="Above 1, pages have a private and a shared backing."),
    number("Table budget", "percentunit",
           f"max(twinroot_table_pages{{{_VM}}} / twinroot_table_pages_budget{{{_VM}}})", bad=0.9),
    number("Conversions that wait", "none", f"sum(twinroot_pending_conversions{{{_VM}}})", bad=1),
    number("Faults that failed", "none",
           f'(sum(twinroot_faults_total{{outcome="failed", {_VM}}}) or vector(0))', bad=1),
    graph("Faults by outcome", "ops", (rate("twinroot_faults_total", _VM, "outcome"),
                                       legend("outcome"))),
    graph("Conversions", "ops",
          (rate("twinroot_conversions_total", _VM, "direction, cause, result"),
           legend("direction", "cause", "result"))),
    graph("Bytes converted", "Bps", (rate("twinroot_converted_bytes_total", _VM, "direction"),
                                     legend("direction"))),
    graph("Memory by attribute", "bytes",
          (f"sum by (kind) (twinroot_attribute_bytes{{{_VM}}})", legend("kind")), stack=True),
    graph("Memory by backing", "bytes",
          (f"sum by (kind) (twinroot_allocated_bytes{{{_VM}}})", legend("kind")), stack=True),
    graph("Pages by level and root", "none",
          (f"sum by (kind, level) (twinroot_leaves{{{_VM}}})", legend("kind", "level"))),
    graph("Table pages", "none", (f"sum by (vm) (twinroot_table_pages{{{_VM}}})", "in use {{vm}}"),
          (f"sum by (vm) (twinroot_table_pages_budget{{{_VM}}})", "budget {{vm}}")),
    graph("TLB flushes by scope", "ops", (rate("twinroot_flushes_total", _VM, "scope"),
                                          legend("scope"))),
    graph("Splits and collapses", "ops",
          (rate("twinroot_splits_total", _VM, "reason"), "split {{reason}}"),
          (rate("twinroot_splits_kept_total", _VM, "vm"), "no table for it"),
          (rate("twinroot_collapses_total", _VM, "reason"), "collapsed {{reason}}")),
    graph("Changes that faults wait for", "ops",
          (rate("twinroot_invalidations_total", _VM, "vm"), "changes {{vm}}"),
          (rate("twinroot_faults_total", f'outcome="retry", {_VM}', "vm"), "tried again {{vm}}")),
    graph("Requests that waited", "ops",
          (rate("twinroot_throttled_conversions_total", _VM, "vm"), "over the rate {{vm}}"),
          (rate("twinroot_held_back_conversions_total", _VM, "vm"), "for a lossless watch {{vm}}")),
    graph("On kvm", "ops", (rate("twinroot_kvm_exits_total", _VM, "vm"), "exits {{vm}}"),
          (rate("twinroot_projected_leaves_kept_total", _VM, "reason"), "2 MiB not whole {{reason}}")),
]

CONVERSIONS = [
    number("Conversions", "ops", f"sum(rate(twinroot_conversions_total{{{_VM}}}{_RATE}))"),
    number("Bytes converted", "Bps", f"sum(rate(twinroot_converted_bytes_total{{{_VM}}}{_RATE}))"),
    number("Not applied", "percentunit",
           f'(sum(rate(twinroot_conversions_total{{result!="applied", {_VM}}}{_RATE})) or vector(0))'
           f" / sum(rate(twinroot_conversions_total{{{_VM}}}{_RATE}))", bad=0.1),
    number("Waiting", "none", f"sum(twinroot_pending_conversions{{{_VM}}})", bad=1),
    number("Shared memory", "bytes", f'sum(twinroot_attribute_bytes{{kind="shared", {_VM}}})'),
    number("Latency, p99", "s",
           "histogram_quantile(0.99, sum by (le) "
           f"(rate(twinroot_conversion_latency_seconds_bucket{{{_HOST}}}{_RATE})))", bad=1),
    graph("By direction and cause", "ops",
          (rate("twinroot_conversions_total", _VM, "direction, cause"),
           legend("direction", "cause"))),
    graph("Not applied, by VM", "ops",
          (rate("twinroot_conversions_total", f'result!="applied", {_VM}', "vm, result"),
           legend("vm", "result"))),
    graph("Latency", "s", *quantiles("twinroot_conversion_latency_seconds", _HOST, "cause"),
          why="From the guest's exit, or the call, until the vCPU may go on; orchestrators think in it."),
    graph("VMs that convert most", "ops",
          (f"topk(5, {rate('twinroot_conversions_total', _VM, 'vm')})", legend("vm"))),
    graph("Bytes, by direction", "Bps", (rate("twinroot_converted_bytes_total", _VM, "direction"),
                                         legend("direction"))),
    graph("Bytes for each conversion", "bytes",
          (f"{rate('twinroot_converted_bytes_total', _VM, 'cause')} / "
           + rate("twinroot_conversions_total", f'result="applied", {_VM}', "cause"),
           legend("cause"))),
    graph("Waiting, by VM", "none", (f"topk(5, twinroot_pending_conversions{{{_VM}}} > 0)",
                                     legend("vm"))),
    graph("Over a quota", "ops", (rate("twinroot_conversions_over_quota_total", _VM, "vm, quota"),
                                  legend("vm", "quota"))),
    graph("Slowed down", "ops",
          (rate("twinroot_throttled_conversions_total", _VM, "vm"), "over the rate {{vm}}"),
          (rate("twinroot_held_back_conversions_total", _VM, "vm"), "for a lossless watch {{vm}}")),
]

DIRTY = [
    number("VMs that log", "none", f"(sum(twinroot_dirty_log_enabled{{{_VM}}}) or vector(0))"),
    number("Pages harvested", "ops",
           f"sum(rate(twinroot_dirty_pages_harvested_total{{{_VM}}}{_RATE}))"),
    number("Written and harvested", "Bps",
           f"4096 * sum(rate(twinroot_dirty_pages_harvested_total{{{_VM}}}{_RATE}))",
           why="What a migration has to send; more than its line carries does not converge."),
    number("vCPUs that wait", "none",
           f"(sum(twinroot_vcpus_waiting_for_harvest{{{_VM}}}) or vector(0))", bad=1),
    number("Large pages kept", "none",
           f"(sum(increase(twinroot_splits_kept_total{{{_VM}}}{_RATE})) or vector(0))", bad=1,
           why="There was no table to split them: writes to them are logged whole."),
    number("Table budget", "percentunit",
           f"max(twinroot_table_pages{{{_VM}}} / twinroot_table_pages_budget{{{_VM}}})", bad=0.9),
    graph("Pages harvested, by VM", "ops",
          (rate("twinroot_dirty_pages_harvested_total", _VM, "vm"), legend("vm")), width=12),
    graph("Writes that were logged", "ops", (rate("twinroot_fast_faults_total", _VM, "vm"),
                                             legend("vm")),
          why="Faults that gave a withheld right back: the first write to a page since a harvest.",
          width=12),
    graph("VMs that log", "none", (f"twinroot_dirty_log_enabled{{{_VM}}}", legend("vm"))),
    graph("vCPUs that wait for a harvest", "none",
          (f"twinroot_vcpus_waiting_for_harvest{{{_VM}}}", legend("vm"))),
    graph("Splits and collapses", "ops",
          (rate("twinroot_splits_total", f'reason="dirty_log", {_VM}', "vm"), "split {{vm}}"),
          (rate("twinroot_collapses_total", f'reason="dirty_log", {_VM}', "vm"), "collapsed {{vm}}")),
    graph("Pages by level", "none", (f"sum by (level) (twinroot_leaves{{{_VM}}})", legend("level"))),
    graph("TLB flushes by scope", "ops", (rate("twinroot_flushes_total", _VM, "scope"),
                                          legend("scope"))),
    graph("Table pages", "none", (f"sum by (vm) (twinroot_table_pages{{{_VM}}})", legend("vm"))),
]

DASHBOARDS = {
    "fleet": ("Twinroot: fleet", [], FLEET),
    "host": ("Twinroot: host", [_INSTANCE], HOST),
    "vm": ("Twinroot: VM", [_INSTANCE, _ONE_VM], VM),
    "conversions": ("Twinroot: conversions", [_INSTANCE, _ONE_VM], CONVERSIONS),
    "dirty-logging": ("Twinroot: dirty logging", [_INSTANCE, _ONE_VM], DIRTY),
}


def _place(panels):
    """Each panel as Grafana has it, from left to right, row under row."""
    x = y = tall = 0
    for number_, panel in enumerate(panels, 1):
        width, height = panel["size"]
        if x + width > _WIDTH:
            x, y, tall = 0, y + tall, 0
        targets = [{"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": expression,
                    "legendFormat": legend_, "instant": panel["type"] == "stat",
                    "range": panel["type"] != "stat"}
                   for i, (expression, legend_) in enumerate(panel["queries"])]
        yield {"id": number_, "type": panel["type"], "title": panel["title"],
               "description": panel["description"], "datasource": _SOURCE,
               "gridPos": {"x": x, "y": y, "w": width, "h": height}, "targets": targets,
               "fieldConfig": panel["fieldConfig"], "options": panel["options"]}
        x, tall = x + width, max(tall, height)


def text(name):
    """The file of one dashboard."""
    title, variables, panels = DASHBOARDS[name]
    board = {"uid": f"twinroot-{name}", "title": title, "tags": ["twinroot"], "schemaVersion": 37,
             "version": 1, "editable": True, "refresh": "30s", "graphTooltip": 1,
             "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
             "links": [{"type": "dashboards", "title": "Twinroot", "tags": ["twinroot"],
                        "asDropdown": True, "includeVars": True, "keepTime": True}],
             "templating": {"list": [_DATASOURCE, *variables]}, "annotations": {"list": []},
             "panels": list(_place(panels))}
    return json.dumps(board, indent=1) + "\n"


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(text(name))


if __name__ == "__main__":
    main()
