"""Real TLS clients through `sidegate run`: allowed by exactly the rule they need, denied without it."""
import os
import pathlib
import sys

import pytest

from world import ELSEWHERE, V4, V6, gated, tls_rule

HOST = "modern.example-shop.net"
OLD = "old.example-shop.net"
FETCH = "fetch(process.argv[1]).then(async r => console.log(await r.text())).catch(e => { console.error(e.cause ?? e); process.exit(7) })"
REQUESTS = "import requests, sys; print(requests.get(sys.argv[1], timeout=30).text)"


def clients(folder, host, ca):
    url = f"https://{host}/"
    node_ca = {"NODE_EXTRA_CA_CERTS": ca}
    return {
        "curl-h1": (["curl", "-sS", "--http1.1", "--cacert", ca, url], {}),
        "curl-h2": (["curl", "-sS", "--http2", "--cacert", ca, url], {}),
        "curl-ipv4": (["curl", "-sS", "-4", "--cacert", ca, url], {}),
        "curl-ipv6": (["curl", "-sS", "-6", "--cacert", ca, url], {}),
        "openssl": (["sh", "-c", f"printf 'GET / HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error -CAfile {ca} -connect {host}:443 -servername {host}"], {}),
        "requests": ([sys.executable, "-c", REQUESTS, url], {"REQUESTS_CA_BUNDLE": ca}),
        "node": (["node", "-e", FETCH, url], node_ca),
        "git": (["sh", "-c", f"rm -rf {folder}/clone && git clone -q https://{host}/git/shop.git {folder}/clone && echo hello from {host} over TLSv1.3 && cat {folder}/clone/README"], {"GIT_SSL_CAINFO": ca}),
    }


NAMES = list(clients(pathlib.Path("/"), HOST, "x"))


@pytest.mark.parametrize("name", NAMES)
def test_allowed_with_its_rule(world, tmp_path, name):
    command, env = clients(tmp_path, HOST, str(world.folder / "ca.pem"))[name]
    seen = gated(world, tmp_path, [tls_rule(HOST)], command, env)
    assert seen.status == 0, seen
    assert f"hello from {HOST} over TLSv1.3" in seen.output, seen
    connections = [record for record in seen.of(HOST, "allowed") if record["protocol"] == "tls"]
    assert connections, seen
    for record in connections:
        assert record["reason"] == "rule-allows" and record["rule"] == "web" and record["tls"]["version"] == "1.3", seen
        assert record["upstream"].rsplit(":", 1)[0].strip("[]") in (V4, V6), seen
    assert not [record for record in seen.records if record["verdict"] == "denied" and record["protocol"] == "tls"], seen


@pytest.mark.parametrize("name", NAMES)
def test_denied_without_its_rule(world, tmp_path, name):
    command, env = clients(tmp_path, HOST, str(world.folder / "ca.pem"))[name]
    seen = gated(world, tmp_path, [tls_rule("other.example-shop.net")], command, env)
    assert seen.status != 0, seen
    assert HOST not in seen.questions, "the resolver was asked for a denied name"
    assert not seen.requests, seen
    denied = seen.of(HOST, "denied")
    assert denied and {record["reason"] for record in denied} == {"name-not-allowed"}, seen
    assert HOST in seen.errors, "the summary names the denied host"


@pytest.mark.parametrize("name", NAMES)
def test_control_without_sidegate_the_client_gets_through(world, tmp_path, name):
    """The negative control: it is the policy that denies, not the world."""
    command, env = clients(tmp_path, HOST, str(world.folder / "ca.pem"))[name]
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{V4} {HOST}\n{V6} {HOST}\n127.0.0.1 localhost\n")
    mounted = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts]
    if os.geteuid() != 0:
        mounted = ["unshare", "--user", "--map-root-user", *mounted[1:]]
    done = world.run(*mounted, *command, env={**os.environ, **env})
    assert done.returncode == 0 and f"hello from {HOST}" in done.stdout, done


