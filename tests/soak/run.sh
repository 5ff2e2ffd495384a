#!/bin/sh
# What `bazel run //tests/soak` runs, in its runfiles.
export PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1
exec python3 tests/soak/soak.py "$@"
