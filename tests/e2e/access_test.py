"""Roles, the audit log and TCP, as hvctl's users meet them."""

import json
import os
import signal
import subprocess

from tests import junit
from tests.e2e import harness

_PROGRAM = "tests/scenarios/programs/one_conversion.textproto"
_USAGE, _UNAVAILABLE, _DENIED = 2, 4, 6


class Access(harness.E2eTest):

    def start_with(self, configuration):
        folder = self.folder()
        (folder / "hvd.yaml").write_text(configuration.replace("FOLDER", str(folder)))
        hvd = self.launch("--backend", "sim", "--config", str(folder / "hvd.yaml"), folder=folder)
        harness.until(lambda: "serves on" in hvd.log(), "hvd serves")
        return hvd

    def as_role(self, role):
        return self.start_with(f"roles: [{{role: {role}, users: [{os.geteuid()}]}}]\n")

    def audit(self, hvd):
        return [json.loads(line)
                for line in (hvd.folder / "state/audit.jsonl").read_text().splitlines()]


class Roles(Access):

    def test_AViewerLooksAndIsToldWhatItMayNot(self):
        hvd = self.as_role("viewer")
        self.assertCode(0, hvd.hvctl("host", "show"))
        self.assertCode(0, hvd.hvctl("vm", "list"))
        for command in [["vm", "create", "demo", "--memory", "16MiB", "--vcpus", "1",
                         "--program", _PROGRAM],
                        ["vm", "console", "demo"], ["memory", "read", "demo", "0", "16"],
                        ["vm", "delete", "demo", "--yes"]]:
            answer = hvd.hvctl(*command)
            self.assertCode(_DENIED, answer)
            self.assertIn("needs the role operator and uid:", answer.err)
            self.assertIn("hint: ask for the role operator", answer.err)
        self.assertEqual({line["reason"] for line in self.audit(hvd)}, {"ROLE_REQUIRED"})
        self.stop(hvd)

    def test_AnOperatorRunsVmsAndIsAudited(self):
        hvd = self.as_role("operator")
        hvd.create("demo", "--program", _PROGRAM)
        hvd.do("vm", "delete", "demo", "--yes")
        answer = hvd.hvctl("host", "audit")
        self.assertCode(_DENIED, answer)
        self.assertIn("needs the role admin", answer.err)
        lines = self.audit(hvd)
        self.assertEqual([(line["method"].split("/")[1], line.get("resource"), line["code"])
                          for line in lines],
                         [("CreateVm", "vms/demo", "OK"), ("DeleteVm", "vms/demo", "OK"),
                          ("Audit", None, "PERMISSION_DENIED")])
        for line in lines:
            self.assertEqual((line["principal"], line["role"]), (f"uid:{os.geteuid()}", "operator"))
            self.assertGreater(line["pid"], 0)
        self.stop(hvd)


class Tcp(Access):

    def setUp(self):
        super().setUp()
        self.pem = self.folder()
        self.authority("ca")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=self.pem, check=True,
                       capture_output=True)

    def authority(self, name):
        self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key",
                     "-subj", f"/CN={name}", "-days", 1, "-out", f"{name}.pem")

    def identity(self, name, alternative, authority="ca"):
        """The options of hvctl for a new certificate."""
        (self.pem / "san").write_text(f"subjectAltName={alternative}")
        self.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-subj",
                     f"/CN={name}", "-out", f"{name}.csr")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey",
                     f"{authority}.key", "-CAcreateserial", "-days", 1, "-extfile", "san", "-out",
                     f"{name}.pem")
        return ["--ca", self.pem / "ca.pem", "--cert", self.pem / f"{name}.pem", "--key",
                self.pem / f"{name}.key"]

    def revoke(self, *names):
        """Renews the authority's revocation list, with these on it from now on."""
        config = self.pem / "ca.cnf"
        if not config.exists():
            (self.pem / "index.txt").write_text("")
            config.write_text(f"[ca]\ndefault_ca=one\n[one]\ndatabase={self.pem}/index.txt\n"
                              "default_md=sha256\ndefault_crl_days=1\n")
        ca = ["ca", "-config", config, "-cert", "ca.pem", "-keyfile", "ca.key"]
        for name in names:
            self.openssl(*ca, "-revoke", f"{name}.pem")
        self.openssl(*ca, "-gencrl", "-out", "crl.pem")

    def serve(self):
        self.identity("server", "IP:127.0.0.1")
        self.revoke()
        hvd = self.start_with(f"""
tcp:
  address: 127.0.0.1:0
  certificate: {self.pem}/server.pem
  key: {self.pem}/server.key
  client_ca: {self.pem}/ca.pem
  client_crl: {self.pem}/crl.pem
roles: [{{role: operator, uris: ["spiffe://test/ops/*"]}}]
""")
        address = hvd.log().split(", tcp ")[1].split(",")[0]
        hvd.environment["HVCTL_ENDPOINT"] = address
        return hvd

    def test_TheCertificateSaysWhoCalls(self):
        hvd = self.serve()
        alice = self.identity("alice", "URI:spiffe://test/ops/alice")
        hvd.create("demo", "--program", _PROGRAM, *alice)
        self.assertIn("demo", hvd.do("vm", "list", *alice).out)
        mallory = self.identity("mallory", "URI:spiffe://test/mallory")
        answer = hvd.hvctl("vm", "list", *mallory)
        self.assertCode(_DENIED, answer)
        self.assertIn("spiffe://test/mallory has none", answer.err)
        self.assertEqual([line["principal"] for line in self.audit(hvd)],
                         ["spiffe://test/ops/alice", "spiffe://test/mallory"])
        self.stop(hvd)

    def test_ACertificateOfAnotherAuthorityDoesNotConnect(self):
        hvd = self.serve()
        self.authority("other")
        eve = self.identity("eve", "URI:spiffe://test/ops/eve", authority="other")
        answer = hvd.hvctl("vm", "list", *eve)
        self.assertCode(_UNAVAILABLE, answer)
        self.assertIn("no connection to 127.0.0.1:", answer.err)
        self.assertIn("that --ca, --cert and client_ca fit", answer.err)
        self.stop(hvd)

    def test_ARevokedCertificateIsRefusedFromTheReloadOn(self):
        hvd = self.serve()
        lost = self.identity("lost", "URI:spiffe://test/ops/alice")
        self.revoke("lost")
        hvd.do("vm", "list", *lost)
        hvd.process.send_signal(signal.SIGHUP)
        harness.until(lambda: "revoked certificates" in hvd.log(), "hvd has read it again")
        answer = hvd.hvctl("vm", "list", *lost)
        self.assertCode(_DENIED, answer)
        self.assertIn("the certificate of spiffe://test/ops/alice was revoked", answer.err)
        self.assertIn("hint: get a new certificate", answer.err)
        hvd.do("vm", "list", *self.identity("new", "URI:spiffe://test/ops/alice"))
        self.stop(hvd)

    def test_TcpWithoutItsFilesIsAMistakeOfUsage(self):
        hvd = self.serve()
        alice = self.identity("alice", "URI:spiffe://test/ops/alice")
        for missing in range(0, len(alice), 2):
            some = alice[:missing] + alice[missing + 2:]
            answer = hvd.hvctl("vm", "list", *some)
            self.assertCode(_USAGE, answer)
            self.assertIn(f"so it needs {alice[missing]} FILE", answer.err)
        answer = hvd.hvctl("vm", "list", *alice[:4], "--key", "/no/such.key")
        self.assertCode(_USAGE, answer)
        self.assertIn("/no/such.key", answer.err)
        self.stop(hvd)


if __name__ == "__main__":
    junit.main()
