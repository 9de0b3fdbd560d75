"""What the tests of this folder have in common: the project's files, Helm, and weir itself."""

import functools
import os
import pathlib
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/weir"
# What others define and the chart makes, by what it makes of it.
DEFINITIONS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "tests/deploy/crds").glob("*.yaml"))]
CI_FILES = sorted(CHART.glob("ci/*.yaml"))
PATIENCE_S = 120
# The oldest that the chart is for, and the newest whose schemas there are.
OLDEST, NEWEST = "1.27", "1.37"


def run(*command, **options):
    """A finished command; its output is text."""
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)


@functools.cache
def weir():
    """The binary that was built last."""
    built = [path for path in (ROOT / "target/release/weir", ROOT / "target/debug/weir") if path.exists()]
    if os.environ.get("WEIR_BIN"):
        return pathlib.Path(os.environ["WEIR_BIN"])
    if not built:
        raise AssertionError("no weir is built: run `make build`")
    return max(built, key=lambda path: path.stat().st_mtime)


def template(*values, args=(), release="test"):
    """What Helm makes of the chart: files and dicts of values, later ones over earlier ones."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, given in enumerate(values):
            if isinstance(given, dict):
                path = pathlib.Path(folder) / f"{number}.yaml"
                path.write_text(yaml.safe_dump(given), encoding="utf-8")
                given = path
            files += ["-f", given]
        if "--kube-version" not in args:
            args = ("--kube-version", f"{NEWEST}.0", *args)
        return run("helm", "template", release, CHART, "--namespace", "chat", *files, *args)


@functools.cache
def rendered_ci(path, *args):
    """The manifests of a CI file."""
    return manifests(template(path, args=args))


def manifests(done):
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(found, *kinds):
    return [manifest for manifest in found if manifest["kind"] in kinds]


def pod_specs(found):
    """The pods of all workloads and jobs."""
    return [manifest["spec"]["template"]["spec"] for manifest in of_kind(found, "Deployment", "StatefulSet", "Job")]


def leaves(value, path=()):
    """The paths and values of what is no object."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, (*path, key))
    else:
        yield path, value
