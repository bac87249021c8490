"""What the gate forwards is one request to every reader: nginx and Python's own server beside each other.

Requests are made from a grammar by a seed. Each goes through the gate to an origin that keeps the bytes as they came; these
are given to both readers, who have to find exactly one request, the same one. The control is the same requests as they were
sent: some reader finds others.
"""
import http.server
import io
import json
import os
import random
import sys

from test_http import HOST, http_rule
from world import V4, gated, wait_until

PORT = 8093
CASES = int(os.environ.get("SIDEGATE_SMUGGLING_CASES", "300"))
SEED = int(os.environ.get("SIDEGATE_SMUGGLING_SEED", "20261124"))
EVIL = f"GET /v2/evil HTTP/1.1\r\nHost: {HOST}\r\n\r\n"

# Keeps every byte of each connection; answers whatever ends like a request.
ORIGIN = """
import json, socketserver, sys, threading
lock = threading.Lock()
class Keep(socketserver.BaseRequestHandler):
    def handle(self):
        seen = b""
        while True:
            head, found, body = seen.partition(b"\\r\\n\\r\\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\\r\\n")[1:] if b": " in line)
            chunked = b"transfer-encoding" in fields
            end = body.find(b"0\\r\\n\\r\\n") + 5 if chunked else int(fields.get(b"content-length", 0))
            if found and len(body) >= end >= (5 if chunked else 0):
                whole, seen = head + found + body[:end], body[end:]
                with lock:
                    print(json.dumps(whole.hex()), file=open(sys.argv[3], "a"), flush=True)
                self.request.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
                continue
            more = self.request.recv(65536)
            if not more:
                return
            seen += more
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
Server((sys.argv[1], int(sys.argv[2])), Keep).serve_forever()
"""

# Says each case on a connection of its own; prints what is heard.
SPEAKER = """
import json, socket, sys
for line in open(sys.argv[3]):
    stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
    heard = b""
    try:
        stream.sendall(bytes.fromhex(json.loads(line)))
        stream.shutdown(socket.SHUT_WR)
        while more := stream.recv(65536):
            heard += more
    except OSError:
        pass
    print(json.dumps(heard.hex()))
"""


def pick(chance, *items):
    return chance.choice(items)


def case(chance):
    """One request of the grammar, often with another behind it."""
    body = pick(chance, "", "abc", EVIL, f"0\r\n\r\n{EVIL}", f"3\r\nabc\r\n0\r\n\r\n", f"{len(EVIL):x}\r\n{EVIL}\r\n0\r\n\r\n", f"3;x\r\nabc\r\n0\r\n\r\n{EVIL}")
    length = pick(chance, *[str(len(body))] * 4, "0", "3", f"+{len(body)}", f"{len(body)},{len(body)}", f" {len(body)} ", f"0x{len(body):x}", "-1")
    coding = pick(chance, *["chunked"] * 3, "Chunked", "chunked, identity", "identity", " chunked", "x-chunked", "\x0bchunked", "chunked\x00")
    lines = [f"Host: {pick(chance, *[HOST] * 6, HOST.upper(), 'evil.example', HOST + ':8093', HOST + '.')}"]
    for line, likely in (
        (f"Content-Length: {length}", 0.6), (f"Transfer-Encoding: {coding}", 0.4), (f"Content-Length: {len(body)}", 0.1),
        (f"Transfer-Encoding : chunked", 0.05), (f"Host: {HOST}", 0.05), ("X: a\r\n b", 0.05), ("X: a\nTransfer-Encoding: chunked", 0.05),
        ("Connection: keep-alive, Content-Length", 0.1), ("Expect: 100-continue", 0.05), ("Upgrade: h2c\r\nConnection: upgrade", 0.05),
    ):
        if chance.random() < likely:
            lines.insert(chance.randrange(len(lines) + 1), line)
    method = pick(chance, "GET", "POST", "POST", "POST", "HEAD", "PUT", "get")
    target = pick(chance, *["/v1/a"] * 5, "/v1/b/../a", "/v1//a", "/v1/%61", "/v1/a?q=/../v2", "/v2/evil", f"http://{HOST}/v1/a", "http://evil.example/v1/a", "/v1/..%2fa")
    version = pick(chance, *["HTTP/1.1"] * 8, "HTTP/1.0", "HTTP/1.2")
    end = pick(chance, *["\r\n"] * 12, "\n")
    head = end.join([f"{method} {target} {version}", *lines, "", ""])
    return (head + body + pick(chance, "", "", EVIL)).encode("latin-1")


