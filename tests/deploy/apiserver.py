"""A Kubernetes API server of one test run, on free ports of 127.0.0.1."""

import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import yaml
from tools import PATIENCE_S

TOKEN = "a-token-for-the-time-of-the-tests"


def free_ports(count):
    """Ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Server:
    """etcd and kube-apiserver, until `stop`."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="weir-k8s-"))
        self.children = []
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self):
        client, peer, secure = free_ports(3)
        etcd, self.url = f"http://127.0.0.1:{client}", f"https://127.0.0.1:{secure}"
        self.spawn(
            "etcd", f"--data-dir={self.dir}/etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        )  # fmt: skip
        key = self.dir / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self.dir / "tokens.csv").write_text(f"{TOKEN},tester,1,system:masters\n")
        self.spawn(
            "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", f"--secure-port={secure}",
            f"--cert-dir={self.dir}/certificates", "--endpoint-reconciler-type=none", "--authorization-mode=RBAC",
            f"--token-auth-file={self.dir}/tokens.csv", "--service-account-issuer=https://weir.test",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.until("the API server to be ready", lambda: self.call("GET", "/readyz")[0] == 200)
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        self.kubeconfig = self.dir / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def spawn(self, name, *args):
        with open(self.dir / f"{name}.log", "w", encoding="utf-8") as log:
            self.children.append(subprocess.Popen([name, *args], cwd=self.dir, stdout=log, stderr=log))

    def until(self, what, is_so):
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            ended = [child.args[0] for child in self.children if child.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in self.dir.glob("*.log"))
                raise AssertionError(f"{what}: ended are {ended}\n{logs}")
            time.sleep(0.2)

    def call(self, method, path, body=None, kind="application/json"):
        """The status and the answer; 0 while nothing listens."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=PATIENCE_S) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if text.startswith("{") else text
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, None

    def stop(self):
        for child in reversed(self.children):
            child.terminate()
            try:
                child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def path_of(manifest, namespace):
    """Where resources of a manifest's kind are."""
    version, kind = manifest["apiVersion"], manifest["kind"].lower()
    plural = kind[:-1] + "ies" if kind.endswith("cy") else kind + "s"
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    scope = "" if kind in ("namespace", "customresourcedefinition") else f"/namespaces/{namespace}"
    return f"{base}{scope}/{plural}"
