"""The place of the comparison: namespaces, the proxies' processes, what they cost."""
import json, os, pathlib, shutil, subprocess, time

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
APP, WORLD = f"sg-app-{os.getpid()}", f"sg-world-{os.getpid()}"
ORIGIN, HOST = "93.184.216.10", "origin.bench-sidegate.net"
UID = 1337
TICK = 0.01


def sh(*command, **options):
    return subprocess.run(command, check=True, **options)


def inside(netns, *command):
    return ["ip", "netns", "exec", netns, *map(str, command)]


def as_proxy(*command):
    """The exempt user, in the app's namespace."""
    return inside(APP, "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *command)


class Network:
    def __enter__(self):
        for netns in (APP, WORLD):
            sh("ip", "netns", "add", netns)
            sh(*inside(netns, "ip", "link", "set", "lo", "up"))
        sh("ip", "link", "add", "up0", "netns", APP, "type", "veth", "peer", "name", "up0", "netns", WORLD)
        for netns, address in ((APP, "10.99.0.1/24"), (WORLD, "10.99.0.2/24")):
            sh(*inside(netns, "ip", "addr", "add", address, "dev", "up0"))
            sh(*inside(netns, "ip", "link", "set", "up0", "up"))
        sh(*inside(APP, "ip", "route", "add", "default", "via", "10.99.0.2"))
        sh(*inside(WORLD, "ip", "addr", "add", f"{ORIGIN}/32", "dev", "lo"))
        sh(*inside(APP, TARGET / "sidegate-proxy", "init", "--uid", UID), stdout=subprocess.DEVNULL)
        for netns in (APP, WORLD):
            sh(*inside(netns, "sysctl", "-qw", "net.ipv4.ip_local_port_range=16000 65000"))
            # TIME_WAITs of one proxy's run must not make the next one's connect(2) search for a free port.
            sh(*inside(netns, "sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=500"))
        self.parts = [
            start(inside(WORLD, TARGET / "sidegate-peers", "origin"), "ready"),
            start(inside(WORLD, TARGET / "sidegate-peers", "resolver", "--listen", "10.99.0.2:53", "--answer", ORIGIN), "ready"),
        ]
        return self

    def __exit__(self, *_):
        for part in self.parts:
            stop(part)
        for netns in (APP, WORLD):
            subprocess.run(["ip", "netns", "del", netns])


def start(command, line):
    started = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if line not in started.stdout.readline():
        raise SystemExit(f"{command}: did not get ready")
    return started


def stop(started):
    started.terminate()
    try:
        started.wait(10)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def wait_for_port(port, netns=APP):
    deadline = time.monotonic() + 10
    probe = inside(netns, "ss", "-Hltn", f"sport = :{port}")
    while not subprocess.run(probe, capture_output=True, text=True).stdout.strip():
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on {port}")
        time.sleep(TICK)


def family(pid):
    """A process and its children (HAProxy in master-worker mode, `setpriv` wrappers)."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu_seconds(pid):
    nanoseconds = 0
    for member in family(pid):
        for stat in pathlib.Path(f"/proc/{member}/task").glob("*/schedstat"):
            nanoseconds += int(stat.read_text().split()[0])
    return nanoseconds / 1e9


def pss_kib(pid):
    total = 0
    for member in family(pid):
        for line in pathlib.Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


class Proxy:
    """One way to carry the connections that the redirect rules send to port 15001. `far` runs beside the origin, for
    what takes two; `only`: the works that it can do."""

    def __init__(self, name, command, only=None, environment=None, far=None, far_port=None):
        self.name, self.command, self.only, self.environment = name, command, only, environment
        self.far, self.far_port = far, far_port

    def __enter__(self):
        self.parts = []
        if self.far:
            self.parts.append(self._start(inside(WORLD, *self.far)))
            wait_for_port(self.far_port, WORLD)
        self.parts.append(self._start(as_proxy(*self.command)))
        wait_for_port(15001)
        return self

    def _start(self, command):
        environment = os.environ | (self.environment or {})
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, env=environment)

    def __exit__(self, *_):
        for part in self.parts:
            stop(part)

    def cpu(self):
        return sum(cpu_seconds(part.pid) for part in self.parts)

    def pss(self):
        return sum(pss_kib(part.pid) for part in self.parts)


def found(program):
    return shutil.which(program) is not None


def client(*arguments):
    done = sh(*inside(APP, TARGET / "sidegate-peers", "client", *map(str, arguments), "--to", ORIGIN), stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


class Work:
    """One load: `load(proxy, size)` gives the figure, in `unit`; `bar` is how much of `reference`'s it may be, on a quiet
    machine; `proxies(folder)` are those who do it."""

    def __init__(self, load, unit, reference, bar, proxies):
        self.load, self.unit, self.reference, self.bar, self.proxies = load, unit, reference, bar, proxies
