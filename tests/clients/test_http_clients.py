"""Libraries that stretch HTTP, through `sidegate run`: WebSockets, gRPC, and many streams at once."""
import sys

from test_http import HOST, http_rule
from world import V4, gated, wait_until

WEBSOCKETS, GRPC, SECURE = 8091, 8092, 8094

WEBSOCKET_SERVER = """
import sys
from websockets.sync.server import serve
def echo(socket):
    for message in socket:
        socket.send(message)
options = {}
if len(sys.argv) > 3:
    import ssl
    options["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    options["ssl"].load_cert_chain(*sys.argv[3:])
serve(echo, sys.argv[1], int(sys.argv[2]), **options).serve_forever()
"""

WEBSOCKET_CLIENT = """
import os, sys
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
for path in sys.argv[2:]:
    try:
        with connect(sys.argv[1] + path, open_timeout=30) as socket:
            for size in (1, 500_000):
                message = os.urandom(size)
                socket.send(message)
                assert socket.recv(30) == message
            print(path, "echoed")
    except InvalidStatus as refused:
        print(path, refused.response.status_code)
"""

GRPC_SERVER = """
import sys, grpc
from concurrent import futures
def unary(request, context):
    context.set_trailing_metadata((("x-after", "it"),))
    return request
def stream(requests, context):
    yield from requests
def fails(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so")
handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary), "Stream": grpc.stream_stream_rpc_method_handler(stream),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
server.add_insecure_port(f"{sys.argv[1]}:{sys.argv[2]}")
server.start()
server.wait_for_termination()
"""

GRPC_CLIENT = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
reply, call = channel.unary_unary("/shop.Shop/Unary").with_call(b"hello", timeout=60)
print(reply, dict(call.trailing_metadata())["x-after"])
sent = [b"a", b"b" * 300_000, b"c"]
print(list(channel.stream_stream("/shop.Shop/Stream")(iter(sent), timeout=60)) == sent)
for method in ("Shop/Fails", "Other/Any"):
    try:
        channel.unary_unary("/shop." + method)(b"", timeout=60)
    except grpc.RpcError as error:
        print(method, error.code().name)
"""


def server(world, program, port, *certificate):
    if not world.listens(port):
        world.start(sys.executable, "-c", program, V4, port, *certificate)
        wait_until(lambda: world.listens(port), f"a server listens at {port}")


def told(seen):
    http = [record for record in seen.records if record["protocol"] == "http"]
    return [(record["http"]["path"], record["http"]["status"], record["reason"]) for record in http]


def test_websockets_pass_where_a_rule_says_so(world, tmp_path):
    server(world, WEBSOCKET_SERVER, WEBSOCKETS)
    rule = http_rule(', http: [ { upgrade: websocket, paths: [ "/live" ] } ]', ports=WEBSOCKETS)
    command = [sys.executable, "-c", WEBSOCKET_CLIENT, f"ws://{HOST}:{WEBSOCKETS}", "/live", "/other"]
    seen = gated(world, tmp_path, [rule], command)
    assert seen.output.splitlines() == ["/live echoed", "/other 403"], seen
    assert told(seen) == [("/live", 101, "rule-allows"), ("/other", 403, "upgrade-not-allowed")], seen
    (live,) = [record for record in seen.of(HOST, "allowed") if record["protocol"] == "http"]
    assert live["bytesSent"] > 500_000 and live["bytesReceived"] > 500_000 and live["closeReason"] == "done", seen


def test_websockets_inside_opened_tls(world, tmp_path):
    server(world, WEBSOCKET_SERVER, SECURE, world.folder / "origin.pem", world.folder / "origin.key")
    entry = '{ upgrade: websocket, paths: [ "/live" ] }'
    rule = f"{{ name: seen, to: [ {{ hosts: [ {HOST} ] }} ], ports: [ {SECURE} ], tls: {{ mode: inspect }}, http: [ {entry} ] }}"
    command = [sys.executable, "-c", WEBSOCKET_CLIENT, f"wss://{HOST}:{SECURE}", "/live", "/other"]
    seen = gated(world, tmp_path, [rule], command, env={"SSL_CERT_FILE": str(world.folder / "ca.pem")})
    assert seen.output.splitlines() == ["/live echoed", "/other 403"], seen
    judged = [record for record in seen.records if "http" in record]
    told = [(record["http"]["status"], record["reason"]) for record in judged]
    assert told == [(101, "rule-allows"), (403, "upgrade-not-allowed")], seen
    # Python's server ends its connection without the alert that TLS ends with: it could be anybody's end.
    assert judged[0]["closeReason"] == "upstream-reset" and judged[0]["bytesReceived"] > 500_000, seen


def test_a_rule_for_requests_carries_no_websocket(world, tmp_path):
    server(world, WEBSOCKET_SERVER, WEBSOCKETS)
    command = [sys.executable, "-c", WEBSOCKET_CLIENT, f"ws://{HOST}:{WEBSOCKETS}", "/live"]
    seen = gated(world, tmp_path, [http_rule("", ports=WEBSOCKETS)], command)
    assert seen.output.splitlines() == ["/live 403"], seen


def test_grpc_unary_streams_trailers_and_errors(world, tmp_path):
    server(world, GRPC_SERVER, GRPC)
    rule = http_rule(', http: [ { methods: [ POST ], paths: [ "/shop.Shop/*" ] } ]', ports=GRPC)
    seen = gated(world, tmp_path, [rule], [sys.executable, "-c", GRPC_CLIENT, f"{HOST}:{GRPC}"])
    expected = ["b'hello' it", "True", "Shop/Fails FAILED_PRECONDITION", "Other/Any PERMISSION_DENIED"]
    assert seen.output.splitlines() == expected, seen
    assert [reason for *_, reason in told(seen)] == ["rule-allows"] * 3 + ["http-not-allowed"], seen


def test_many_streams_of_many_connections(world, tmp_path):
    rule = http_rule(', http: [ { methods: [ GET ], paths: [ "/v1/**" ] } ]')
    command = ["h2load", "-n", "2000", "-c", "8", "-m", "32", f"http://{HOST}:8082/v1/a"]
    seen = gated(world, tmp_path, [rule], command)
    assert "2000 succeeded, 0 failed, 0 errored" in seen.output and "status codes: 2000 2xx" in seen.output, seen.output
    assert len(told(seen)) == 2000 and {reason for *_, reason in told(seen)} == {"rule-allows"}


def test_a_limit_holds_for_a_flood(world, tmp_path):
    rule = http_rule(", limits: { requestsPerSecond: 1, burst: 10 }")
    command = ["h2load", "-n", "500", "-c", "4", "-m", "8", f"http://{HOST}:8082/v1/a"]
    seen = gated(world, tmp_path, [rule], command)
    passed = [status for _, status, reason in told(seen) if reason == "rule-allows"]
    limited = [status for _, status, reason in told(seen) if reason == "limit-requests"]
    assert 10 <= len(passed) <= 100 and set(limited) == {429} and len(passed) + len(limited) == 500, seen.output
