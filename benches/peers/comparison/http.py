"""Requests: a rule by host, and plaintext that becomes TLS 1.3, with kept connections and with a handshake each."""
import os, subprocess

from . import certificates
from .place import HOST, ORIGIN, TARGET, WORLD, Proxy, Work, client, found, inside, stop, wait_for_port

PLAIN, SEALED, SEALED_ONCE = 8080, 8446, 8447


def origin(folder):
    """nginx as the far end: three ports of small answers."""
    certificates.server(folder, HOST)
    tls = f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key; ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;"
    answer = 'location / { default_type text/plain; return 200 "' + "x" * 100 + '"; }'
    (folder / "origin.conf").write_text(
        f"worker_processes 1; pid {folder}/origin.pid; error_log stderr error; daemon off; user root; events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; keepalive_requests 100000000;\n"
        f"  server {{ listen {PLAIN}; {answer} }}\n"
        f"  server {{ listen {SEALED} ssl; {tls} {answer} }}\n"
        f"  server {{ listen {SEALED_ONCE} ssl; {tls} keepalive_timeout 0; {answer} }}\n}}\n"
    )
    return subprocess.Popen(inside(WORLD, "nginx", "-c", folder / "origin.conf"), stdout=subprocess.DEVNULL)


class Served(Proxy):
    """A proxy, with nginx at the far end."""

    def __init__(self, folder, *arguments, **named):
        super().__init__(*arguments, **named)
        self.folder = folder

    def __enter__(self):
        self.origin = origin(self.folder)
        wait_for_port(SEALED_ONCE, WORLD)
        return super().__enter__()

    def __exit__(self, *reason):
        super().__exit__(*reason)
        stop(self.origin)


def requests(port, count):
    def load(proxy, size):
        client("http", "--port", port, "--host", HOST, "--requests", 500)
        before = proxy.cpu()
        done = client("http", "--port", port, "--host", HOST, "--requests", int(size * count))
        return (proxy.cpu() - before) / done["operations"] * 1e6

    return load


def sidegate(folder, port, sealed):
    tls = "originate" if sealed else "none"
    (folder / "http.yaml").write_text(
        f"apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: bench }}\nspec:\n  egress:\n"
        f"    - {{ name: http, to: [ {{ hosts: [ {HOST} ] }} ], ports: [ {port} ], protocol: http, tls: {{ mode: {tls} }}, reason: comparison }}\n"
    )
    (folder / "http-sidegate.yaml").write_text(
        f"apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ {folder}/http.yaml ]\nresolvers: [ \"10.99.0.2\" ]\n"
        f"accessLog: {folder}/http-access.jsonl\nstate: {folder}\nlog: {{ level: error }}\n"
    )
    return [TARGET / "sidegate-proxy", "serve", "--config", folder / "http-sidegate.yaml"]


def nginx(folder, port, sealed):
    verified = (
        f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_name {HOST}; proxy_ssl_server_name on; "
        "proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;"
    )
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.error error; daemon off; events {{ worker_connections 4096; }}\n"
        f"http {{ access_log {folder}/nginx.log; keepalive_requests 100000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; "
        f"fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
        f"  upstream origin {{ server {ORIGIN}:{port}; keepalive 64; keepalive_requests 100000000; }}\n"
        f"  server {{ listen 15001 default_server; return 403; }}\n"
        f"  server {{ listen 15001; server_name {HOST}; location / {{ proxy_pass http{'s' if sealed else ''}://origin; proxy_http_version 1.1; "
        f'proxy_set_header Connection ""; proxy_set_header Host $host; {verified if sealed else ""} }} }}\n}}\n'
    )
    return ["nginx", "-c", folder / "nginx.conf"]


def haproxy(folder, port, sealed):
    tls = f"ssl verify required ca-file {folder}/ca.pem sni str({HOST}) verifyhost {HOST} ssl-min-ver TLSv1.3 no-ssl-reuse" if sealed else ""
    (folder / "http-haproxy.cfg").write_text(
        "global\n    maxconn 4000\n    nbthread 1\n    log stdout format raw local0 info\ndefaults\n    mode http\n    log global\n    option httplog\n"
        "    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n    http-reuse always\n"
        f"frontend captured\n    bind 0.0.0.0:15001\n    acl named hdr(host),field(1,:) -m str {HOST}\n    http-request deny unless named\n"
        f"    default_backend origin\nbackend origin\n    server any {ORIGIN}:{port} {tls}\n"
    )
    return ["haproxy", "-f", folder / "http-haproxy.cfg", "-db"]


ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 0.0.0.0, port_value: 15001 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: captured
          access_log: [ {{ name: file, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {log} }} }} ]
          route_config:
            virtual_hosts: [ {{ name: named, domains: [ "{host}", "{host}:*" ], routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: origin }} }} ] }} ]
          http_filters: [ {{ name: router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }} ]
  clusters:
  - name: origin
    type: STATIC
    load_assignment: {{ cluster_name: origin, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {origin}, port_value: {port} }} }} }} }} ] }} ] }}
{tls}
"""
ENVOY_TLS = """    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {host}
        max_session_keys: 0
        common_tls_context:
          tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
          validation_context: {{ trusted_ca: {{ filename: {ca} }}, match_typed_subject_alt_names: [ {{ san_type: DNS, matcher: {{ exact: {host} }} }} ] }}
"""


def envoy(folder, port, sealed):
    tls = ENVOY_TLS.format(host=HOST, ca=folder / "ca.pem") if sealed else ""
    (folder / "envoy.yaml").write_text(
        ENVOY.format(host=HOST, origin=ORIGIN, port=port, tls=tls, log=folder / "envoy.log")
    )
    return ["envoy", "-c", folder / "envoy.yaml", "--concurrency", "1", "-l", "error", "--disable-hot-restart"]


def proxies(port, sealed):
    def all_of(folder):
        certificates.server(folder, HOST)
        os.chmod(folder / "ca.pem", 0o644)
        trust = {"SSL_CERT_FILE": str(folder / "ca.pem")}
        made = [
            Served(folder, "sidegate", sidegate(folder, port, sealed), environment=trust),
            Served(folder, "nginx", nginx(folder, port, sealed)),
            Served(folder, "haproxy", haproxy(folder, port, sealed)),
        ]
        if found("envoy"):
            made.append(Served(folder, "envoy", envoy(folder, port, sealed)))
        return made

    return all_of


WORK = {
    "http": Work(requests(PLAIN, 60_000), "CPU us/request, HTTP with a host rule", "nginx", 19 / 19.3, proxies(PLAIN, False)),
    "originate": Work(requests(SEALED, 60_000), "CPU us/request, TLS 1.3 originated", "nginx", 23 / 24.1, proxies(SEALED, True)),
    "handshake": Work(requests(SEALED_ONCE, 4_000), "CPU us/request, full handshake each", "envoy", 400 / 659, proxies(SEALED_ONCE, True)),
}