def test_tls12_server_is_refused_before_application_data(world, tmp_path):
    ca = str(world.folder / "ca.pem")
    seen = gated(world, tmp_path, [tls_rule(OLD)], ["curl", "-sS", "--cacert", ca, f"https://{OLD}/"])
    assert seen.status == 35, seen
    assert "protocol version" in seen.errors, seen
    (record,) = [record for record in seen.of(OLD, "denied") if record["protocol"] == "tls"]
    assert record["reason"] == "tls-version-server", seen
    assert not seen.requests, seen


def test_tls12_server_passes_by_named_exemption_and_is_recorded(world, tmp_path):
    ca = str(world.folder / "ca.pem")
    rule = tls_rule(OLD, ', tls: { mode: passthrough, min: "1.2" }')
    seen = gated(world, tmp_path, [rule], ["curl", "-sS", "--cacert", ca, f"https://{OLD}/"])
    assert seen.status == 0 and "over TLSv1.2" in seen.output, seen
    (record,) = [record for record in seen.of(OLD, "allowed") if record["protocol"] == "tls"]
    assert record["tls"]["version"] == "1.2", seen


def test_client_that_offers_only_tls12_is_refused(world, tmp_path):
    ca = str(world.folder / "ca.pem")
    seen = gated(world, tmp_path, [tls_rule(HOST)], ["curl", "-sS", "--tls-max", "1.2", "--cacert", ca, f"https://{HOST}/"])
    assert seen.status == 35, seen
    (record,) = [record for record in seen.of(HOST, "denied") if record["protocol"] == "tls"]
    assert record["reason"] == "tls-version-client", seen


def test_allowed_name_at_a_foreign_address_reaches_only_the_real_one(world, tmp_path):
    ca = str(world.folder / "ca.pem")
    command = ["curl", "-sS", "--cacert", ca, "--resolve", f"{HOST}:443:{ELSEWHERE}", f"https://{HOST}/"]
    seen = gated(world, tmp_path, [tls_rule(HOST)], command)
    assert seen.status == 0 and f"hello from {HOST}" in seen.output, seen
    (record,) = [record for record in seen.of(HOST, "allowed") if record["protocol"] == "tls"]
    assert record["originalDst"] == f"{ELSEWHERE}:443" and record["upstream"] != record["originalDst"], seen


def test_wrong_name_at_an_allowed_address_is_refused(world, tmp_path):
    ca = str(world.folder / "ca.pem")
    name = "evil.example-shop.net"
    command = ["curl", "-sS", "--cacert", ca, "--resolve", f"{name}:443:{V4}", f"https://{name}/"]
    seen = gated(world, tmp_path, [tls_rule(HOST)], command)
    assert seen.status == 35, seen
    (record,) = seen.of(name, "denied")
    assert record["reason"] == "no-rule" and not seen.requests, seen


def test_plaintext_http_to_an_allowed_host_gets_an_explaining_403(world, tmp_path):
    seen = gated(world, tmp_path, [tls_rule(HOST, "").replace("443", "80")], ["curl", "-sS", "-i", f"http://{HOST}/"])
    assert "403" in seen.output and '"verdict":"denied"' in seen.output.replace(" ", ""), seen
    (record,) = [record for record in seen.of(HOST, "denied") if record["protocol"] == "http"]
    assert record["reason"] in ("tls-required", "protocol-mismatch"), seen


def test_quic_is_refused_at_once(world, tmp_path):
    code = "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect((sys.argv[1], 443))\ntry:\n s.send(b'x'); s.recv(9); print('answered')\nexcept OSError as e:\n print(type(e).__name__)"
    seen = gated(world, tmp_path, [tls_rule(HOST)], [sys.executable, "-c", code, V4])
    assert seen.output.strip() in ("ConnectionRefusedError", "PermissionError", "OSError"), seen
    (record,) = [record for record in seen.records if record["protocol"] == "udp"]
    assert record["reason"] == "udp-refused" and record["originalDst"] == f"{V4}:443", seen
