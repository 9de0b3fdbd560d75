"""The chart, as Helm renders it."""

import copy
import json
import pathlib
import re
import tarfile
import tempfile
import tomllib
import unittest

import jsonschema
import kubernetes_validate
import yaml
from chart_derived import SCHEMA, documented, readme, schema, weirs_keys
from tools import (
    CHART, CI_FILES, DEFINITIONS, NEWEST, OLDEST, ROOT, leaves, manifests, of_kind, pod_specs, rendered_ci, run, template, weir,
)  # fmt: skip

OPERATOR = ("--api-versions", "monitoring.coreos.com/v1")
MINIMAL = yaml.safe_load((CHART / "ci/minimal-values.yaml").read_text())
# The schemas of what is not Kubernetes' own, by kind.
CUSTOM = {
    definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for definition in DEFINITIONS
}


def with_pool(**settings):
    """The least values, with settings of the pool and others."""
    values = copy.deepcopy(MINIMAL)
    values["config"]["pools"]["storage"].update(settings)
    return values


def of_workload(**settings):
    return {"workload": settings}


def closed(schema):
    """A schema that takes no field that it does not name, but for the metadata that every kind has."""
    if schema.get("type") == "object" and "properties" in schema:
        return {
            **schema,
            "additionalProperties": False,
            "properties": {name: closed(below) for name, below in schema["properties"].items()},
        }
    return {**schema, "items": closed(schema["items"])} if "items" in schema else schema


def only(found, *kinds):
    (manifest,) = of_kind(found, *kinds)
    return manifest


def config_of(found):
    """weir.toml, of the workers' ConfigMap and not of the hook's."""
    (config,) = [
        manifest["data"]["weir.toml"]
        for manifest in of_kind(found, "ConfigMap")
        if "weir.toml" in manifest["data"] and "annotations" not in manifest["metadata"]
    ]
    return config


