"""What metrics say of the host itself, as its operator changes it."""

from tests import junit
from tests.e2e import harness


class HostMetrics(harness.E2eTest):

    def test_AHostThatTakesNoNewVmsShowsIt(self):
        hvd = self.start("--backend", "sim")

        def value(name):
            return hvd.metrics(name)[(name,)]
        self.assertEqual(value("twinroot_max_vms"), hvd.host()["maxVms"])
        self.assertEqual(value("twinroot_draining"), 0)
        hvd.do("host", "drain")
        self.assertEqual(value("twinroot_draining"), 1)
        hvd.do("host", "drain", "--undo")
        self.assertEqual(value("twinroot_draining"), 0)
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
