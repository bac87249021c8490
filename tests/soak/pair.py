"""Two workloads with their sidecars, in two namespaces joined by a veth pair: `near` asks, `far` answers."""
import json
import pathlib
import subprocess

from identities import Authority, Files
from place import APP_UID, PROXY_UID, TARGET, sh, until

DOMAIN = "pair.example"
NEAR, FAR = "ns/pair/sa/near", "ns/pair/sa/far"
FAR4, FAR6 = "10.98.0.2", "fd98::2"
METRICS = 15020

NEAR_POLICY = f"""apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: near }}
spec:
  egress:
    - name: far
      to: [ {{ workloads: [ "spiffe://{DOMAIN}/{FAR}" ] }} ]
      ports: [ "9000-9002" ]
      protocol: tcp
      tls: {{ mode: mesh }}
"""
FAR_POLICY = f"""apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: far }}
spec:
  ingress:
    - name: near
      from: [ {{ workloads: [ "spiffe://{DOMAIN}/{NEAR}" ] }} ]
      ports: [ "9000-9002" ]
      protocol: tcp
      tls: {{ mode: mesh }}
"""

#: One exchange with the echo of an address.
ONCE = """
import socket, sys
s = socket.create_connection((sys.argv[1], 9001), 5); s.settimeout(5); s.sendall(b'ping'); assert s.recv(4) == b'ping'
"""


class Side:
    """A workload, its namespace and its sidecar."""

    def __init__(self, pair, name, end, policy):
        self.pair, self.name, self.end, self.policy = pair, name, end, policy
        self.netns = f"{pair.prefix}{name}"
        self.folder = pair.folder / name
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.identity = Files(self.folder / "identity", {"near": NEAR, "far": FAR}[name])
        self.proxy = None

    def inside(self, *command, uid=None):
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        return ["ip", "netns", "exec", self.netns, *user, *map(str, command)]

    def write(self, name, text):
        fresh = self.folder / f".{name}"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(self.folder / name)

    def configure(self):
        self.write("policy.yaml", self.policy)
        self.write("peers.yaml", "apiVersion: sidegate.dev/v1\nkind: Peers\npeers:\n"
                   f"  - {{ id: \"spiffe://{DOMAIN}/{FAR}\", addresses: [ {FAR4}, \"{FAR6}\" ] }}\n")
        files = self.identity.folder
        self.write("proxy.yaml", "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\n"
                   f"workload: spiffe://{DOMAIN}/{self.identity.path}\npolicies: [ policy.yaml ]\npeers: peers.yaml\n"
                   f"identity: {{ certificate: {files}/tls.crt, key: {files}/tls.key, bundle: {files}/ca.crt, revocations: [ {files}/revoked.crl ] }}\n"
                   f"resolvers: [ \"10.98.0.2\" ]\naccessLog: access.jsonl\nadmin: {{ socket: admin.sock }}\nlog: {{ format: json, level: info }}\n")

    def start(self):
        sh(*self.inside(TARGET / "sidegate-proxy", "init", "--uid", PROXY_UID))
        log = (self.folder / "proxy.log").open("a")
        command = self.inside(TARGET / "sidegate-proxy", "serve", "--config", self.folder / "proxy.yaml", uid=PROXY_UID)
        self.proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        until(self.ready, f"the proxy of {self.name} is ready")

    def ready(self):
        probe = self.inside(TARGET / "sidegate-proxy", "healthcheck", uid=PROXY_UID)
        return subprocess.run(probe, capture_output=True).returncode == 0

    def admin(self, path):
        return sh("curl", "-sS", "--unix-socket", self.folder / "admin.sock", f"http://admin{path}")

    def metric(self, name):
        """The sum of a metric's series."""
        text = sh(*self.inside("curl", "-sS", f"http://127.0.0.1:{METRICS}/metrics", uid=PROXY_UID))
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def peak_memory(self):
        """The proxy's greatest resident size so far, in KiB. `setpriv` has become the proxy by then."""
        status = pathlib.Path(f"/proc/{self.proxy.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

    def records(self):
        path = self.folder / "access.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stop(self):
        if self.proxy and self.proxy.poll() is None:
            self.proxy.terminate()
            self.proxy.wait(40)


class Pair:
    def __init__(self, folder, prefix):
        self.folder, self.prefix, self.parts = folder, prefix, []
        for parent in (folder, *folder.parents):
            if str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        self.root = Authority(DOMAIN)
        self.near, self.far = Side(self, "near", 1, NEAR_POLICY), Side(self, "far", 2, FAR_POLICY)
        self.sides = (self.near, self.far)

    def build(self):
        for side in self.sides:
            sh("ip", "netns", "add", side.netns)
            sh(*side.inside("ip", "link", "set", "lo", "up"))
        sh("ip", "link", "add", "up0", "netns", self.near.netns, "type", "veth", "peer", "name", "up0", "netns", self.far.netns)
        for side in self.sides:
            sh(*side.inside("ip", "addr", "add", f"10.98.0.{side.end}/24", "dev", "up0"))
            sh(*side.inside("ip", "addr", "add", f"fd98::{side.end}/64", "dev", "up0", "nodad"))
            sh(*side.inside("ip", "link", "set", "up0", "up"))
            side.identity.show(self.root)
            side.identity.believe(self.root)
            side.identity.revoke(self.root.revocations())
            side.configure()
        # The origin has ports below 1024, too.
        sh(*self.far.inside("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0"))
        origin = subprocess.Popen(self.far.inside(TARGET / "sidegate-peers", "origin", uid=APP_UID), stdout=subprocess.PIPE, text=True)
        assert "ready" in origin.stdout.readline()
        self.parts.append(origin)
        for side in self.sides:
            side.start()
        return self

    def close(self):
        for side in self.sides:
            side.stop()
        for part in self.parts:
            part.kill()
            part.wait()
        for side in self.sides:
            subprocess.run(["ip", "netns", "del", side.netns])