class Chart(unittest.TestCase):
    def refused(self, *values, told):
        """The values are refused, with a message that has all of these texts."""
        done = template(*values)
        self.assertNotEqual(done.returncode, 0, "it was rendered")
        for text in told:
            self.assertIn(text, done.stderr)

    def test_every_ci_file_passes_the_strict_linter(self):
        for path in CI_FILES:
            with self.subTest(path.name):
                done = run("helm", "lint", "--strict", "--kube-version", f"{NEWEST}.0", CHART, "-f", path)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_is_rendered_conforms_to_the_oldest_and_the_newest_kubernetes(self):
        count = 0
        for path in CI_FILES:
            for version in (OLDEST, NEWEST):
                for manifest in rendered_ci(path, "--kube-version", f"{version}.0"):
                    with self.subTest(f"{path.name} {version} {manifest['kind']}"):
                        if manifest["kind"] in CUSTOM:
                            jsonschema.validate(manifest, closed(CUSTOM[manifest["kind"]]))
                        else:
                            kubernetes_validate.validate(manifest, version, strict=True)
                    count += 1
        self.assertGreater(count, 40)

    def test_a_package_has_all_that_the_chart_renders_and_no_more(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("helm", "package", CHART, "--destination", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            (package,) = pathlib.Path(folder).iterdir()
            with tarfile.open(package) as archive:
                names = set(archive.getnames())
        dashboards = {f"weir/files/dashboards/{path.name}" for path in (ROOT / "dashboards").iterdir()}
        self.assertLessEqual({"weir/files/alerts.yaml", *dashboards}, names)
        self.assertEqual([name for name in names if "/ci/" in name], [])

    def test_an_older_kubernetes_is_refused(self):
        done = template(MINIMAL, args=("--kube-version", "1.26.0"))
        self.assertIn("chart requires kubeVersion", done.stderr)

    def test_only_a_fixed_number_of_workers_is_written_down(self):
        fixed = only(manifests(template(MINIMAL, of_workload(scaling={"replicas": 3}))), "Deployment")
        self.assertEqual(fixed["spec"]["replicas"], 3)
        prometheus = {"serverAddress": "http://prometheus"}
        for mode in ("keda", "keda-lag", "hpa"):
            with self.subTest(mode):
                found = manifests(template(MINIMAL, of_workload(scaling={"mode": mode, "prometheus": prometheus})))
                self.assertNotIn("replicas", only(found, "Deployment")["spec"])
                scaler = only(found, "ScaledObject", "HorizontalPodAutoscaler")
                self.assertEqual(
                    scaler["spec"]["scaleTargetRef"],
                    {"apiVersion": "apps/v1", "kind": "Deployment", "name": "test-weir-storage"},
                )

    def test_pods_have_longer_than_their_pool_may_drain(self):
        def grace(*values):
            return pod_specs(of_kind(manifests(template(*values)), "Deployment"))[0]["terminationGracePeriodSeconds"]

        self.assertEqual(grace(MINIMAL), 45)
        self.assertEqual(grace(with_pool(drain_deadline="1min 30s")), 115)
        self.assertEqual(grace(with_pool(drain_deadline="1500ms")), 27)
        self.assertEqual(grace(MINIMAL, of_workload(terminationGracePeriodSeconds=300)), 300)
        self.refused(
            with_pool(drain_deadline="40s"),
            of_workload(terminationGracePeriodSeconds=45),
            told=["pool storage is 45", "drain_deadline 40 s", "at least 50"],
        )
        self.refused(with_pool(drain_deadline="3 fortnights"), told=["config.pools.storage.drain_deadline", "fortnights"])

    def test_no_secret_is_in_a_configmap(self):
        for store in ("postgres://weir:hunter2@db/weir", "postgres://weir:hun/t?r2@db/weir", "postgres://db/weir?x=1&password=hunter2"):
            values = with_pool()
            values["config"]["store"] = {"url": store}
            values["secrets"] = {}
            self.refused(values, told=["config has an address with a password", '"url"', "secrets"])
        for option in ("sasl_password", "ssl.key.pem", "sasl_oauthbearer_client_secret"):
            values = with_pool()
            values["config"]["kafka"]["options"] = {option: "hunter2"}
            self.refused(values, told=[f'config has a secret under "{option}"'])
        # Neither is one: an address without a password, and the name of a file.
        values = with_pool()
        values["config"]["redis"] = {"url": "redis://redis:6379"}
        values["config"]["kafka"]["options"] = {"sasl_password_file": "/vault/kafka", "sasl_username": "weir"}
        manifests(template(values))

    def test_secrets_are_files_that_the_configuration_names(self):
        found = rendered_ci(CHART / "ci/keda-values.yaml")
        config = tomllib.loads(config_of(found))
        named = {
            "store": config["store"]["url_file"],
            "redis": config["redis"]["url_file"],
            "saslPassword": config["kafka"]["options"]["sasl_password_file"],
        }
        for pod in pod_specs(found):
            (container,) = pod["containers"]
            (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "secrets"]
            (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "secrets"]
            items = {source["secret"]["items"][0]["path"] for source in volume["projected"]["sources"]}
            self.assertEqual({f"{mounted}/{item}" for item in items}, set(named.values()))
            self.assertFalse(any("secretKeyRef" in str(variable) for variable in container.get("env", [])))

    def test_static_members_are_pods_of_a_statefulset_with_their_names_as_ids(self):
        found = rendered_ci(CHART / "ci/static-values.yaml")
        workload, service = only(found, "StatefulSet"), only(found, "Service")
        self.assertEqual(workload["spec"]["serviceName"], service["metadata"]["name"])
        self.assertEqual(service["spec"]["clusterIP"], "None")
        env = workload["spec"]["template"]["spec"]["containers"][0]["env"]
        name = {"name": "WEIR__KAFKA__GROUP_INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        self.assertIn(name, env)
        self.assertEqual(only(found, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"], "StatefulSet")
        self.assertEqual(of_kind(manifests(template(MINIMAL)), "StatefulSet", "Service"), [])

    def test_wrong_values_are_refused_by_name(self):
        self.refused(with_pool(max_poll_record=5), told=["max_poll_record"])
        self.refused(with_pool(max_poll_records="many"), told=["max_poll_records"])
        self.refused(MINIMAL, of_workload(scaling={"mode": "magic"}), told=["mode", "keda-lag"])
        self.refused(MINIMAL, {"replicaCount": 3}, told=["replicaCount"])
        self.refused(MINIMAL, {"pools": {"storge": {}}}, told=["there is no config.pools.storge"])
        self.refused(MINIMAL, of_workload(scaling={"min": 3, "max": 2, "mode": "hpa"}), told=["min is 3 and max 2"])
        self.refused(MINIMAL, of_workload(scaling={"mode": "keda"}), told=["scaling.prometheus.serverAddress"])
        found = (with_pool(topics=["^orders\\."]), of_workload(scaling={"mode": "keda-lag"}))
        self.refused(*found, told=["pool storage finds its topics by a pattern", 'use mode "keda"'])
        self.refused({**MINIMAL, "secrets": {}}, told=["secrets.store.name"])
        self.refused({}, told=["brokers"])

    def test_selectors_have_no_version_and_choose_the_pods_of_their_pool_alone(self):
        for path in CI_FILES:
            found = rendered_ci(path)
            workloads = of_kind(found, "Deployment", "StatefulSet")
            pods = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads]
            for workload, own in zip(workloads, pods, strict=True):
                name = workload["metadata"]["name"]
                self.assertNotRegex(" ".join(own), "version|chart")
                selectors = [workload["spec"]["selector"]["matchLabels"]]
                selectors += [
                    manifest["spec"]["selector"]["matchLabels"]
                    for manifest in of_kind(found, "PodDisruptionBudget")
                    if manifest["metadata"]["name"] == name
                ]
                selectors += [
                    constraint["labelSelector"]["matchLabels"]
                    for constraint in workload["spec"]["template"]["spec"]["topologySpreadConstraints"]
                ]
                self.assertGreaterEqual(len(selectors), 3)
                for selector in selectors:
                    self.assertNotRegex(" ".join(selector), "version|chart")
                    chosen = [labels for labels in pods if selector.items() <= labels.items()]
                    self.assertEqual(chosen, [own], name)

    def test_a_pools_pods_are_replaced_when_what_concerns_it_changes(self):
        def checksums(change):
            values = yaml.safe_load((CHART / "ci/keda-values.yaml").read_text())
            change(values)
            return {
                workload["metadata"]["name"]: workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
                for workload in of_kind(manifests(template(values)), "Deployment")
            }

        before = checksums(lambda values: None)
        own = checksums(lambda values: values["config"]["pools"]["storage"].update(max_poll_records=7))
        self.assertNotEqual(own["test-weir-storage"], before["test-weir-storage"])
        self.assertEqual(own["test-weir-chat-orders"], before["test-weir-chat-orders"])
        all_of_them = checksums(lambda values: values["config"]["kafka"].update(max_poll_interval_ms=90000))
        self.assertFalse(set(all_of_them.values()) & set(before.values()))

    def test_the_operators_resources_need_the_operator_or_an_override(self):
        kinds = ("PodMonitor", "PrometheusRule")

        def made(create, args):
            values = {"podMonitor": {"create": create}, "prometheusRule": {"create": create}}
            return len(of_kind(manifests(template(MINIMAL, values, args=args)), *kinds))

        self.assertEqual([made("auto", ()), made("auto", OPERATOR)], [0, 2])
        self.assertEqual([made("always", ()), made("never", OPERATOR)], [2, 0])

    def test_the_rules_and_dashboards_are_the_projects(self):
        found = rendered_ci(CHART / "ci/keda-values.yaml")
        rules = only(found, "PrometheusRule")["spec"]["groups"][0]["rules"]
        source = yaml.safe_load((ROOT / "alerts/weir.yaml").read_text())["groups"][0]["rules"]
        self.assertEqual([rule["expr"] for rule in rules], [rule["expr"] for rule in source])
        for rule, own in zip(rules, source, strict=True):
            self.assertEqual(rule["labels"], {**own["labels"], "team": "chat"})
            base = "https://wiki.example.org/weir/runbook#"
            self.assertEqual(rule["annotations"]["runbook_url"], base + rule["alert"].lower())
        shown = {}
        for manifest in of_kind(found, "ConfigMap"):
            if manifest["metadata"]["labels"].get("grafana_dashboard") == "1":
                shown.update({name: json.loads(text) for name, text in manifest["data"].items()})
        files = (ROOT / "dashboards").glob("*.json")
        self.assertEqual(shown, {f"weir-{path.name}": json.loads(path.read_text()) for path in files})
        self.assertEqual(len(shown), 3)

    def test_pods_have_no_rights_that_they_do_not_need(self):
        for path in CI_FILES:
            for pod in pod_specs(rendered_ci(path)):
                self.assertEqual((pod["automountServiceAccountToken"], pod["enableServiceLinks"]), (False, False))
                context = pod["securityContext"]
                self.assertEqual((context["runAsNonRoot"], context["seccompProfile"]), (True, {"type": "RuntimeDefault"}))
                for container in pod["containers"]:
                    context = container["securityContext"]
                    self.assertEqual(
                        (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"], context["capabilities"]),
                        (False, True, {"drop": ["ALL"]}),
                    )

    def test_keda_is_told_nothing_but_texts(self):
        scalers = of_kind(rendered_ci(CHART / "ci/keda-values.yaml"), "ScaledObject")
        triggers = {scaler["metadata"]["name"]: scaler["spec"]["triggers"] for scaler in scalers}
        for trigger in sum(triggers.values(), []):
            for key, value in trigger["metadata"].items():
                self.assertIsInstance(value, str, key)
        (desired,) = triggers["test-weir-storage"]
        self.assertEqual(desired["type"], "prometheus")
        self.assertEqual(desired["metadata"]["query"], 'sum(weir_desired_replicas{namespace="chat",pool="storage"})')
        lag = [trigger["metadata"] for trigger in triggers["test-weir-chat-orders"]]
        self.assertEqual([(one["topic"], one["consumerGroup"]) for one in lag], [("orders", "chat_orders"), ("returns", "chat_orders")])
        self.assertEqual((lag[0]["lagThreshold"], lag[0]["bootstrapServers"]), ("5000", "kafka-0:9092,kafka-1:9092"))

    def test_tables_are_made_before_the_workers_by_a_job_that_needs_nothing_of_the_release(self):
        found = rendered_ci(CHART / "ci/static-values.yaml")
        job = only(found, "Job")
        hooks = [manifest for manifest in found if "helm.sh/hook" in manifest["metadata"].get("annotations", {})]
        self.assertEqual({manifest["kind"] for manifest in hooks}, {"ConfigMap", "Job"})
        for hook in hooks:
            self.assertEqual(hook["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade")
        weights = {hook["kind"]: int(hook["metadata"]["annotations"]["helm.sh/hook-weight"]) for hook in hooks}
        self.assertLess(weights["ConfigMap"], weights["Job"])
        pod = job["spec"]["template"]["spec"]
        own = next(hook for hook in hooks if hook["kind"] == "ConfigMap")
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        self.assertEqual(volumes["config"]["configMap"]["name"], own["metadata"]["name"])
        self.assertEqual(pod["serviceAccountName"], "default")
        # The owner's address in place of the workers'.
        self.assertEqual(volumes["secrets"]["projected"]["sources"][0]["secret"]["name"], "weir-owner")
        self.assertNotIn("url", tomllib.loads(own["data"]["weir.toml"])["store"])

    def test_names_are_as_long_as_kubernetes_allows(self):
        values = with_pool()
        pool = values["config"]["pools"].pop("storage")
        values["config"]["pools"]["a" * 40] = pool
        for static in (False, True):
            found = manifests(template(values, of_workload(staticMembership=static), release="r" * 53))
            for manifest in found:
                self.assertRegex(manifest["metadata"]["name"], r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
                self.assertLessEqual(len(manifest["metadata"]["name"]), 63)

    def test_the_ports_are_where_weir_listens(self):
        for path, port in (("minimal", 9464), ("static", 9000)):
            found = rendered_ci(CHART / f"ci/{path}-values.yaml")
            (container,) = only(found, "Deployment", "StatefulSet")["spec"]["template"]["spec"]["containers"]
            self.assertEqual(container["ports"][0]["containerPort"], port)
            self.assertTrue(tomllib.loads(config_of(found))["health"]["listen"].endswith(f":{port}"))
            for probe, endpoint in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                self.assertEqual(container[probe]["httpGet"], {"path": endpoint, "port": "health"})
                self.assertIn(f'"{endpoint}"', (ROOT / "src/admin.rs").read_text())


class Configuration(unittest.TestCase):
    """weir.toml as the chart renders it."""

    def test_it_says_what_the_values_say(self):
        for path in CI_FILES:
            values = yaml.safe_load(path.read_text())["config"]
            config = tomllib.loads(config_of(rendered_ci(path)))
            for keys, value in leaves(values):
                found = config
                for key in keys:
                    found = found[key]
                self.assertEqual((found, type(found)), (value, type(value)), keys)

    def test_it_is_toml_whatever_stands_in_it(self):
        columns = {'odd "name".x': "$id", "text": "line\nof <&> 'quotes' \\"}
        pipelines = [{"name": "persist", "handler": "persist", "columns": columns}]
        config = tomllib.loads(config_of(manifests(template(with_pool(pipelines=pipelines, max_poll_records=4000000)))))
        self.assertEqual(config["pools"]["storage"]["pipelines"], pipelines)
        self.assertEqual(config["pools"]["storage"]["max_poll_records"], 4000000)

    def test_weir_itself_accepts_it(self):
        for path in CI_FILES:
            for found in of_kind(rendered_ci(path), "ConfigMap"):
                if "weir.toml" not in found["data"]:
                    continue
                with self.subTest(f"{path.name} {found['metadata']['name']}"), tempfile.TemporaryDirectory() as folder:
                    folder = pathlib.Path(folder)
                    for secret, content in {
                        "store": "postgres://weir:secret@database/weir",
                        "redis": "redis://:secret@redis",
                        "saslPassword": "secret",
                    }.items():
                        (folder / secret).write_text(content)
                    text = found["data"]["weir.toml"].replace("/etc/weir/secrets", str(folder))
                    text = re.sub("ssl_ca_location.*", "", text)
                    (folder / "weir.toml").write_text(text)
                    done = run(weir(), "check", "--config", folder / "weir.toml", cwd=folder)
                    self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_schema_has_weirs_keys(self):
        self.assertEqual(SCHEMA.read_text(), schema(), "run `make chart-derived`")
        # All of them, at their defaults and examples, but for what the chart says itself.
        config = weirs_keys()
        for section, key in (("kafka", "group_instance_id"), ("store", "url_file"), ("redis", "url_file")):
            del config[section][key]
        jsonschema.validate(config, json.loads(SCHEMA.read_text())["definitions"]["weir"])

    def test_the_arguments_are_weirs(self):
        for path in CI_FILES:
            for pod in pod_specs(rendered_ci(path)):
                command, *args = pod["containers"][0]["args"]
                usage = run(weir(), command, "--help")
                self.assertEqual(usage.returncode, 0, usage.stderr)
                for option in filter(lambda arg: arg.startswith("--"), args):
                    self.assertIn(option, usage.stdout)


class Values(unittest.TestCase):
    """values.yaml, its documentation and its schema."""

    def test_every_value_is_documented(self):
        text = (CHART / "values.yaml").read_text()
        told = {path for path, _ in documented(text.splitlines())}
        for path, _ in leaves(yaml.safe_load(text)):
            is_told = any(path[:length] in told for length in range(1, len(path) + 1))
            self.assertTrue(is_told, f"{'.'.join(path)} has no comment beginning with `# --`")

    def test_the_readme_has_the_table_of_values(self):
        self.assertEqual((CHART / "README.md").read_text(), readme(), "run `make chart-derived`")

    def test_every_value_is_in_the_schema_and_the_other_way_round(self):
        schema = json.loads((CHART / "values.schema.json").read_text())

        def check(values, shape, path):
            shape = schema["definitions"][shape["$ref"].rsplit("/", 1)[1]] if "$ref" in shape else shape
            if shape.get("additionalProperties") is not False:
                return
            for key in values:
                self.assertIn(key, shape["properties"], f"{path} in the schema")
            for key, below in shape["properties"].items():
                if path.startswith(".config") or (path, key) == ("", "global"):
                    continue  # weir's own keys have their defaults in weir
                if path.endswith(".resources"):
                    continue
                self.assertIn(key, values, f"{path} in values.yaml")
                if isinstance(values[key], dict):
                    check(values[key], below, f"{path}.{key}")

        check(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")

    def test_every_object_of_the_schema_is_closed_or_free_on_purpose(self):
        # Kubernetes' own objects, and names of the user's choice.
        free = {
            "affinity", "livenessProbe", "readinessProbe", "podSecurityContext", "securityContext", "strategy", "global",
            "topologySpreadConstraints", "extraEnv", "extraVolumes", "extraVolumeMounts", "extraManifests", "ingressFrom", "egress",
        }  # fmt: skip

        def walk(shape, name):
            if shape.get("type") == "object":
                is_free = "additionalProperties" not in shape
                self.assertEqual(is_free, name in free, name)
            for key, below in [*shape.get("properties", {}).items(), *shape.get("definitions", {}).items()]:
                walk(below, key)
            if "items" in shape:
                walk(shape["items"], name)

        walk(json.loads((CHART / "values.schema.json").read_text()), "")


if __name__ == "__main__":
    unittest.main()
