"""Two proxies with mutual TLS 1.3 between them: plaintext in at one, plaintext out at the other. Both are counted."""
import os
import pathlib

from . import certificates
from .place import ORIGIN, TARGET, UID, Proxy, Work, client, found

NEAR_ID, FAR_ID = "spiffe://bench.example/ns/near/sa/app", "spiffe://bench.example/ns/far/sa/app"
BULK, ECHO = 9000, 9001
#: nginx's streams are a module of their own on Debian (`libnginx-mod-stream`); without it nginx does not take part.
STREAMS = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
#: Where the far proxies other than Sidegate take the connections for `BULK` and `ECHO`.
TAKEN = {BULK: 15443, ECHO: 15444}


def load_bulk(proxy, size):
    amount = int(size * 2e9)
    client("bulk", "--bytes", int(5e7))
    before = proxy.cpu()
    done = client("bulk", "--bytes", amount)
    return (proxy.cpu() - before) / (done["operations"] / 1e9)


def load_small(proxy, size):
    client("small", "--exchanges", 1000)
    before = proxy.cpu()
    done = client("small", "--exchanges", int(size * 100_000))
    return (proxy.cpu() - before) / done["operations"] * 1e6


def load_tail(proxy, size):
    client("small", "--exchanges", 1000)
    return client("small", "--exchanges", int(size * 100_000), "--connections", 32)["p99Ms"]


def load_new(proxy, size):
    client("connect", "--count", 200)
    before = proxy.cpu()
    done = client("connect", "--count", int(size * 5_000))
    return (proxy.cpu() - before) / done["operations"] * 1e6


