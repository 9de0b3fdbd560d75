"""The image and the composition: no engine runs them here, so everything that they name is looked up."""

import fnmatch
import json
import re
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml
from dockerfile_parse import DockerfileParser
from tools import ROOT, run, weir

# What gcr.io/distroless/cc-debian12 has: glibc, OpenSSL, libgcc and libstdc++.
SHARED = {
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libcrypto.so.3", "libdl.so.2", "libgcc_s.so.1", "libm.so.6",
    "libpthread.so.0", "librt.so.1", "libssl.so.3", "libstdc++.so.6",
}  # fmt: skip


def stages():
    """The Dockerfile's instructions, by stage; the first of each is its FROM."""
    with tempfile.TemporaryDirectory() as folder:
        parser = DockerfileParser(folder)
        parser.content = (ROOT / "Dockerfile").read_text()
        found = []
        for step in parser.structure:
            if step["instruction"] == "FROM":
                found.append([])
            if found:
                found[-1].append((step["instruction"], step["value"]))
        return found


def is_pinned(image):
    name, _, tag = image.rpartition(":")
    return bool(name) and tag not in ("", "latest")


def is_ignored(path):
    """Whether .dockerignore keeps a path from the build; a later line goes before an earlier one."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").strip("/")
        if line and not line.startswith("#") and fnmatch.fnmatch(Path(path).parts[0], pattern):
            ignored = not line.startswith("!")
    return ignored


class Image(unittest.TestCase):
    def setUp(self):
        self.build, self.final = stages()

    def values(self, stage, instruction):
        return [value for name, value in stage if name == instruction]

    def copied(self):
        """What comes from the project."""
        for value in self.values(self.build, "COPY"):
            yield from value.split()[:-1]

    def test_what_it_is_made_of_is_pinned_and_of_one_debian(self):
        build, final = self.build[0][1].split()[0], self.final[0][1]
        self.assertTrue(is_pinned(build) and is_pinned(final))
        self.assertIn("bookworm", build)
        self.assertIn("debian12", final)
        needed = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
        self.assertEqual(build.split(":")[1].split("-")[0], needed)

    def test_it_runs_as_nobody_and_has_no_shell(self):
        self.assertEqual(self.values(self.final, "USER"), ["65532:65532"])
        self.assertIn("distroless", self.final[0][1])
        self.assertEqual(self.values(self.final, "RUN"), [])
        for instruction in ("ENTRYPOINT", "CMD"):
            (value,) = self.values(self.final, instruction)
            self.assertIsInstance(json.loads(value), list)
        (copied,) = self.values(self.final, "COPY")
        (entry,) = json.loads(self.values(self.final, "ENTRYPOINT")[0])
        self.assertEqual(copied.split()[-1], entry)

    def test_its_habits_are_good(self):
        for stage in (self.build, self.final):
            self.assertEqual(self.values(stage, "ADD"), [])
            for value in self.values(stage, "WORKDIR"):
                self.assertTrue(value.startswith("/"))
            for value in self.values(stage, "RUN"):
                self.assertNotIn("sudo", value)
                if "apt-get install" in value:
                    for part in ("apt-get update", "-y", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*"):
                        self.assertIn(part, value)

    def test_what_is_copied_is_there_and_is_not_ignored(self):
        for path in self.copied():
            self.assertTrue((ROOT / path).exists(), path)
            self.assertFalse(is_ignored(path), f".dockerignore keeps {path} away")
        for path in ("target", ".git", ".services", "tests", "docs"):
            self.assertTrue(is_ignored(path), path)

    def test_the_sources_need_nothing_that_is_not_copied(self):
        folders = {(ROOT / path).resolve() for path in self.copied()}
        count = 0
        for source in (ROOT / "src").rglob("*.rs"):
            code = source.read_text().split("#[cfg(test)]\nmod tests {")[0]
            named = [source.parent / path for path in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', code)]
            named += [ROOT / path for path in re.findall(r'migrate!\("([^"]+)"\)', code)]
            for path in named:
                path = path.resolve()
                self.assertTrue(path.exists() and folders & {path, *path.parents}, f"{source}: {path} is not in the image's build")
                count += 1
        self.assertGreater(count, 3)

    def test_the_stubs_are_all_that_the_manifest_names(self):
        (stubs,) = [value for value in self.values(self.build, "RUN") if "touch src/lib.rs tests" in value]
        stubs = stubs.rsplit("&& cargo build", 1)[0]
        with tempfile.TemporaryDirectory() as folder:
            for name in ("Cargo.toml", "Cargo.lock"):
                (Path(folder) / name).write_text((ROOT / name).read_text())
            subprocess.run(["sh", "-c", stubs], cwd=folder, check=True)
            read = run("cargo", "metadata", "--no-deps", "--format-version", "1", "--locked", "--offline", cwd=folder)
            self.assertEqual(read.returncode, 0, read.stderr)
            targets = json.loads(read.stdout)["packages"][0]["targets"]
            found = {(kind, target["name"]) for target in targets for kind in target["kind"]}
        manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
        named = {(kind, target["name"]) for kind in ("test", "bench") for target in manifest[kind]}
        self.assertLessEqual(named | {("bin", "weir"), ("lib", "weir")}, found)

    def test_the_binary_needs_only_libraries_that_the_final_stage_has(self):
        linked = run("ldd", weir())
        needed = set(re.findall(r"([\w.+-]+\.so[.\d]*)", linked.stdout)) - {"linux-vdso.so.1"}
        self.assertIn("libc.so.6", needed)
        self.assertLessEqual(needed, SHARED)

    def test_its_command_is_one_of_weirs(self):
        (command,) = self.values(self.final, "CMD")
        command, option, _ = json.loads(command)
        usage = run(weir(), command, "--help")
        self.assertEqual(usage.returncode, 0)
        self.assertIn(option, usage.stdout)


class Composition(unittest.TestCase):
    def setUp(self):
        self.services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]

    def test_its_images_are_pinned_and_its_ports_local(self):
        self.assertLessEqual({"kafka", "postgres", "redis", "weir", "prometheus", "grafana"}, set(self.services))
        for name, service in self.services.items():
            self.assertTrue(is_pinned(service["image"]), name)
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), port)

    def test_what_it_mounts_and_waits_for_is_there(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                self.assertTrue((ROOT / volume.split(":")[0]).exists(), volume)
                self.assertTrue(volume.endswith(":ro"), volume)
            for dependency in service.get("depends_on", {}):
                self.assertIn(dependency, self.services, name)
                condition = service["depends_on"][dependency] if isinstance(service["depends_on"], dict) else {}
                if condition.get("condition") == "service_healthy":
                    self.assertIn("healthcheck", self.services[dependency])

    def test_weirs_commands_and_settings_are_weirs(self):
        for name in ("weir", "migrate"):
            service = self.services[name]
            command, option, path = service["command"]
            self.assertIn(option, run(weir(), command, "--help").stdout)
            (mount,) = service["volumes"]
            source, target, _ = mount.split(":")
            self.assertEqual(target, path)
            checked = run(weir(), "check", "--json", "--config", ROOT / source, env=service["environment"])
            self.assertEqual(checked.returncode, 0, checked.stderr)
            config = json.loads(checked.stdout)["config"]
            self.assertEqual(config["kafka"]["brokers"], ["kafka:9092"])
            self.assertEqual(config["store"]["url"], "postgres://weir:***@postgres/weir")
            self.assertEqual(config["redis"]["url"], "redis://redis:6379")
            self.assertEqual(config["health"]["listen"], "0.0.0.0:9464")
            self.assertEqual(config["pools"]["storage"]["topics"], [self.services["topics"]["command"][6]])

    def test_the_worker_has_time_to_stop(self):
        config = tomllib.loads((ROOT / "config/weir.toml").read_text())
        deadline = int(config["pools"]["storage"]["drain_deadline"].removesuffix("s"))
        self.assertGreaterEqual(int(self.services["weir"]["stop_grace_period"].removesuffix("s")), deadline + 10)

    def test_prometheus_and_grafana_find_what_is_mounted(self):
        def targets(name):
            return {volume.split(":")[1] for volume in self.services[name]["volumes"]}

        prometheus = yaml.safe_load((ROOT / "compose/prometheus.yml").read_text())
        self.assertLessEqual(set(prometheus["rule_files"]), targets("prometheus"))
        (job,) = prometheus["scrape_configs"]
        host, port = job["static_configs"][0]["targets"][0].split(":")
        self.assertTrue(self.services["weir"]["environment"]["WEIR__HEALTH__LISTEN"].endswith(f":{port}"))
        self.assertIn(host, self.services)
        checked = run("promtool", "check", "config", "--syntax-only", ROOT / "compose/prometheus.yml")
        self.assertEqual(checked.returncode, 0, checked.stderr)

        (source,) = yaml.safe_load((ROOT / "compose/grafana/datasources.yml").read_text())["datasources"]
        self.assertEqual((source["url"], source["type"]), ("http://prometheus:9090", "prometheus"))
        (provider,) = yaml.safe_load((ROOT / "compose/grafana/dashboards.yml").read_text())["providers"]
        self.assertIn(provider["options"]["path"], targets("grafana"))


if __name__ == "__main__":
    unittest.main()
