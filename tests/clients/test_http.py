"""Plaintext HTTP through `sidegate run`: each request is judged, what leaves can be TLS 1.3."""
import json
import sys

from world import gated

HOST = "modern.example-shop.net"


def http_rule(extra, mode="none", ports="80, 443, 8082"):
    return (
        f'{{ name: api, reason: "the test", to: [ {{ hosts: [ {HOST} ] }} ], ports: [ {ports} ], protocol: http, '
        f"tls: {{ mode: {mode} }}{extra} }}"
    )


READS = http_rule(', http: [ { methods: [ GET ], paths: [ "/v1/**" ] } ]')


def test_each_request_of_a_connection_is_judged(world, tmp_path):
    urls = [f"http://{HOST}/v1/a?token=secret", f"http://{HOST}/v2/a", f"http://{HOST}/v1/x/../b"]
    seen = gated(world, tmp_path, [READS], ["curl", "-sS", "--path-as-is", "-w", "%{http_code} %{num_connects}\\n", *urls])
    assert seen.status == 0, seen
    assert "GET /v1/a?token=secret for" in seen.output and "GET /v1/b for" in seen.output, seen
    assert [line for line in seen.output.splitlines() if line[0].isdigit()] == ["200 1", "403 0", "200 0"], seen
    records = [record for record in seen.records if record["protocol"] == "http"]
    told = [(record["http"]["path"], record["http"]["status"], record["verdict"], record["reason"]) for record in records]
    assert told == [
        ("/v1/a", 200, "allowed", "rule-allows"), ("/v2/a", 403, "denied", "http-not-allowed"), ("/v1/b", 200, "allowed", "rule-allows"),
    ], seen
    assert "secret" not in json.dumps(seen.records) and "/v2/a" not in seen.requests, seen


def test_a_denied_method_is_told_why(world, tmp_path):
    seen = gated(world, tmp_path, [READS], ["curl", "-sS", "-d", "x=1", f"http://{HOST}/v1/a"])
    body = json.loads(seen.output)
    assert (body["verdict"], body["reason"], body["host"]) == ("denied", "http-not-allowed", HOST), seen
    assert not seen.requests, seen


def test_http2_in_plaintext_is_judged_by_stream(world, tmp_path):
    # One request a process: curl 7.88 can't reuse a connection of prior knowledge, with or without a proxy.
    ask = f"curl -sS --http2-prior-knowledge http://{HOST}:8082"
    seen = gated(world, tmp_path, [READS], ["sh", "-c", f"{ask}/v1/a && {ask}/v2/a"])
    allowed, denied = seen.output.splitlines()
    assert "over HTTP/2.0" in allowed and json.loads(denied)["reason"] == "http-not-allowed", seen
    assert "/v2/a" not in seen.requests, seen


def test_plaintext_leaves_as_tls_1_3(world, tmp_path):
    trust = {"SSL_CERT_FILE": str(world.folder / "ca.pem")}
    command = ["curl", "-sS", f"http://{HOST}:443/v1/a"]
    seen = gated(world, tmp_path, [http_rule("", mode="originate")], command, env=trust)
    assert "over TLSv1.3 HTTP/2.0" in seen.output, seen
    (record,) = [record for record in seen.records if record["protocol"] == "http"]
    assert (record["verdict"], record["tls"]["version"], record["http"]["status"]) == ("allowed", "1.3", 200), seen


def test_a_server_that_nobody_vouches_for_gets_no_request(world, tmp_path):
    seen = gated(world, tmp_path, [http_rule("", mode="originate")], ["curl", "-sS", f"http://{HOST}:443/v1/a"])
    assert json.loads(seen.output)["reason"] == "upstream-certificate", seen
    assert not seen.requests, seen


def test_inspected_clients_believe_the_run_and_each_request_is_judged(world, tmp_path):
    rule = f'{{ name: seen, to: [ {{ hosts: [ {HOST} ] }} ], ports: [ 443 ], tls: {{ mode: inspect }}, http: [ {{ methods: [ GET ], paths: [ "/v1/**" ] }} ] }}'
    trust = {"SSL_CERT_FILE": str(world.folder / "ca.pem")}
    fetch = "import requests; print([requests.get(f'https://%s/{path}').status_code for path in ('v1/a', 'v2/a')])" % HOST
    node = f"fetch('https://{HOST}/v1/n').then(async r => console.log(r.status, await r.text()))"
    for command, expected in (
        (["curl", "-sS", "-w", "%{http_code}", f"https://{HOST}/v1/a"], "200"),
        (["curl", "-sS", "-w", "%{http_code}", f"https://{HOST}/v2/a"], "403"),
        ([sys.executable, "-c", fetch], "[200, 403]"),
        (["node", "-e", node], "200"),
    ):
        seen = gated(world, tmp_path, [rule], command, env=trust)
        assert expected in seen.output, (command, seen)
        assert "/v2/a" not in seen.requests, seen
        assert all(record["tls"]["version"] == "1.3" for record in seen.records if record["protocol"] == "tls" and record["verdict"] == "allowed"), seen
    pinned = ["curl", "-sS", "--cacert", str(world.folder / "ca.pem"), f"https://{HOST}/v1/a"]
    seen = gated(world, tmp_path, [rule], pinned, env=trust)
    assert seen.status == 60 and not seen.requests, seen
    assert [record["reason"] for record in seen.of(HOST, "denied")] == ["inspection-refused"], seen
