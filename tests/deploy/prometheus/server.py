"""A real Prometheus on a free port, with the project's configuration and a scrape a second."""

import pathlib
import re
import shutil
import socket
import subprocess
import tempfile

from deploy.grafana import draw
from tests.e2e import harness

_CONFIG = pathlib.Path("deploy/prometheus")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _changed(text, pattern, into):
    changed, count = re.subn(pattern, into, text)
    if count == 0:
        raise AssertionError(f"the configuration has no {pattern}")
    return changed


class Server:
    """Scrapes `target`; ends with close()."""

    def __init__(self, target, folder):
        self._log = tempfile.NamedTemporaryFile("w+", dir=folder, suffix=".prometheus.log")
        for path in _CONFIG.glob("*.yml"):
            shutil.copy(path, folder)
        config = (_CONFIG / "prometheus.yml").read_text()
        config = _changed(config, r"(_interval): 15s", r"\1: 1s")
        config = _changed(config, r"127\.0\.0\.1:9464", target)
        (folder / "prometheus.yml").write_text(config)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            harness.until(self._ready, "Prometheus has scraped hvd")
        except BaseException:
            self.close()
            raise

    def _ready(self):
        if self._process.poll() is not None:
            raise AssertionError(f"prometheus ended:\n{self.log()}")
        try:
            return draw.Prometheus(self.url, 10, 1).ask('up{job="twinroot"} == 1', instant=True)
        except OSError:
            return []

    def log(self):
        return pathlib.Path(self._log.name).read_text()

    def close(self):
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(harness.PATIENCE)
        self._log.close()
