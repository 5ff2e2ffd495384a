#!/usr/bin/env bash
# Writes docs/METRICS.md from the daemon's catalogue of metrics.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/build.sh //daemon/obs:metrics_document >&2
bazel-bin/daemon/obs/metrics_document >docs/METRICS.md
