"""cargo and pip fetch one package each from whatever registries this machine is set up for.

No registry is named here: an audit run shows which names the client needs, those become the rules, and the enforced run
must pass with exactly them and fail when one is taken away.
"""
import json
import os
import subprocess
import sys

import pytest

from world import SIDEGATE, policy


def fetch(client, folder):
    if client == "pip":
        return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "--isolated", "-d", str(folder / "wheels"), "six==1.16.0"], {"PIP_FIND_LINKS": ""}
    (folder / "src").mkdir()
    (folder / "src" / "lib.rs").write_text("")
    (folder / "Cargo.toml").write_text('[package]\nname = "fetches"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nitoa = "=1.0.11"\n[workspace]\n')
    return ["cargo", "fetch", "-q", "--manifest-path", str(folder / "Cargo.toml")], {"CARGO_HOME": str(folder / "cargo")}


def gated(folder, rules, client, *options):
    work = folder / f"run{len(list(folder.iterdir()))}"
    work.mkdir()
    (work / "policy.yaml").write_text(policy(*rules))
    command, env = fetch(client, work)
    log = work / "access.jsonl"
    if client == "cargo":
        env["RUSTUP_TOOLCHAIN"] = os.environ.get("RUSTUP_TOOLCHAIN", "")
        env = {name: value for name, value in env.items() if value}
    done = subprocess.run(
        [SIDEGATE, "run", "--policy", work / "policy.yaml", "--access-log", log, *options, "--", *command],
        text=True, capture_output=True, timeout=300, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
    )
    return done, [json.loads(line) for line in log.read_text().splitlines()]


def rule(host):
    return f'{{ name: {host.replace(".", "-")}, to: [ {{ hosts: [ "{host}" ], private: true }} ], ports: [ 443 ] }}'


UNRELATED = '{ name: unrelated, to: [ { hosts: [ "unrelated.invalid" ] } ], ports: [ 443 ] }'


@pytest.mark.parametrize("client", ["pip", "cargo"])
def test_fetches_with_exactly_its_rules(tmp_path, client):
    done, records = gated(tmp_path, [UNRELATED], client, "--mode", "audit")
    assert done.returncode == 0, done.stderr
    hosts = sorted({record["host"] for record in records if record["protocol"] == "tls" and record["verdict"] == "would-deny"})
    assert hosts, records

    done, records = gated(tmp_path, [rule(host) for host in hosts], client)
    assert done.returncode == 0, (done.stderr, records)
    assert {record["host"] for record in records if record["protocol"] == "tls" and record["verdict"] == "allowed"} == set(hosts), records

    for gone in hosts:
        done, records = gated(tmp_path, [rule(host) for host in hosts if host != gone] or [UNRELATED], client)
        assert done.returncode != 0, f"{client} got through without the rule for {gone}"
        denied = [record for record in records if record.get("host") == gone]
        assert denied and {record["verdict"] for record in denied} == {"denied"}, records
        assert gone in done.stderr, "the summary names what was denied"
