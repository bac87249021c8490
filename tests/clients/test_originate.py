"""Plaintext from clients that leaves as TLS 1.3, verified as the rule says: nginx and openssl s_server as origins."""
import base64
import hashlib
import subprocess

import pytest

from world import ELSEWHERE, gated, wait_until

HOST, OLD, OTHER = "modern.example-shop.net", "old.example-shop.net", "other.example-shop.net"


def sealed(host, port=443, more=""):
    return f'{{ name: sealed, to: [ {{ hosts: [ {host} ] }} ], ports: [ {port} ], protocol: tcp, tls: {{ mode: originate{more} }} }}'


def pin(world):
    spki = "openssl x509 -in origin.pem -noout -pubkey | openssl pkey -pubin -outform der"
    der = subprocess.run(["sh", "-c", spki], cwd=world.folder, check=True, capture_output=True).stdout
    return "sha256/" + base64.b64encode(hashlib.sha256(der).digest()).decode()


def asked(world, tmp_path, rule, url, *options):
    return gated(world, tmp_path, [rule], ["curl", "-sS", "--max-time", "20", url], options=options)


def told(seen, host):
    """Of a connection: of several, tried over IPv6 and IPv4, the last."""
    return [record for record in seen.records if record.get("host") == host and record["protocol"] != "dns"][-1]


def test_opaque_bytes_leave_as_tls_1_3(world, tmp_path):
    seen = asked(world, tmp_path, sealed(HOST, more=", roots: shop"), f"http://{HOST}:443/v1/a", "--roots", f"shop={world.folder}/ca.pem")
    assert "over TLSv1.3 HTTP/1.1" in seen.output, seen
    record = told(seen, HOST)
    assert (record["verdict"], record["protocol"], record["tls"]["version"]) == ("allowed", "tcp", "1.3"), seen


@pytest.mark.parametrize("right", [True, False])
def test_a_pin_lets_its_key_alone_pass(world, tmp_path, right):
    pinned = pin(world) if right else "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    rule = sealed(HOST, more=f', roots: shop, pins: [ "{pinned}" ]')
    seen = asked(world, tmp_path, rule, f"http://{HOST}:443/", "--roots", f"shop={world.folder}/ca.pem")
    assert ("over TLSv1.3" in seen.output) == right, seen
    assert told(seen, HOST)["reason"] == ("rule-allows" if right else "upstream-pin"), seen
    assert bool(seen.requests) == right, seen


def test_tls_1_2_alone_is_refused(world, tmp_path):
    seen = asked(world, tmp_path, sealed(OLD, more=", roots: shop"), f"http://{OLD}:443/", "--roots", f"shop={world.folder}/ca.pem")
    assert told(seen, OLD)["reason"] == "tls-version-server" and not seen.requests, seen


def test_without_its_roots_the_server_is_not_believed(world, tmp_path):
    seen = asked(world, tmp_path, sealed(HOST), f"http://{HOST}:443/")
    assert told(seen, HOST)["reason"] == "upstream-certificate" and not seen.requests, seen


def test_an_unknown_label_is_denied_and_said_at_the_start(world, tmp_path):
    seen = asked(world, tmp_path, sealed(HOST, more=", roots: nobody"), f"http://{HOST}:443/")
    assert "names the roots `nobody`, which are not configured" in seen.errors, seen
    assert (told(seen, HOST)["verdict"], told(seen, HOST)["reason"]) == ("denied", "not-supported") and not seen.requests, seen


def test_a_self_signed_server_and_one_of_another_name_get_nothing(world, tmp_path):
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x -keyout self.key -out self.pem -addext subjectAltName=DNS:%s"
    for port, name, roots in ((8443, OTHER, "ca.pem"), (8444, "elsewhere.example-shop.net", "self.pem")):
        subprocess.run((make % name).split(), cwd=tmp_path, check=True, capture_output=True)
        log = tmp_path / f"heard-{port}"
        with log.open("w") as heard:
            server = subprocess.Popen(
                world.command("openssl", "s_server", "-accept", f"{ELSEWHERE}:{port}", "-cert", "self.pem", "-key", "self.key", "-quiet"),
                cwd=tmp_path, stdin=subprocess.PIPE, stdout=heard, stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: world.listens(port), "s_server listens")
            file = world.folder / roots if roots == "ca.pem" else tmp_path / roots
            seen = asked(world, tmp_path, sealed(OTHER, port, ", roots: shop"), f"http://{OTHER}:{port}/", "--roots", f"shop={file}")
            assert told(seen, OTHER)["reason"] == "upstream-certificate", seen
            assert "GET" not in log.read_text()
        finally:
            server.stdin.close()
            server.terminate()
            server.wait(20)
