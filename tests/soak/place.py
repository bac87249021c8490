"""A place for a sidecar: namespace `app` behind the redirect rules, namespace `world` with what it may and may not reach.

Needs root: the proxy runs as the exempt uid 1337, the application as another. Both namespaces are made here and go away
with the test; addresses look public but exist only inside them.
"""
import json
import os
import pathlib
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("SIDEGATE_PROFILE", "debug")
ALLOWED, FORBIDDEN = "93.184.216.10", "93.184.216.66"
ALLOWED6, FORBIDDEN6 = "2606:2800:21f:cb07::10", "2606:2800:21f:cb07::66"
HOST = "origin.example-shop.net"
PROXY_UID, APP_UID = 1337, 1000

POLICY = """apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: soak }}
spec:
  egress:
    - name: echo
      reason: "the load of this test"
      to: [ {{ cidrs: [ {allowed}/32, "{allowed6}/128" ] }} ]
      ports: [ "9000-9002" ]
      protocol: tcp
      tls: {{ mode: none }}
    - name: named
      to: [ {{ hosts: [ {host} ] }} ]
      ports: [ 443, 8443 ]
{more}"""


def until(condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        signal.sigtimedwait([], 0.005)


def sh(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Place:
    def __init__(self, folder):
        assert os.geteuid() == 0, "this suite needs root: the proxy and the application run as two users"
        self.folder, self.parts, self.proxy = folder, [], None
        self.app, self.world = f"sg-soak-a{os.getpid()}", f"sg-soak-w{os.getpid()}"
        for parent in (folder, *folder.parents):
            if str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        folder.chmod(0o777)

    def inside(self, netns, *command, uid=None):
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        return ["ip", "netns", "exec", netns, *user, *map(str, command)]

    def build(self):
        for netns in (self.app, self.world):
            sh("ip", "netns", "add", netns)
            sh(*self.inside(netns, "ip", "link", "set", "lo", "up"))
        sh("ip", "link", "add", "up0", "netns", self.app, "type", "veth", "peer", "name", "up0", "netns", self.world)
        for netns, end in ((self.app, 1), (self.world, 2)):
            sh(*self.inside(netns, "ip", "addr", "add", f"10.99.0.{end}/24", "dev", "up0"))
            sh(*self.inside(netns, "ip", "addr", "add", f"fd99::{end}/64", "dev", "up0", "nodad"))
            sh(*self.inside(netns, "ip", "link", "set", "up0", "up"))
        sh(*self.inside(self.app, "ip", "route", "add", "default", "via", "10.99.0.2"))
        sh(*self.inside(self.app, "ip", "-6", "route", "add", "default", "via", "fd99::2"))
        for address in (f"{ALLOWED}/32", f"{FORBIDDEN}/32"):
            sh(*self.inside(self.world, "ip", "addr", "add", address, "dev", "lo"))
        for address in (f"{ALLOWED6}/128", f"{FORBIDDEN6}/128"):
            sh(*self.inside(self.world, "ip", "addr", "add", address, "dev", "lo", "nodad"))
        peers = TARGET / "sidegate-peers"
        self.spawn(self.inside(self.world, peers, "resolver", "--listen", "10.99.0.2:53", "--answer", ALLOWED))
        self.spawn(self.inside(self.world, peers, "origin"))
        self.watch_forbidden()
        self.rules()
        self.write_policy()
        self.write_config()
        return self

    def watch_forbidden(self):
        """Counts every packet of any kind that reaches a forbidden address: the far end's own witness."""
        table = f"""table inet witness {{
            counter hits {{ }}
            chain seen {{
                type filter hook prerouting priority raw
                ip daddr {FORBIDDEN} counter name hits
                ip6 daddr {FORBIDDEN6} counter name hits
            }}
        }}"""
        sh(*self.inside(self.world, "nft", "-f", "-"), input=table)

    def forbidden_packets(self):
        shown = json.loads(sh(*self.inside(self.world, "nft", "-j", "list", "counters")))
        return sum(part["counter"]["packets"] for part in shown["nftables"] if "counter" in part)

    def rules(self):
        sh(*self.inside(self.app, TARGET / "sidegate-proxy", "init", "--uid", PROXY_UID))

    def narrow_ports(self):
        """The application has 10,000 source ports, so that they come back within seconds."""
        sh(*self.inside(self.app, "sysctl", "-qw", "net.ipv4.ip_local_port_range=30000 40000"))
        sh(*self.inside(self.app, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1"))

    def lost_insertions(self):
        """Flows of the application that conntrack dropped since another CPU had just taken in the same four-tuple (ADR 3)."""
        names, *counts = sh(*self.inside(self.app, "cat", "/proc/net/stat/nf_conntrack")).splitlines()
        column = names.split().index("insert_failed")
        return sum(int(line.split()[column], 16) for line in counts)

    def origins(self):
        """Several addresses that the one name is asked for at."""
        return [ALLOWED, "93.184.216.11", "93.184.216.12", "93.184.216.13"]

    def remove_rules(self):
        said = sh(*self.inside(self.app, TARGET / "sidegate-proxy", "init", "--remove"))
        assert "puts them back within a second" in said

    def write_policy(self, more="", name="policy.yaml"):
        text = POLICY.format(allowed=ALLOWED, allowed6=ALLOWED6, host=HOST, more=more)
        fresh = self.folder / "next"
        fresh.write_text(text)
        os.replace(fresh, self.folder / name)

    def write_config(self):
        (self.folder / "sidegate.yaml").write_text(
            "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\n"
            f"policies: [ {self.folder}/policy.yaml ]\nresolvers: [ \"10.99.0.2\" ]\n"
            f"accessLog: {self.folder}/access.jsonl\nadmin: {{ socket: {self.folder}/admin.sock }}\n"
            f"state: {self.folder}\nlog: {{ format: json, level: info }}\n"
        )

    def spawn(self, command):
        part = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert "ready" in part.stdout.readline(), command
        self.parts.append(part)

    def start_proxy(self):
        log = (self.folder / "proxy.log").open("a")
        command = self.inside(self.app, TARGET / "sidegate-proxy", "serve", "--config", self.folder / "sidegate.yaml", uid=PROXY_UID)
        self.proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self.ready, "the proxy is ready")

    def ready(self):
        probe = self.inside(self.app, TARGET / "sidegate-proxy", "healthcheck", uid=PROXY_UID)
        return subprocess.run(probe, capture_output=True).returncode == 0

    def admin(self, path):
        return sh("curl", "-sS", "--unix-socket", self.folder / "admin.sock", f"http://admin{path}")

    def generation(self):
        return json.loads(self.admin("/policy"))["applied"]["generation"]

    def allows(self, host):
        return f"turn-{host[1:].split('.')[0]}" in self.admin(f"/explain?host={host}&port=443")

    def kill_proxy(self):
        self.proxy.kill()
        self.proxy.wait()

    def client(self, *arguments):
        done = subprocess.run(
            self.inside(self.app, TARGET / "sidegate-peers", "client", *arguments, uid=APP_UID), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def records(self):
        path = self.folder / "access.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def close(self):
        if self.proxy and self.proxy.poll() is None:
            self.proxy.terminate()
            self.proxy.wait(40)
        for part in self.parts:
            part.kill()
            part.wait()
        for netns in (self.app, self.world):
            subprocess.run(["ip", "netns", "del", netns])
