"""The chart on a real API server: scripts/test-k8s.sh."""

import copy
import os
import pathlib
import tempfile
import unittest

import yaml
from apiserver import Server, path_of
from tools import CHART, CI_FILES, DEFINITIONS, manifests, run, template

NAMESPACE = "chat"
KEDA = yaml.safe_load((CHART / "ci/keda-values.yaml").read_text())
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/test-weir-storage"


def checksum(workload):
    return workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        for manifest in [namespace, *DEFINITIONS]:
            status, answer = cls.server.call("POST", path_of(manifest, NAMESPACE), manifest)
            assert status == 201, answer
        for kind in ("scaledobjects", "podmonitors", "prometheusrules"):
            definition = next(one for one in DEFINITIONS if one["spec"]["names"]["plural"] == kind)["spec"]
            path = f"/apis/{definition['group']}/{definition['versions'][0]['name']}/namespaces/{NAMESPACE}/{kind}"
            cls.server.until(f"{kind} to be served", lambda path=path: cls.server.call("GET", path)[0] == 200)

    def helm(self, command, *args, values=None):
        """A command of Helm, without hooks: there is nobody to run their jobs."""
        with tempfile.TemporaryDirectory() as folder:
            if values is not None:
                path = pathlib.Path(folder) / "values.yaml"
                path.write_text(yaml.safe_dump(values))
                args = (*args, "-f", path)
            env = {**os.environ, "KUBECONFIG": str(self.server.kubeconfig)}
            done = run("helm", command, *args, "--namespace", NAMESPACE, "--no-hooks", env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def get(self, path):
        status, answer = self.server.call("GET", path)
        self.assertEqual(status, 200, answer)
        return answer

    def dry_run(self, manifest):
        path = f"{path_of(manifest, NAMESPACE)}?dryRun=All&fieldValidation=Strict"
        return self.server.call("POST", path, manifest)

    def test_the_server_takes_all_of_it_and_knows_every_field(self):
        count = 0
        for values in CI_FILES:
            for manifest in manifests(template(values, args=("--kube-version", "1.36.0"))):
                with self.subTest(f"{values.name} {manifest['kind']} {manifest['metadata']['name']}"):
                    status, answer = self.dry_run(manifest)
                    self.assertEqual(status, 201, answer)
                    count += 1
        self.assertGreater(count, 25)

    def test_the_server_refuses_what_is_wrong(self):
        rendered = manifests(template(CHART / "ci/keda-values.yaml", args=("--kube-version", "1.36.0")))
        scaler = next(manifest for manifest in rendered if manifest["kind"] == "ScaledObject")
        number = copy.deepcopy(scaler)
        number["spec"]["triggers"][0]["metadata"]["threshold"] = 1
        self.assertEqual(self.dry_run(number)[0], 422)
        unknown = copy.deepcopy(scaler)
        unknown["spec"]["minReplicas"] = 1
        self.assertEqual(self.dry_run(unknown)[0], 400)

    def test_a_pool_that_leaves_fixed_begins_with_one_worker(self):
        # docs/kubernetes.md says so.
        fixed = copy.deepcopy(KEDA)
        fixed["pools"]["storage"]["scaling"].update(mode="fixed", replicas=3)
        self.helm("install", "test", CHART, values=fixed)
        self.addCleanup(self.helm, "uninstall", "test")
        self.assertEqual(self.get(DEPLOYMENT)["spec"]["replicas"], 3)
        self.helm("upgrade", "test", CHART, values=KEDA)
        self.assertEqual(self.get(DEPLOYMENT)["spec"]["replicas"], 1)

    def test_a_release_is_installed_upgraded_rolled_back_and_gone(self):
        first = copy.deepcopy(KEDA)
        first["podMonitor"]["create"] = "auto"
        notes = self.helm("install", "test", CHART, values=first)
        self.assertIn("storage: deployment/test-weir-storage, 2 to 24 workers by keda", notes)
        before = self.get(DEPLOYMENT)
        # The operator's definitions are there, so `auto` makes a PodMonitor.
        self.get(f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/podmonitors/test-weir")

        # A scaler changes the number of workers, and an upgrade leaves it alone.
        scaled, answer = self.server.call("PATCH", DEPLOYMENT, {"spec": {"replicas": 5}}, "application/merge-patch+json")
        self.assertEqual(scaled, 200, answer)
        changed = copy.deepcopy(KEDA)
        changed["config"]["pools"]["storage"]["max_poll_records"] = 123
        self.helm("upgrade", "test", CHART, values=changed)
        after = self.get(DEPLOYMENT)
        self.assertEqual(after["spec"]["replicas"], 5)
        self.assertNotEqual(checksum(after), checksum(before))
        config = f"/api/v1/namespaces/{NAMESPACE}/configmaps/test-weir"
        self.assertIn("max_poll_records = 123", self.get(config)["data"]["weir.toml"])

        self.helm("rollback", "test", "1")
        self.assertEqual(checksum(self.get(DEPLOYMENT)), checksum(before))
        self.assertEqual(self.get(DEPLOYMENT)["spec"]["replicas"], 5)
        self.assertNotIn("max_poll_records", self.get(config)["data"]["weir.toml"])

        self.helm("uninstall", "test")
        for manifest in manifests(template(KEDA)):
            listed = self.get(path_of(manifest, NAMESPACE))["items"]
            left = [item["metadata"]["name"] for item in listed if not item["metadata"]["name"].startswith("kube-root-ca")]
            self.assertEqual(left, [], manifest["kind"])


if __name__ == "__main__":
    unittest.main()
