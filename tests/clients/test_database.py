"""PostgreSQL by host rule with `protocol: tcp`: the name carries the permission by a synthetic address."""
import os
import pathlib
import pwd
import shutil
import subprocess

import pytest

from world import DATABASE, gated, wait_until

HOST = "db.example-shop.net"
RULE = '{ name: database, reason: "PostgreSQL negotiates TLS inside its protocol", to: [ { hosts: [ "%s" ] } ], ports: [ 5432 ], protocol: tcp, tls: { mode: none } }' % HOST


@pytest.fixture(scope="module")
def database(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("postgres")
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else pathlib.Path(shutil.which("initdb")).parent
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("postgres")
        as_user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in (folder, *folder.parents):
            if str(parent).startswith("/tmp/"):
                parent.chmod(parent.stat().st_mode | 0o711)
    subprocess.run([*as_user, programs / "initdb", "-A", "trust", "-U", "shop", "-D", folder / "data"], check=True, capture_output=True, cwd=folder)
    with (folder / "data" / "pg_hba.conf").open("a") as access:
        access.write("host all all all trust\n")
    options = ["-c", f"listen_addresses={DATABASE}", "-k", folder]
    world.start(*as_user, programs / "postgres", "-D", folder / "data", *options, cwd=folder)
    wait_until(lambda: world.run("psql", "-h", DATABASE, "-U", "shop", "-d", "postgres", "-c", "select 1").returncode == 0, "PostgreSQL answers")
    return HOST


def query(host):
    return ["psql", f"host={host} user=shop dbname=postgres connect_timeout=20", "-Atc", "select 'rows ' || count(*) from generate_series(1, 1000)"]


def test_by_name(world, database, tmp_path):
    seen = gated(world, tmp_path, [RULE], query(HOST))
    assert seen.status == 0 and seen.output.strip() == "rows 1000", seen
    (record,) = [record for record in seen.of(HOST, "allowed") if record["protocol"] == "tcp"]
    assert record["upstream"] == f"{DATABASE}:5432" and record["originalDst"].startswith(("198.18.", "198.19.", "[fd00:5de6:")), seen


def test_the_real_address_does_not_inherit_the_permission(world, database, tmp_path):
    seen = gated(world, tmp_path, [RULE], query(DATABASE))
    assert seen.status != 0, seen
    (record,) = [record for record in seen.records if record["protocol"] == "tcp"]
    assert record["verdict"] == "denied" and record["originalDst"] == f"{DATABASE}:5432", seen


def test_denied_without_the_rule(world, database, tmp_path):
    seen = gated(world, tmp_path, [RULE.replace(HOST, "other.example-shop.net")], query(HOST))
    assert seen.status != 0 and HOST not in seen.questions, seen
    assert {record["reason"] for record in seen.of(HOST, "denied")} == {"name-not-allowed"}, seen
