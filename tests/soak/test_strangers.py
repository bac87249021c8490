"""Who connects and says nothing keeps nobody else out."""
import subprocess

from pair import FAR4, ONCE
from place import APP_UID, until

FLOOD = """
import socket, sys
held = []
for turn in range(int(sys.argv[1])):
    s = socket.socket()
    s.bind((f'10.98.0.{11 + turn % 3}', 0))
    try:
        s.connect(('10.98.0.2', 15008)); s.sendall(bytes([0x16, 3, 1, 2, 0, 1])); held.append(s)
    except OSError:
        pass
print('held', flush=True)
sys.stdin.read()
"""


def test_silent_sockets_keep_no_peer_out_and_cost_little(pair):
    """Half a hello on thousands of sockets from three addresses: a peer at a fourth is served all the same, and the proxy stays
    within the 256 MiB that 10,000 attackers may cost."""
    for end in (11, 12, 13):
        subprocess.run(pair.near.inside("ip", "addr", "add", f"10.98.0.{end}/24", "dev", "up0"), check=True)
    # As the exempt user: nothing of it is captured here.
    flood = pair.near.inside("prlimit", "--nofile=20000", "/usr/bin/python3", "-c", FLOOD, 8400, uid=1337)
    flooding = subprocess.Popen(flood, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert flooding.stdout.readline() == "held\n"
    for _ in range(3):
        asked = subprocess.run(pair.near.inside("/usr/bin/python3", "-c", ONCE, FAR4, uid=APP_UID), capture_output=True, text=True)
        assert asked.returncode == 0, asked.stderr
    peak = pair.far.peak_memory()
    print(f"8,400 silent sockets: {peak / 1024:.0f} MiB at most")
    assert peak <= 256 * 1024
    flooding.communicate("")
    until(lambda: any(record["reason"] == "limit-source" for record in pair.far.records()), "the far end records whom it sheds")
