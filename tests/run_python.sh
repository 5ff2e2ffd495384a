#!/bin/sh
# Runs the Python test given as the first argument with the system's python3; see python_test.bzl.
export PYTHONPATH="$TEST_SRCDIR/$TEST_WORKSPACE" PYTHONDONTWRITEBYTECODE=1
exec python3 "$@"