def sidegate(folder, _port):
    for name, identity in (("near", NEAR_ID), ("far", FAR_ID)):
        certificates.workload(folder, name, identity)
    (folder / "near-policy.yaml").write_text(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: near }\nspec:\n  egress:\n"
        f"    - {{ name: far, to: [ {{ workloads: [ \"{FAR_ID}\" ] }} ], ports: [ {BULK}, {ECHO} ], protocol: tcp, tls: {{ mode: mesh }} }}\n"
    )
    (folder / "far-policy.yaml").write_text(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: far }\nspec:\n  ingress:\n"
        f"    - {{ name: near, from: [ {{ workloads: [ \"{NEAR_ID}\" ] }} ], ports: [ {BULK}, {ECHO} ], protocol: tcp, tls: {{ mode: mesh }} }}\n"
    )
    (folder / "peers.yaml").write_text(
        f"apiVersion: sidegate.dev/v1\nkind: Peers\npeers:\n  - {{ id: \"{FAR_ID}\", addresses: [ {ORIGIN} ] }}\n"
    )
    for name, identity in (("near", NEAR_ID), ("far", FAR_ID)):
        peers = f"peers: {folder}/peers.yaml\n" if name == "near" else ""
        (folder / f"{name}.yaml").write_text(
            f"apiVersion: sidegate.dev/v1\nkind: ProxyConfig\nworkload: {identity}\npolicies: [ {folder}/{name}-policy.yaml ]\n{peers}"
            f"identity: {{ certificate: {folder}/{name}.pem, key: {folder}/{name}.key, bundle: {folder}/ca.pem }}\n"
            f"resolvers: [ \"10.99.0.2\" ]\naccessLog: {folder}/{name}.jsonl\nlog: {{ level: error }}\n"
        )
    serve = [TARGET / "sidegate-proxy", "serve", "--config"]
    return Proxy("sidegate", [*serve, folder / "near.yaml"], far=["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *serve, folder / "far.yaml"], far_port=15008)


def nginx(folder, port):
    for name, identity in (("near", NEAR_ID), ("far", FAR_ID)):
        certificates.workload(folder, name, identity)
    head = f"load_module {STREAMS}; " + "worker_processes 1; error_log {folder}/{name}.error error; pid {folder}/{name}.pid; daemon off; events {{ worker_connections 8192; }}\n"
    log = "log_format short '$remote_addr $status $bytes_sent $bytes_received'; access_log {folder}/{name}.log short;"
    near = (head + "stream {{ " + log + " server {{ listen 15001; proxy_pass {origin}:{taken}; proxy_ssl on; proxy_ssl_certificate {folder}/near.pem; "
            "proxy_ssl_certificate_key {folder}/near.key; proxy_ssl_protocols TLSv1.3; proxy_ssl_verify off; proxy_ssl_session_reuse off; }} }}\n")
    far = (head + "stream {{ " + log + " server {{ listen {taken} ssl; ssl_certificate {folder}/far.pem; ssl_certificate_key {folder}/far.key; "
           "ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_tickets off; proxy_pass {origin}:{port}; }} }}\n")
    for name, text in (("near-nginx", near), ("far-nginx", far)):
        (folder / f"{name}.conf").write_text(text.format(folder=folder, name=name, origin=ORIGIN, taken=TAKEN[port], port=port))
    return Proxy("nginx", ["nginx", "-c", folder / "near-nginx.conf"], far=["nginx", "-c", folder / "far-nginx.conf"], far_port=TAKEN[port])


def haproxy(folder, port):
    for name, identity in (("near", NEAR_ID), ("far", FAR_ID)):
        certificates.workload(folder, name, identity)
        both = folder / f"{name}.both"
        both.write_text((folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text())
        os.chmod(both, 0o644)
    head = ("global\n    maxconn 4000\n    nbthread 1\n    log stdout format raw local0 info\ndefaults\n    mode tcp\n    log global\n    option tcplog\n"
            "    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n")
    tls = "ssl-min-ver TLSv1.3"
    (folder / "near-haproxy.cfg").write_text(
        f"{head}listen near\n    bind 0.0.0.0:15001\n    server far {ORIGIN}:{TAKEN[port]} ssl crt {folder}/near.both verify required ca-file {folder}/ca.pem no-ssl-reuse {tls}\n"
    )
    (folder / "far-haproxy.cfg").write_text(
        f"{head}listen far\n    bind 0.0.0.0:{TAKEN[port]} ssl crt {folder}/far.both verify required ca-file {folder}/ca.pem no-tls-tickets {tls}\n    server app {ORIGIN}:{port}\n"
    )
    return Proxy("haproxy", ["haproxy", "-f", folder / "near-haproxy.cfg", "-db"], far=["haproxy", "-f", folder / "far-haproxy.cfg", "-db"], far_port=TAKEN[port])


ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: pair
          cluster: to
          access_log: [ {{ name: file, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {log} }} }} ]
{served}
  clusters:
  - name: to
    type: STATIC
    load_assignment: {{ cluster_name: to, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {origin}, port_value: {port} }} }} }} }} ] }} ] }}
{dialled}
"""
ENVOY_TLS = """{indent}transport_socket:
{indent}  name: tls
{indent}  typed_config:
{indent}    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}
{indent}    {more}
{indent}    common_tls_context:
{indent}      tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
{indent}      tls_certificates: [ {{ certificate_chain: {{ filename: {folder}/{name}.pem }}, private_key: {{ filename: {folder}/{name}.key }} }} ]
{indent}      validation_context: {{ trusted_ca: {{ filename: {folder}/ca.pem }}, match_typed_subject_alt_names: [ {{ san_type: URI, matcher: {{ exact: "{peer}" }} }} ] }}
"""


def envoy(folder, port):
    for name, identity in (("near", NEAR_ID), ("far", FAR_ID)):
        certificates.workload(folder, name, identity)
    dialled = ENVOY_TLS.format(indent="    ", kind="UpstreamTlsContext", more="max_session_keys: 0", folder=folder, name="near", peer=FAR_ID)
    served = ENVOY_TLS.format(indent="      ", kind="DownstreamTlsContext", more="require_client_certificate: true\n          disable_stateless_session_resumption: true", folder=folder, name="far", peer=NEAR_ID)
    (folder / "near-envoy.yaml").write_text(ENVOY.format(listen=15001, log=folder / "near-envoy.log", served="", origin=ORIGIN, port=TAKEN[port], dialled=dialled))
    (folder / "far-envoy.yaml").write_text(ENVOY.format(listen=TAKEN[port], log=folder / "far-envoy.log", served=served, origin=ORIGIN, port=port, dialled=""))
    start = lambda name: ["envoy", "-c", folder / f"{name}-envoy.yaml", "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
    return Proxy("envoy", start("near"), far=start("far"), far_port=TAKEN[port])


def proxies(port):
    def all_of(folder):
        made = [sidegate(folder, port), haproxy(folder, port)]
        if STREAMS.exists():
            made.append(nginx(folder, port))
        return made + [envoy(folder, port)] if found("envoy") else made

    return all_of


WORK = {
    "pair-bulk": Work(load_bulk, "CPU-s/GB, pair with mutual TLS", "envoy", None, proxies(BULK)),
    "pair-small": Work(load_small, "CPU us/exchange, pair", "envoy", None, proxies(ECHO)),
    "pair-new": Work(load_new, "CPU us/new connection, pair", "envoy", None, proxies(ECHO)),
    "pair-p99": Work(load_tail, "p99 ms of 32 connections, pair", "envoy", 8 / 9.8, proxies(ECHO)),
}