def by_python(message):
    """The requests that Python's server finds: method, path, body by its length."""
    found = []

    class Reader(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            self.rfile, self.wfile = io.BytesIO(message), io.BytesIO()

        def finish(self):
            pass

        def log_message(self, *_):
            pass

        def handle_expect_100(self):
            return True

        def __getattr__(self, name):
            if name.startswith("do_"):
                return self.read
            raise AttributeError(name)

        def read(self):
            length = self.headers.get("content-length", "0")
            body = self.rfile.read(int(length) if length.isdigit() else 0)
            found.append((self.command, self.path, body))

    Reader(None, ("", 0), None)
    return found


def by_nginx(world, folder, messages):
    """The requests that nginx answers of each message: method and target."""
    (folder / "messages").write_text("".join(json.dumps(message.hex()) + "\n" for message in messages))
    done = world.run(sys.executable, "-c", SPEAKER, V4, "80", folder / "messages")
    assert done.returncode == 0, done.stderr
    heard = [bytes.fromhex(json.loads(line)) for line in done.stdout.splitlines()]
    answers = lambda answer: [tuple(line.split()[:2]) for line in answer.decode("latin-1").splitlines() if " for " in line]
    return [(answers(answer), answer.count(b"HTTP/1.1 ") - answer.count(b"HTTP/1.1 100 ")) for answer in heard]


def test_what_is_forwarded_is_one_request_to_every_reader(world, tmp_path):
    chance = random.Random(SEED)
    cases = [case(chance) for _ in range(CASES)]
    (tmp_path / "cases").write_text("".join(json.dumps(words.hex()) + "\n" for words in cases))
    arrived = tmp_path / "arrived"
    world.start(sys.executable, "-c", ORIGIN, V4, PORT, arrived)
    wait_until(lambda: world.listens(PORT), "the origin listens")
    rule = http_rule(', http: [ { methods: [ GET, POST, PUT, HEAD ], paths: [ "/v1/**" ] } ]', ports=PORT)
    seen = gated(world, tmp_path, [rule], [sys.executable, "-c", SPEAKER, HOST, str(PORT), tmp_path / "cases"])
    assert seen.status == 0 and len(seen.output.splitlines()) == CASES, seen.errors
    forwarded = [bytes.fromhex(json.loads(line)) for line in arrived.read_text().splitlines()]
    assert len(forwarded) > CASES // 10, f"only {len(forwarded)} of {CASES} pass: the grammar is too wild"
    for message, (found, statuses) in zip(forwarded, by_nginx(world, tmp_path, forwarded)):
        head, _, body = message.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        assert statuses == 1, (SEED, message)
        assert method == "HEAD" or found == [(method, target)], (SEED, message, found)
        assert head.lower().count(b"\r\nhost: ") == 1 and b"evil" not in head.lower() and target.startswith("/v1/"), (SEED, message)
        if b"transfer-encoding" not in head.lower():
            assert by_python(message) == [(method, target, body)], (SEED, message)
    judged = [record for record in seen.records if record["verdict"] == "allowed" and "http" in record]
    assert len(forwarded) == len([record for record in judged if record["http"]["status"] == 200]), seen.errors


def test_control_as_they_were_sent_readers_disagree(world, tmp_path):
    chance = random.Random(SEED)
    cases = [case(chance) for _ in range(CASES)]
    smuggled = 0
    for words, (found, _) in zip(cases, by_nginx(world, tmp_path, cases)):
        paths = [[path for _, path in found], [path for _, path, _ in by_python(words)]]
        smuggled += paths[0] != paths[1] and any("/v2/evil" in path for path in paths)
    assert smuggled > CASES // 20, f"only {smuggled} of {CASES} are taken differently"
