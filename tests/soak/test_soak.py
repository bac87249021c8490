"""What must hold while everything changes: nothing forbidden gets out, nothing allowed is lost."""
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from place import ALLOWED, ALLOWED6, APP_UID, FORBIDDEN, FORBIDDEN6, HOST, until

RELOADS = int(os.environ.get("SIDEGATE_RELOADS", "1000"))
KILLS = int(os.environ.get("SIDEGATE_KILLS", "20"))
SHORT = int(os.environ.get("SIDEGATE_SHORT_CONNECTIONS", "20000"))


class Load:
    """The load of load.py, running as the application."""

    def __init__(self, place, allowed=(ALLOWED, ALLOWED6)):
        program = pathlib.Path(__file__).with_name("load.py")
        command = place.inside(place.app, sys.executable, program, *allowed, "--", FORBIDDEN, FORBIDDEN6, uid=APP_UID)
        copy = place.folder / "load.py"
        copy.write_text(program.read_text())
        command[command.index(str(program))] = str(copy)
        command[command.index(sys.executable)] = "/usr/bin/python3"
        self.running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout.readline() == "going\n"

    def stop(self):
        shown, _ = self.running.communicate("")
        return json.loads(shown)


def holds(place, load, least):
    seen = load.stop()
    assert place.forbidden_packets() == 0, seen
    assert seen["leaks"] == [] and seen["failed"] == 0, seen
    assert seen["worked"] >= least and seen["refused"] >= least and seen["rounds"] >= least, seen
    return seen


def test_control_without_rules_the_forbidden_address_is_reached(place):
    """The negative control: the witness sees what gets out."""
    place.remove_rules()
    subprocess.run(place.inside(place.app, "curl", "-s", "-m", "2", f"http://{FORBIDDEN}:9001/", uid=APP_UID), input="", text=True)
    assert place.forbidden_packets() > 0


def test_policy_reloads_under_load(place):
    place.start_proxy()
    load = Load(place)
    first = place.generation()
    for turn in range(RELOADS):
        place.write_policy(f"    - {{ name: turn-{turn}, to: [ {{ hosts: [ h{turn}.example-shop.net ] }} ], ports: [ 443 ] }}\n")
        until(lambda: place.allows(f"h{turn}.example-shop.net"), f"reload {turn} is applied", 2)
    assert place.generation() == first + RELOADS
    seen = holds(place, load, 100)
    print(f"{RELOADS} policy reloads: {seen}")


def test_rule_reloads_under_load(place):
    place.start_proxy()
    load = Load(place)
    for _ in range(RELOADS):
        place.rules()
    seen = holds(place, load, 100)
    print(f"{RELOADS} rule reloads: {seen}")


def test_a_policy_that_takes_the_permission_away_closes_live_connections_within_a_second(place):
    place.start_proxy()
    holder = subprocess.Popen(
        place.inside(place.app, "/usr/bin/python3", "-c", HOLD, ALLOWED, uid=APP_UID), stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    text = (place.folder / "policy.yaml").read_text()
    (place.folder / "fresh").write_text(text.replace(f"{ALLOWED}/32", "93.184.216.11/32"))
    began = time.monotonic()
    os.replace(place.folder / "fresh", place.folder / "policy.yaml")
    assert holder.stdout.readline() == "closed\n"
    assert time.monotonic() - began < 1.0
    holder.wait()
    until(lambda: any(record["closeReason"] == "policy-changed" for record in place.records()), "the record says why")


HOLD = """
import socket, sys
s = socket.create_connection((sys.argv[1], 9002)); s.sendall(b'x'); assert s.recv(1) == b'x'
print('held', flush=True)
try:
    gone = s.recv(1) == b''
except ConnectionResetError:
    gone = True
print('closed' if gone else 'data', flush=True)
"""


def test_kill_leaks_nothing_and_is_back_within_a_second(place):
    place.start_proxy()
    slowest = 0.0
    for _ in range(KILLS):
        load = Load(place)
        place.kill_proxy()
        began = time.monotonic()
        place.start_proxy()
        slowest = max(slowest, time.monotonic() - began)
        seen = load.stop()
        assert place.forbidden_packets() == 0 and seen["leaks"] == [], seen
    assert slowest < 1.0, f"ready again after {slowest:.2f} s"
    before = len(place.records())
    load = Load(place)
    until(lambda: len(place.records()) > before + 50, "traffic goes on")
    holds(place, load, 1)
    print(f"{KILLS} kills: slowest restart {slowest * 1000:.0f} ms")


def test_dead_proxy_refuses_even_the_allowed(place):
    place.start_proxy()
    place.kill_proxy()
    done = subprocess.run(place.inside(place.app, "curl", "-sS", "-m", "5", f"http://{ALLOWED}:9001/", uid=APP_UID), capture_output=True, text=True)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("closes", ["client", "origin"])
def test_short_connections_never_stall_behind_the_redirect(place, closes):
    """Few source ports, several destinations, one listener behind them: the same pair of ends comes back at once, and a
    stall behind TIME_WAIT or PAWS shows as a second's wait. ADR 3 saw it 2,000 times in 100,000 at the kernel's defaults."""
    place.narrow_ports()
    place.start_proxy()
    ends = [part for address in place.origins() for part in ("--to", address)]
    extra = ["--origin-closes"] if closes == "origin" else []
    made = 0
    # Two SYNs of one source port that leave two CPUs at the same instant are one four-tuple behind the redirect: conntrack
    # drops the later one, and counts it. A measurement that this spoilt is made again, twice at most.
    for attempt in range(3):
        before = place.lost_insertions()
        seen = place.client("new", *ends, *extra, "--host", HOST, "--count", str(SHORT), "--connections", "8")
        lost = place.lost_insertions() - before
        made += SHORT
        print(f"{SHORT} short connections, the {closes} closes first: {seen}, {lost} insertions lost to the other CPU")
        if attempt == 2 or not 0 < seen["over900Ms"] <= lost:
            break
        print("MEASURING AGAIN: every stall is one that conntrack counts as its own")
    assert seen["operations"] == SHORT and seen["over900Ms"] == 0, seen
    until(lambda: len(place.records()) >= made, "one record a connection")
    records = [record for record in place.records() if record["protocol"] == "tls"]
    assert len(records) == made and {record["verdict"] for record in records} == {"allowed"}


CLING = """
import socket, sys
held = []
for _ in range(100):
    s = socket.socket(); s.settimeout(5); s.connect(('10.99.0.1', 15021)); s.sendall(b'GET /re'); held.append(s)
print('held', flush=True)
sys.stdin.read()
"""


def test_an_outsider_that_clings_to_the_readiness_port_fails_no_health_check(place):
    place.start_proxy()
    command = place.inside(place.world, "/usr/bin/python3", "-c", CLING)
    clinging = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert clinging.stdout.readline() == "held\n"
    assert all(place.ready() for _ in range(5))
    clinging.communicate("")
