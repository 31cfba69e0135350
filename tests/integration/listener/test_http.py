"""Plain HTTP through the port: routing, refusals, limits, deadlines, over real sockets."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.integration.listener.harness import Client, World, eventually, request, running

from magmobo.contracts.errors import Unavailable


async def ask(world: World, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    client = await world.connect()
    client.send(data)
    answer = await client.response(head_only=data.startswith(b"HEAD"))
    await client.close()
    return answer


async def problem(world: World, data: bytes) -> tuple[int, str]:
    client = await world.connect()
    client.send(data)
    answer = await client.problem()
    await client.close()
    return answer


async def test_a_body_reaches_the_application_however_it_is_sent() -> None:
    body = b"b" * 200_000
    chunked = b"".join(b"%x\r\n%s\r\n" % (10_000, body[at : at + 10_000]) for at in range(0, len(body), 10_000))
    async with running() as world:
        assert (await ask(world, request(b"POST", b"/http/x", body)))[2] == b"200000 bytes"
        head = request(b"POST", b"/http/y", None, b"transfer-encoding: chunked")
        assert (await ask(world, head + chunked + b"0\r\nx-trailer: dropped\r\n\r\n"))[2] == b"200000 bytes"
        assert world.requests == [("POST", "/http/x", body), ("POST", "/http/y", body)]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(b"".join(request(b"POST", b"/http/x", b"." * size) for size in range(20)))
        assert [(await client.response())[2] for _ in range(20)] == [b"%d bytes" % size for size in range(20)]
        await client.close()


async def test_a_pipeline_without_end_is_cut() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(request() * 500)
        answers = await client.rest()
        assert 1 <= answers.count(b"HTTP/1.1 200") <= 40
        assert len(world.requests) <= 40
        await client.close()


async def test_what_the_port_tells_about_itself() -> None:
    async with running() as world:
        status, headers, body = await ask(world, request(b"HEAD"))
        assert (status, body) == (200, b"")
        assert headers[b"content-length"] == b"7"
        assert b"server" not in headers
        assert b"date" in headers


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (request(path=b"/"), 404, "MAG-NET-010"),
        (request(path=b"/httpx"), 404, "MAG-NET-010"),
        (request(path=b"/app/key"), 426, "MAG-NET-018"),
        (request(b"POST", b"/livez"), 405, "MAG-NET-020"),
        (request(path=b"/http/raise"), 500, "MAG-NET-017"),
        (request(path=b"/http/silent"), 500, "MAG-NET-017"),
        (b"GET /http/x HTTP/1.1\r\nhost: evil.example:8787\r\n\r\n", 421, "MAG-NET-012"),
        (b"GET /http/x HTTP/1.1\r\n\r\n", 400, "MAG-NET-013"),
        (b"GET /http/x HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400, "MAG-NET-013"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "MAG-NET-013"),  # TLS spoken to a plain port
        (b"GET /http/\xff HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "MAG-NET-013"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "MAG-NET-013"),
        (b"GET  /http/x HTTP/9.9\r\n\r\n", 400, "MAG-NET-013"),
        (request(b"POST", b"/http/x", b"abc", b"transfer-encoding: chunked"), 400, "MAG-NET-013"),
        (request(b"GET", b"/http/x", None, b" folded: yes"), 400, "MAG-NET-013"),
        (request(b"GET", b"/http/x", None, b"name : value"), 400, "MAG-NET-013"),
        (request(b"GET", b"/http/x", None, b"cookie: " + b"c" * 20_000), 431, "MAG-NET-014"),
        (request(b"GET", b"/http/" + b"u" * 20_000), 431, "MAG-NET-014"),
        (request(b"GET", b"/http/x", None, *[b"a: b"] * 5_000), 431, "MAG-NET-014"),
    ],
)
async def test_refusals_are_problem_documents(data: bytes, status: int, code: str) -> None:
    async with running() as world:
        assert await problem(world, data) == (status, code)
        await eventually(lambda: not len(world.connections))
        assert (await ask(world, request()))[0] == 200


async def test_a_failure_names_a_correlation_id_that_the_log_has_and_no_detail() -> None:
    async with running() as world:
        with capture_logs() as logs:
            _, _, body = await ask(world, request(path=b"/http/raise"))
        document = msgspec.json.decode(body)
        assert b"secret" not in body
        (entry,) = [line for line in logs if line["event"] == "request_failed"]
        assert entry["correlation_id"] == document["correlation_id"] != ""
        assert entry["path"] == "/http/raise"


async def test_the_connection_survives_a_failure() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(request(path=b"/http/raise"))
        assert (await client.problem())[0] == 500
        client.send(request())
        assert (await client.response())[0] == 200
        await client.close()


async def test_a_response_torn_by_a_failure_ends_the_connection() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(request(path=b"/http/torn"))
        assert (await client.head()).startswith(b"HTTP/1.1 200")
        assert await client.rest() == b""
        await client.close()


async def test_an_expected_error_keeps_its_own_status() -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        raise Unavailable("database")

    async with running() as world:
        world.listener.mount_http("/down/", application)
        status, headers, body = await ask(world, request(path=b"/down/"))
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert msgspec.json.decode(body)["code"] == "MAG-CORE-001"


async def test_a_released_mount_answers_503_until_mounted_again() -> None:
    async with running() as world:
        mount = world.listener.mount_http("/other/", world.application)
        assert (await ask(world, request(path=b"/other")))[0] == 200
        mount.release()
        assert await problem(world, request(path=b"/other")) == (503, "MAG-NET-011")
        world.listener.mount_http("/other/", world.application)
        assert (await ask(world, request(path=b"/other/deep/path")))[0] == 200


async def test_a_mount_below_another_wins() -> None:
    async with running() as world:
        world.listener.mount_http(
            "/http/special/", lambda scope, receive, send: world.application(scope, receive, send)
        )
        assert (await ask(world, request(path=b"/http/special")))[0] == 200
        with pytest.raises(ValueError, match="taken"):
            world.listener.mount_http("/http/", world.application)


async def test_probes_answer_any_host_and_readiness_follows_the_node() -> None:
    async with running() as world:
        strange = b"GET /%s HTTP/1.1\r\nhost: 10.0.0.7\r\n\r\n"
        assert await ask(world, strange % b"livez") == await ask(world, strange % b"livez")
        assert (await ask(world, strange % b"readyz"))[::2] == (200, b'{"state":"ready"}')
        expected = {"booting": 503, "degraded": 200, "stopping": 503}  # degraded, but by nothing essential
        for state, code in expected.items():
            world.node.state = state
            status, _, body = await ask(world, strange % b"readyz")
            assert (status, msgspec.json.decode(body)["state"]) == (code, state)
            assert (await ask(world, strange % b"livez"))[0] == 200
        assert (await ask(world, b"HEAD /livez HTTP/1.1\r\nhost: x\r\n\r\n"))[::2] == (200, b"")


async def test_an_upgrade_that_is_not_ours_is_served_as_http() -> None:
    async with running() as world:
        client = await world.connect()
        h2c = request(b"GET", b"/http/x", None, b"connection: upgrade", b"upgrade: h2c")
        client.send(h2c + request(path=b"/http/y"))
        assert (await client.response())[0] == 200
        assert (await client.response())[0] == 200
        assert [path for _, path, _ in world.requests] == ["/http/x", "/http/y"]
        await client.close()


@pytest.mark.parametrize("start", [b"", b"GET /htt", b"\r\n", b"GET /http/x HTTP/1.1\r\nhost: localhost\r\nx: "])
async def test_a_head_that_comes_too_slowly_is_not_waited_for(start: bytes) -> None:
    """Slowloris: a byte now and then does not extend the deadline."""
    async with running(header_timeout_s=0.2) as world:
        client = await world.connect()
        trickle = asyncio.create_task(drip(client, start))
        try:
            answer = await client.rest()
        except ConnectionError:  # a byte of ours met the closed end before we read that it is
            answer = b""
        trickle.cancel()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        await client.close()
        await eventually(lambda: not len(world.connections))
        assert not world.requests


async def drip(client: Client, start: bytes) -> None:
    client.send(start)
    while start:
        await asyncio.sleep(0.05)
        client.send(start[-1:] if start == b"\r\n" else b"x")


async def test_the_deadline_of_a_second_head_starts_with_its_first_byte() -> None:
    async with running(header_timeout_s=0.5) as world:
        client = await world.connect()
        client.send(request())
        assert (await client.response())[0] == 200
        await asyncio.sleep(0.8)  # idle between requests is the business of keep_alive_s
        client.send(request())
        assert (await client.response())[0] == 200
        client.send(b"GET /ht")
        assert (await client.problem())[1] == "MAG-NET-015"
        await client.close()


async def test_a_body_that_stalls_is_not_waited_for() -> None:
    async with running(stall_timeout_s=0.2) as world:
        client = await world.connect()
        client.send(request(b"POST", b"/http/x", b"." * 1_000)[:-500])
        await client.rest()
        await eventually(lambda: not len(world.connections))
        await eventually(lambda: not world.server_tasks)
        await client.close()


async def test_a_response_nobody_takes_is_not_kept() -> None:
    async with running(stall_timeout_s=0.2) as world:
        client = await world.connect()
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(request(path=b"/http/large"))
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: world.requests != [])
        await eventually(lambda: not len(world.connections))
        await client.close()


async def test_endless_trailers_and_chunk_extensions_are_cut() -> None:
    async with running() as world:
        for noise in (b"0\r\nx-trailer: ", b"1;extension="):
            client = await world.connect()
            client.send(request(b"POST", b"/http/x", None, b"transfer-encoding: chunked") + noise)
            answer = asyncio.create_task(client.rest())
            while not answer.done():
                client.send(b"n" * 10_000)
                await asyncio.sleep(0.001)
            assert (await answer).startswith(b"HTTP/1.1 431 ")
            await client.close()
            await eventually(lambda: not len(world.connections))


async def test_the_answer_to_a_large_upload_that_is_refused_can_be_read() -> None:
    async with running() as world:
        client = await world.connect()
        client.send(request(b"POST", b"/http/x", b"." * 5_000_000, b"cookie: " + b"c" * 20_000))
        await client.drain()  # like most clients: first the whole request, then the answer
        assert await client.problem() == (431, "MAG-NET-014")
        await client.close()
