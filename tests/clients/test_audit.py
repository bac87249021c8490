"""From audit to enforcement: the policy that the summary prints is enough, and it is the least."""
import sys

import pytest

from world import DATABASE, SIDEGATE, V4, gated, policy, tls_rule, wait_until

GREETER = "import socket, sys\ns = socket.create_server((sys.argv[1], 5433))\nwhile True: s.accept()[0].sendall(b'ready\\n')"
GREETED = "import socket; print(socket.create_connection(('db.example-shop.net', 5433), 20).recv(9))"
MARKER = "as a policy:\n\n"


@pytest.fixture(scope="module")
def plain_servers(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    (folder / "page").write_text("a plain page\n")
    world.start(sys.executable, "-c", GREETER, DATABASE)
    world.start(sys.executable, "-m", "http.server", "8080", "--bind", V4, "--directory", folder)
    wait_until(lambda: world.listens(5433) and world.listens(8080), "the plain servers listen")


def run(world, *words):
    return world.run(SIDEGATE, "run", "--resolver", "127.0.0.1:53", *words)


def work(world):
    curl = f"curl -sS --fail --cacert {world.folder}/ca.pem"
    script = f"""set -e
        {curl} https://modern.example-shop.net/
        {curl} https://old.example-shop.net/
        {curl} http://git.example-shop.net:8080/page
        {curl} http://{V4}:8080/page
        {sys.executable} -c "{GREETED}"
    """
    return "sh", "-c", script


def printed_policy(done, folder):
    assert done.stderr.count(MARKER) == 1, done
    file = folder / "audited.yaml"
    file.write_text(done.stderr.split(MARKER)[1])
    return file


def test_what_passed_in_audit_passes_enforced_under_the_policy_it_printed(world, plain_servers, tmp_path):
    denied = run(world, "--", *work(world))
    assert denied.returncode != 0, "the negative control: without a policy nothing of it passes"

    audited = run(world, "--mode", "audit", "--", *work(world))
    assert audited.returncode == 0, audited
    file = printed_policy(audited, tmp_path)
    checked = world.run(SIDEGATE, "policy", "check", file)
    assert checked.returncode == 0, checked

    enforced = run(world, "--policy", file, "--", *work(world))
    assert enforced.returncode == 0 and enforced.stdout == audited.stdout, enforced
    assert "denied" not in enforced.stderr, enforced

    other = run(world, "--policy", file, "--", "curl", "-sS", "https://other.example-shop.net/")
    assert other.returncode != 0, "only what was seen is in it"


def test_a_policy_in_audit_is_narrowed_to_what_was_used(world, tmp_path):
    (tmp_path / "wide.yaml").write_text(policy(tls_rule("**.example-shop.net")))
    command = ("curl", "-sS", "--cacert", f"{world.folder}/ca.pem", "https://modern.example-shop.net/")
    always = ("--summary", "always")
    audited = run(world, "--policy", tmp_path / "wide.yaml", "--mode", "audit", *always, "--", *command)
    assert audited.returncode == 0, audited
    text = printed_policy(audited, tmp_path).read_text()
    assert "modern.example-shop.net" in text and "**" not in text, text


@pytest.mark.parametrize("command, said", [
    (["curl", "-sS", "https://{host}/"], "Could not resolve host"),
    ([sys.executable, "-c", "import socket; socket.create_connection(('{host}', 443))"], "Name or service not known"),
    (["node", "-e", "require('dns').lookup('{host}', e => {{ console.error(e.code); process.exit(1) }})"], "ENOTFOUND"),
], ids=["curl", "python", "node"])
def test_a_denied_name_fails_at_once_and_for_good(world, tmp_path, command, said):
    command = [word.format(host="evil.example-shop.net") for word in command]
    seen = gated(world, tmp_path, [tls_rule("other.example-shop.net")], command)
    assert seen.status != 0 and said in seen.errors, seen
    questions = [record for record in seen.of("evil.example-shop.net", "denied")]
    assert len(questions) <= 2, "one question for each family, none repeated"
    assert {record["dns"]["response"] for record in questions} == {"NXDOMAIN"}, seen
