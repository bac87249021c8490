"""A real gRPC server in the place of a SPIFFE agent: the sidecar follows its stream."""
import json
import os
import socket
import subprocess
import threading
from concurrent import futures

import grpc
import pytest

from world import TARGET, wait_until

ID = "spiffe://example.org/ns/a/sa/b"


def field(number, data):
    """One length-delimited field of protobuf."""
    data = data.encode() if isinstance(data, str) else data
    varint, length = b"", len(data)
    while length > 127:
        varint, length = varint + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + varint + bytes([length]) + data


class Authority:
    """A root made with openssl, whose leaves are X.509-SVIDs."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /O=x -keyout ca.key -out ca.pem "
                     "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -addext subjectAltName=URI:spiffe://example.org")
        self.openssl("x509 -in ca.pem -outform der -out ca.der")
        self.bundle = (folder / "ca.der").read_bytes()

    def openssl(self, line):
        subprocess.run(["openssl", *line.split()], cwd=self.folder, check=True, capture_output=True)

    def svid(self, spiffe_id=ID, hint=""):
        self.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=x -keyout leaf.key -out leaf.csr")
        (self.folder / "ext").write_text(
            f"subjectAltName=URI:{spiffe_id}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n")
        self.openssl("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile ext -outform der -out leaf.der")
        self.openssl("pkcs8 -topk8 -nocrypt -in leaf.key -outform der -out key.der")
        leaf, key = ((self.folder / name).read_bytes() for name in ("leaf.der", "key.der"))
        return field(1, field(1, spiffe_id) + field(2, leaf) + field(3, key) + field(4, self.bundle) + (field(5, hint) if hint else b""))


class Agent:
    """Serves FetchX509SVID on a Unix socket; what it says can change at any time."""

    def __init__(self, path):
        self.path, self.changed, self.version = path, threading.Condition(), 0
        self.message, self.status, self.headers = b"", None, []
        self.start()

    def start(self):
        handler = grpc.unary_stream_rpc_method_handler(self.fetch, request_deserializer=bytes, response_serializer=bytes)
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchX509SVID": handler})])
        assert self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()

    def fetch(self, request, context):
        self.headers.append(dict(context.invocation_metadata()))
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        seen = -1
        while context.is_active():
            with self.changed:
                self.changed.wait_for(lambda: self.version != seen or not context.is_active(), timeout=0.2)
                if self.version == seen:
                    continue
                seen, message, status = self.version, self.message, self.status
            if status:
                context.abort(status, "no identity issued")
            yield message

    def say(self, message=b"", status=None):
        with self.changed:
            self.message, self.status, self.version = message, status, self.version + 1
            self.changed.notify_all()

    def stop(self):
        self.server.stop(0).wait(20)


class Sidecar:
    def __init__(self, folder, identity, env=None):
        self.folder = folder
        (folder / "p.yaml").write_text('apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec: {}\n')
        (folder / "proxy.yaml").write_text(
            f'apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\nworkload: {ID}\n{identity}'
            'listen: { outbound: 0, dns: 0, ready: "127.0.0.1:0", metrics: "127.0.0.1:0" }\nadmin: { socket: admin.sock }\n'
            'redirect: { rules: none }\nresolvers: [ "127.0.0.1:9" ]\nworkers: 1\naccessLog: access.jsonl\n')
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.child = subprocess.Popen([TARGET / "debug" / "sidegate-proxy", "serve", "--config", folder / "proxy.yaml"], stderr=log, stdout=log, env={**os.environ, **(env or {})})
        wait_until(lambda: "admin.sock" in os.listdir(folder) and self.certs() is not None, "the sidecar answers")

    def ask(self, path):
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.folder / "admin.sock"))
            asked.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := asked.recv(65536):
                answer += piece
        head, body = answer.split(b"\r\n\r\n", 1)
        return int(head.split()[1]), body

    def certs(self):
        try:
            return json.loads(self.ask("/certs")[1])
        except OSError:
            return None

    def epoch(self):
        return (self.certs()["identity"] or {}).get("epoch", 0)

    def faults(self):
        return " ".join(fault["message"] for fault in self.certs()["faults"])

    def close(self):
        self.child.terminate()
        self.child.wait(20)


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "agent.sock"
    agent = Agent(path)
    made = []

    def sidecar(more="", env=None, identity=None):
        identity = f'identity: {{ workloadApi: "unix://{path}"{more} }}\n' if identity is None else identity
        made.append(Sidecar(tmp_path, identity, env))
        return made[-1]

    yield agent, Authority(tmp_path / "ca"), sidecar
    for one in made:
        one.close()
    agent.stop()


def test_it_follows_rotations_restarts_refusals_and_garbage(place):
    agent, authority, sidecar = place
    agent.say(status=grpc.StatusCode.PERMISSION_DENIED)
    proxy = sidecar()
    wait_until(lambda: "PERMISSION_DENIED" in proxy.faults(), "the refusal is told")
    assert proxy.ask("/ready")[0] == 503
    first = authority.svid()
    agent.say(first)
    wait_until(lambda: proxy.epoch() == 1, "an identity")
    told = proxy.certs()
    assert told["identity"]["id"] == ID and told["identity"]["believedByOwnBundle"] and told["faults"] == [], told
    assert proxy.ask("/ready")[0] == 200
    assert agent.headers[-1]["workload.spiffe.io"] == "true"
    agent.say(authority.svid())
    wait_until(lambda: proxy.epoch() == 2, "a rotation on the same stream")
    calls = len(agent.headers)
    # What is wrong leaves in force what was there.
    other = Authority(authority.folder.parent / "other")
    for wrong, why in (
        (b"\xff\xff\xff", "malformed"),
        (b"", "none of its 0 identities"),
        (authority.svid("spiffe://example.org/ns/a/sa/other"), "none of its 1 identities"),
        (first[:-40], "malformed"),
        (other.svid("spiffe://elsewhere.test/a"), "none of its 1 identities"),
    ):
        agent.say(wrong)
        wait_until(lambda: why in proxy.faults(), f"{why}: {proxy.certs()}")
        assert proxy.epoch() == 2 and proxy.ask("/ready")[0] == 200
    assert len(agent.headers) > calls, "garbage ends a stream, which is opened again"
    agent.stop()
    wait_until(lambda: "stream" in proxy.faults() or "reached" in proxy.faults(), "the agent is gone")
    assert proxy.epoch() == 2 and proxy.ask("/ready")[0] == 200
    agent.say(authority.svid())
    agent.start()
    wait_until(lambda: proxy.epoch() == 3, "the agent is back")
    assert proxy.certs()["faults"] == []
    assert "PRIVATE" not in proxy.log.read_text()


def test_of_several_identities_one_is_chosen_and_other_bundles_are_believed(place):
    agent, authority, sidecar = place
    other = Authority(authority.folder.parent / "federated")
    federated = field(3, field(1, "spiffe://federated.test") + field(2, authority_of("federated.test", other)))
    agent.say(authority.svid("spiffe://example.org/ns/a/sa/zero", "external") + authority.svid(ID, "internal") + federated)
    proxy = sidecar(", hint: internal")
    wait_until(lambda: proxy.epoch() == 1, "an identity")
    assert proxy.certs()["identity"]["id"] == ID
    agent.say(authority.svid(ID, "external"))
    wait_until(lambda: "none of its 1 identities" in proxy.faults(), "no such hint")


def authority_of(domain, authority):
    authority.openssl(f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /O=y -keyout f.key -out f.der -outform der "
                      f"-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -addext subjectAltName=URI:spiffe://{domain}")
    return (authority.folder / "f.der").read_bytes()


def test_an_identity_that_its_own_bundle_does_not_vouch_for_is_told(place):
    """Negative control: another root's bundle beside the leaf is noticed, as the right one is not."""
    agent, authority, sidecar = place
    other = Authority(authority.folder.parent / "other")
    right, authority.bundle = authority.bundle, other.bundle
    agent.say(authority.svid())
    proxy = sidecar()
    wait_until(lambda: proxy.epoch() == 1, "an identity")
    assert not proxy.certs()["identity"]["believedByOwnBundle"]
    authority.bundle = right
    agent.say(authority.svid())
    wait_until(lambda: proxy.epoch() == 2 and proxy.certs()["identity"]["believedByOwnBundle"], "the right bundle")


def test_the_environment_names_the_socket(place):
    agent, authority, sidecar = place
    agent.say(authority.svid())
    proxy = sidecar(env={"SPIFFE_ENDPOINT_SOCKET": f"unix://{agent.path}"}, identity="")
    wait_until(lambda: proxy.epoch() == 1, "an identity")
