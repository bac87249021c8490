"""A world of the test's own: one network namespace with origins, a resolver and a certificate authority.

Addresses look public but exist only inside the namespace. As root the namespace is made directly; otherwise in a user
namespace that keeps the caller's uid. Nothing here reaches beyond it.
"""
import json
import os
import pathlib
import signal
import subprocess
import textwrap
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SIDEGATE = pathlib.Path(os.environ.get("SIDEGATE_BIN", TARGET / "debug" / "sidegate"))

V4, V6 = "93.184.216.10", "2606:2800:21f:cb07::10"
OLD = "93.184.216.11"
ELSEWHERE = "93.184.216.99"
DATABASE = "93.184.216.20"
NAMES = {
    "modern.example-shop.net": (V4, V6),
    "old.example-shop.net": (OLD, None),
    "git.example-shop.net": (V4, V6),
    "other.example-shop.net": (ELSEWHERE, None),
    "db.example-shop.net": (DATABASE, None),
}


def wait_until(condition, what, seconds=20):
    """Polls a condition; the wait itself is a select on nothing, bounded by a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        signal.sigtimedwait([], 0.02)


class World:
    def __init__(self, folder):
        self.folder = folder
        self.started = []
        self.holder = subprocess.Popen(
            self.unshare() + ["sh", "-c", "echo in && exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout.readline() == "in\n", "no network namespace of our own: user namespaces are off"

    @staticmethod
    def unshare():
        return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"]

    def command(self, *command):
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials", "--keep-caps"]
        return ["nsenter", f"--target={self.holder.pid}", "--net", *user, *map(str, command)]

    def run(self, *command, **options):
        return subprocess.run(self.command(*command), text=True, capture_output=True, timeout=120, **options)

    def start(self, *command, **options):
        log = (self.folder / f"{pathlib.Path(command[0]).name}.log").open("a")
        started = subprocess.Popen(self.command(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        self.started.append(started)
        return started

    def listens(self, port, kind="t"):
        return bool(self.run("ss", f"-Hln{kind}", f"sport = :{port}").stdout.strip())

    def build(self):
        for command in (
            "ip link set lo up",
            f"ip addr add {V4}/32 dev lo", f"ip addr add {OLD}/32 dev lo", f"ip addr add {ELSEWHERE}/32 dev lo", f"ip addr add {DATABASE}/32 dev lo",
            f"ip addr add {V6}/128 dev lo nodad",
        ):
            done = self.run(*command.split())
            assert done.returncode == 0, done.stderr
        self.certificates()
        self.resolver()
        self.nginx()
        self.git()
        return self

    def certificates(self):
        names = ",".join(f"DNS:{name}" for name in NAMES)
        for command in (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=origin -keyout origin.key -out origin.csr",
        ):
            subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)
        (self.folder / "san").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
        subprocess.run(
            "openssl x509 -req -in origin.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out origin.pem".split(),
            cwd=self.folder, check=True, capture_output=True,
        )

    def resolver(self):
        lines = ["no-resolv", "no-hosts", "no-daemon", "log-queries", "port=53", "user=", "listen-address=127.0.0.1", "bind-interfaces", "pid-file="]
        for name, addresses in NAMES.items():
            lines += [f"host-record={name},{','.join(filter(None, addresses))}"]
        lines += ["local=/#/"]
        (self.folder / "dnsmasq.conf").write_text("\n".join(lines) + "\n")
        self.start("dnsmasq", f"--conf-file={self.folder}/dnsmasq.conf")
        wait_until(lambda: self.listens(53, "u"), "the resolver listens")

    def nginx(self):
        server = lambda name, versions, address: f"""
            server {{
                server_name {name};
                listen {address}:443 ssl http2; {f'listen [{V6}]:443 ssl http2;' if address == V4 else ''}
                ssl_protocols {versions};
                location / {{ return 200 "hello from $host over $ssl_protocol $server_protocol\\n"; }}
                location /git/ {{ root {self.folder}; autoindex on; }}
            }}"""
        plain = lambda port, option: f"""
            server {{
                server_name modern.example-shop.net;
                listen {V4}:{port} {option};
                location / {{ return 200 "$request_method $request_uri for $host over $server_protocol\\n"; }}
            }}"""
        (self.folder / "nginx.conf").write_text(textwrap.dedent(f"""
            daemon off; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.error warn;
            {"user root;" if os.geteuid() == 0 else ""}
            events {{}}
            http {{
                access_log {self.folder}/nginx.access; client_body_temp_path {self.folder}/t1; proxy_temp_path {self.folder}/t2;
                fastcgi_temp_path {self.folder}/t3; uwsgi_temp_path {self.folder}/t4; scgi_temp_path {self.folder}/t5;
                ssl_certificate {self.folder}/origin.pem; ssl_certificate_key {self.folder}/origin.key;
                {server("modern.example-shop.net git.example-shop.net", "TLSv1.3", V4)}
                {server("old.example-shop.net", "TLSv1.2", OLD)}
                {server("other.example-shop.net", "TLSv1.3", ELSEWHERE)}
                {plain(80, "")}
                {plain(8082, "http2")}
            }}"""))
        self.start("nginx", "-c", f"{self.folder}/nginx.conf")
        wait_until(lambda: self.listens(443), "nginx listens")

    def git(self):
        repository = self.folder / "git" / "shop.git"
        work = self.folder / "work"
        quiet = dict(check=True, capture_output=True)
        subprocess.run(["git", "init", "-q", "-b", "main", str(work)], **quiet)
        (work / "README").write_text("a shop\n")
        author = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
        subprocess.run(["git", "-C", str(work), "add", "."], **quiet)
        subprocess.run(["git", "-C", str(work), *author, "commit", "-qm", "first"], **quiet)
        subprocess.run(["git", "clone", "-q", "--bare", str(work), str(repository)], **quiet)
        subprocess.run(["git", "-C", str(repository), "update-server-info"], **quiet)

    def close(self):
        for started in reversed(self.started):
            started.terminate()
        for started in reversed(self.started):
            started.wait(20)
        self.holder.stdin.close()
        self.holder.wait(20)


class Outcome:
    """What one run of a client under `sidegate run` printed, returned and recorded."""

    def __init__(self, done, records, questions, requests):
        self.status, self.output, self.errors = done.returncode, done.stdout, done.stderr
        self.records, self.questions, self.requests = records, questions, requests

    def of(self, host, *verdicts):
        return [record for record in self.records if record.get("host") == host and record["verdict"] in verdicts]

    def __repr__(self):
        records = "\n".join(json.dumps(record) for record in self.records)
        return f"status {self.status}\n--- stdout\n{self.output}\n--- stderr\n{self.errors}\n--- records\n{records}"


def policy(*rules):
    lines = ["apiVersion: sidegate.dev/v1", "kind: Policy", "metadata: { name: clients }", "spec:", "  egress:"]
    return "\n".join(lines + [f"    - {rule}" for rule in rules]) + "\n"


def tls_rule(host, extra=""):
    return f'{{ name: web, reason: "the test", to: [ {{ hosts: [ "{host}" ] }} ], ports: [ 443 ]{extra} }}'


def gated(world, folder, rules, command, env=None, options=()):
    """Runs a client under `sidegate run` inside the world, with exactly these rules."""
    (folder / "policy.yaml").write_text(policy(*rules))
    log, asked, served = folder / "access.jsonl", world.folder / "dnsmasq.log", world.folder / "nginx.access"
    log.unlink(missing_ok=True)
    before = asked.stat().st_size, served.stat().st_size
    done = world.run(
        SIDEGATE, "run", "--policy", folder / "policy.yaml", "--access-log", log, "--resolver", "127.0.0.1:53", *options, "--",
        *command, env={**os.environ, **(env or {})},
    )
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return Outcome(done, records, asked.read_text()[before[0]:], served.read_text()[before[1]:])
