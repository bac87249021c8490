"""Identities change under load: nothing is lost while they may go on, and nothing goes on once it may not."""
import datetime
import json
import os
import pathlib
import subprocess
import time

from identities import Authority
from pair import DOMAIN, FAR4, FAR6, ONCE
from place import APP_UID, until

#: Renewals of each side's certificate. A proxy looks at its files twice a second.
ROTATIONS = int(os.environ.get("SIDEGATE_ROTATIONS", "30"))
CONNECTIONS = int(os.environ.get("SIDEGATE_HELD", "1000"))
LIVE = 100
ROTATED = "sidegate_identity_rotations_total"


class Load:
    """The load of load.py from `near` to `far`: short connections, and 200 that live throughout."""

    def __init__(self, pair):
        # Where the application's user may read it.
        (pair.folder / "load.py").write_text(pathlib.Path(__file__).with_name("load.py").read_text())
        command = pair.near.inside("/usr/bin/python3", pair.folder / "load.py", FAR4, FAR6, "--live", LIVE, "--", uid=APP_UID)
        self.running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout.readline() == "going\n"

    def stop(self):
        shown, _ = self.running.communicate("")
        return json.loads(shown)


def rotate(side, authority):
    before = side.metric(ROTATED)
    side.identity.show(authority)
    until(lambda: side.metric(ROTATED) == before + 1, "the new certificate is served")


def holds(pair, load):
    seen = load.stop()
    assert seen["failed"] == 0 and seen["failures"] == [], seen
    assert seen["worked"] >= 100 and seen["rounds"] >= 2 * LIVE, seen
    refused = [record for side in pair.sides for record in side.records() if record["verdict"] != "allowed"]
    assert refused == [], refused[:3]
    return seen


def test_leaves_rotate_under_load_and_nothing_is_lost(pair):
    load = Load(pair)
    for turn in range(ROTATIONS):
        rotate(pair.sides[turn % 2], pair.root)
    print(f"{ROTATIONS} rotations: {holds(pair, load)}")


def test_the_root_rotates_under_load_and_nothing_is_lost(pair):
    """Publish the next root, use it, retire the former: never a moment in which one side shows what the other does not
    believe."""
    load = Load(pair)
    former, following = pair.root, Authority(DOMAIN)
    for side in pair.sides:
        side.identity.believe(former, following)
    for side in pair.sides:
        until(lambda: roots(side) == 2, f"{side.name} believes both roots")
    for side in pair.sides:
        side.identity.revoke(former.revocations() + following.revocations())
        rotate(side, following)
    # A server leads its clients to its new certificate within a second; a stream that begins then has both sides prove
    # themselves anew, which is what the streams that live on go on by. An operator waits for some refresh hints instead.
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    for side in pair.sides:
        until(lambda: any(began(record) > moment for record in side.records()), "streams began after both rotated")
    for side in pair.sides:
        side.identity.revoke(following.revocations())
        side.identity.believe(following)
        until(lambda: roots(side) == 1, f"{side.name} believes the new root alone")
    print(f"a root's rotation: {holds(pair, load)}")


def began(record):
    return datetime.datetime.fromisoformat(record["time"].replace("Z", "+00:00"))


def roots(side):
    return len(json.loads(side.admin("/certs"))["trust"]["roots"])


def test_control_a_root_that_was_not_published_before_its_use_loses_connections(pair):
    load = Load(pair)
    rotate(pair.far, Authority(DOMAIN))
    until(lambda: any(record["verdict"] == "denied" or record["reason"] != "rule-allows" for record in pair.near.records()), "a connection failed")
    assert load.stop()["failed"] > 0


HOLD = """
import json, select, socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
held = []
for _ in range(count):
    s = socket.create_connection((address, 9002)); s.sendall(b'x'); assert s.recv(1) == b'x'; held.append(s)
print('held', flush=True)
began = float(sys.stdin.readline())
poll, open_ = select.poll(), {s.fileno(): s for s in held}
for s in held:
    poll.register(s, select.POLLIN | select.POLLHUP | select.POLLERR)
took = []
while open_ and time.monotonic() - began < 30:
    for fd, _ in poll.poll(1000):
        s = open_[fd]
        try:
            gone = s.recv(1) == b''
        except OSError:
            gone = True
        if gone:
            took.append(time.monotonic() - began); poll.unregister(fd); del open_[fd]
took.sort()
print(json.dumps({'closed': len(took), 'p50': took[len(took) // 2], 'p99': took[len(took) * 99 // 100], 'last': took[-1]} if took else {'closed': 0}), flush=True)
"""


class Held:
    """Connections that are open and say nothing."""

    def __init__(self, pair, count):
        command = pair.near.inside("/usr/bin/python3", "-c", HOLD, FAR4, count, uid=APP_UID)
        self.running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout.readline() == "held\n"

    def closed_after(self, change):
        """How long after `change` they were closed, in seconds."""
        began = time.monotonic()
        change()
        shown, _ = self.running.communicate(f"{began}\n")
        return json.loads(shown)


def test_a_revoked_peer_is_closed_within_five_seconds(pair):
    held = Held(pair, CONNECTIONS)
    lists = pair.root.revocations(pair.near.identity.certificate)
    seen = held.closed_after(lambda: pair.far.identity.revoke(lists))
    print(f"revoked: {seen}")
    assert seen["closed"] == CONNECTIONS and seen["p99"] <= 5.0, seen
    failed = subprocess.run(pair.near.inside("curl", "-sS", "-m", "5", f"http://{FAR4}:9001/", uid=APP_UID), capture_output=True)
    assert failed.returncode != 0
    until(lambda: any(record["verdict"] == "denied" for record in pair.far.records()), "the far end records whom it refuses")
    untrusted = [record for record in pair.far.records() if record["closeReason"] == "peer-untrusted"]
    assert len(untrusted) == CONNECTIONS, {record["closeReason"] for record in pair.far.records()}


def test_a_peer_that_is_no_longer_allowed_is_closed_within_a_second(pair):
    held = Held(pair, CONNECTIONS)
    text = pair.far.policy.replace("sa/near", "sa/other")
    seen = held.closed_after(lambda: pair.far.write("policy.yaml", text))
    print(f"no longer allowed: {seen}")
    assert seen["closed"] == CONNECTIONS and seen["p99"] <= 1.0, seen


def test_an_expired_certificate_is_never_served(pair):
    """Served until its end, and not a moment longer: then connections end and none begins, until there is another."""
    held = Held(pair, 10)
    before = pair.near.metric(ROTATED)
    pair.near.identity.show(pair.root, life=datetime.timedelta(seconds=4))
    until(lambda: pair.near.metric(ROTATED) == before + 1, "the short certificate is served")
    ask = pair.near.inside("/usr/bin/python3", "-c", ONCE, FAR4, uid=APP_UID)
    assert subprocess.run(ask, capture_output=True).returncode == 0
    until(lambda: subprocess.run(ask, capture_output=True).returncode != 0, "nothing begins any more")
    reasons = {record["reason"] for record in pair.near.records()}
    assert "mesh-identity" in " ".join(reasons), reasons
    rotate(pair.near, pair.root)
    assert subprocess.run(ask, capture_output=True).returncode == 0
    held.running.kill()
