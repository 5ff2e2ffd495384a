"""A test in Python, run by the system's python3.

Not py_test: its launcher in Bazel 4.2 wants a program called "python", which Debian does not have.
"""

def python_test(name, data = [], tags = [], runs_binaries = False, **kwargs):
    """Runs <name>.py, whose cases are counted one by one (see junit.py).

    Args:
      name: of the target; the source is <name>.py.
      data: what else the test reads or runs.
      tags: of the test.
      runs_binaries: it runs what we build, so it belongs into the sanitizers' lanes too. Otherwise
        it gets the tag "source", and those lanes leave it out.
      **kwargs: as for sh_test.
    """
    native.sh_test(
        name = name,
        srcs = ["//tests:run_python.sh"],
        args = ["$(location :%s.py)" % name],
        data = [":%s.py" % name, "//tests:junit.py"] + data,
        tags = tags + ([] if runs_binaries else ["source"]),
        **kwargs
    )
