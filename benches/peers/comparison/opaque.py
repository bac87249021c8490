"""Opaque connections and TLS that passes through: what a gate costs that opens nothing."""
import subprocess, sys, time

from .place import APP, HOST, ORIGIN, TARGET, Proxy, Work, as_proxy, client, inside, start, stop


def work_bulk(proxy, size):
    amount = int(size * 4e9)
    client("bulk", "--bytes", int(5e7))
    before = proxy.cpu()
    done = client("bulk", "--bytes", amount)
    return (proxy.cpu() - before) / (done["operations"] / 1e9)


def work_small(proxy, size):
    client("small", "--exchanges", 1000)
    before = proxy.cpu()
    done = client("small", "--exchanges", int(size * 200_000))
    return (proxy.cpu() - before) / done["operations"] * 1e6


def work_new(proxy, size):
    client("new", "--host", HOST, "--count", 200)
    before = proxy.cpu()
    done = client("new", "--host", HOST, "--count", int(size * 20_000))
    stalled = done["over900Ms"]
    if stalled:
        print(f"  {proxy.name}: {stalled} of {done['operations']} connections waited 0.9 s or more", file=sys.stderr)
    return (proxy.cpu() - before) / done["operations"] * 1e6


def work_idle(proxy, size):
    count = int(size * 2000)
    before = proxy.pss()
    holder = start(inside(APP, TARGET / "sidegate-peers", "client", "idle", "--count", count, "--to", ORIGIN), "held")
    held = proxy.pss()
    stop(holder)
    return (held - before) / count


def work_rest(proxy, _size):
    return proxy.pss() / 1024


def work_start(proxy, _size):
    proxy.__exit__()
    began = time.monotonic()
    proxy.parts = [proxy._start(as_proxy(*proxy.command))]
    probe = [TARGET / "sidegate-peers", "client", "small", "--exchanges", "1", "--connections", "1", "--to", ORIGIN]
    while subprocess.run(inside(APP, *probe), capture_output=True).returncode:
        pass
    return (time.monotonic() - began) * 1000


POLICY = f"""apiVersion: sidegate.dev/v1
kind: Policy
metadata: {{ name: bench }}
spec:
  egress:
    - name: opaque
      reason: "bulk and echo load of the comparison"
      to: [ {{ cidrs: [ {ORIGIN}/32 ] }} ]
      ports: [ "9000-9002" ]
      protocol: tcp
      tls: {{ mode: none }}
    - name: named
      to: [ {{ hosts: [ {HOST} ] }} ]
      ports: [ 443 ]
"""

HAPROXY = f"""global
    maxconn 4000
    nbthread 1
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    option splice-request
    option splice-response
frontend captured
    bind 0.0.0.0:15001
    tcp-request inspect-delay 5s
    acl opaque dst_port 9000:9002
    acl tls req.ssl_hello_type 1
    acl named req.ssl_sni -m str {HOST}
    tcp-request connection set-dst-port dst_port
    tcp-request content accept if opaque
    tcp-request content accept if tls named
    tcp-request content reject if WAIT_END
    use_backend origin
    default_backend origin
backend origin
    server any {ORIGIN}
"""


def proxies(folder):
    config = folder / "sidegate.yaml"
    (folder / "policy.yaml").write_text(POLICY)
    config.write_text(
        f"apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ {folder}/policy.yaml ]\nresolvers: [ \"10.99.0.2\" ]\n"
        f"accessLog: {folder}/access.jsonl\nstate: {folder}\nlog: {{ level: error }}\n"
    )
    (folder / "haproxy.cfg").write_text(HAPROXY)
    folder.chmod(0o777)
    relay = TARGET / "sidegate-peers"
    return [
        Proxy("sidegate", [TARGET / "sidegate-proxy", "serve", "--config", config]),
        Proxy("haproxy", ["haproxy", "-f", folder / "haproxy.cfg", "-db", "-q"]),
        Proxy("bare splice", [relay, "relay", "--listen", "0.0.0.0:15001", "--to", f"{ORIGIN}:0"], only={"bulk", "rest"}),
        Proxy("bare copy", [relay, "relay", "--listen", "0.0.0.0:15001", "--to", f"{ORIGIN}:0", "--copy", 65536], only={"small", "new", "idle"}),
    ]


WORK = {
    "rest": Work(work_rest, "MiB PSS at rest", "haproxy", 8 / 9.5, proxies),
    "bulk": Work(work_bulk, "CPU-s/GB, opaque bulk", "haproxy", 0.28 / 0.325, proxies),
    "small": Work(work_small, "CPU us/exchange, opaque", "haproxy", 15.5 / 16.4, proxies),
    "new": Work(work_new, "CPU us/connection, SNI rule", "haproxy", 90 / 105, proxies),
    "idle": Work(work_idle, "KiB PSS per idle connection", "haproxy", 3 / 3.5, proxies),
    "start": Work(work_start, "ms from exec to first byte relayed", "haproxy", 20 / 14, proxies),
}
