"""The SDK against proa's engine, blocking and awaited."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path

import engines
import pytest

import proa

pytestmark = pytest.mark.root


def test_containers(shared: engines.PrivateEngine) -> None:
    with proa.connect(shared.socket) as engine:
        result = engine.containers.run(
            "busybox", ["sh", "-c", "cat; echo err >&2; exit 3"], network="none", input=b"in"
        )
        assert result == proa.RunResult(3, b"in", b"err\n")
        container = engine.containers.run_detached(
            "busybox",
            ["sh", "-c", "echo one; read x; echo $x"],
            network="none",
            open_stdin=True,
            name="sdk",
            labels={"a": "1"},
        )
        assert (container.name, container.status, container.labels) == ("sdk", "running", {"a": "1"})
        assert [c.id for c in engine.containers.list(filters={"label": ["a=1"]})] == [container.id]
        done = container.exec(["sh", "-c", "cat; echo $E >&2; exit 4"], input=b"x" * 300_000, env={"E": "env"})
        assert (done.exit_code, len(done.stdout), done.stderr) == (4, 300_000, b"env\n")
        pieces = list(container.exec_stream(["sh", "-c", "echo 1; echo 2 >&2"]))
        assert sorted(pieces) == [("stderr", b"2\n"), ("stdout", b"1\n")]
        with container.open_exec(["cat"], tty=True) as session:
            session.resize(10, 20)
            session.write(b"typed\n")
            assert next(session).data.startswith(b"typed")
        with container.attach(logs=True) as session:
            session.write(b"two\n")
            assert b"".join([piece.data for piece in session]) == b"one\ntwo\n"
        assert container.wait() == 0
        assert container.reload().state.status == "exited"
        assert container.logs() == b"one\ntwo\n"
        assert container.logs(tail=1) == b"two\n"
        assert [piece.data for piece in container.follow_logs()] != []
        container.start()
        container.stop(timeout_s=0)
        container.stop()
        container.rename("sdk2")
        assert engine.containers.get("sdk2").id == container.id
        image = engine.images.get(container.commit("sdk-made:1", message="m"))
        assert image.tags == ["sdk-made:1"]
        engine.images.remove("sdk-made:1")
        container.remove()
        with pytest.raises(proa.NotFound, match="No such container"):
            container.reload()


def test_failures_are_typed(shared: engines.PrivateEngine) -> None:
    with proa.connect(shared.socket) as engine:
        with pytest.raises(proa.NotFound) as failure:
            engine.containers.run("busybox", ["no-such-command"], network="none")
        assert failure.value.code == "command-not-found"
        with pytest.raises(proa.NotFound, match="No such image"):
            engine.containers.create("no-such-image", pull="never")
        with pytest.raises(proa.NotFound):
            engine.images.get("no-such-image")
        assert engine.containers.list(all=True) == []
    with proa.connect("unix:///nowhere/at/all") as engine, pytest.raises(proa.Unavailable):
        engine.version()


def test_images(shared: engines.PrivateEngine, busybox_tar: Path) -> None:
    with proa.connect(shared.socket) as engine:
        archive = b"".join(engine.images.save("busybox"))
        for source in (archive, io.BytesIO(archive)):
            assert [image.tags for image in engine.images.load(source)] == [["busybox:latest"]]
        made = engine.images.import_(busybox_tar, "sdk-import:1", changes=['CMD ["echo", "hi"]'])
        assert made.details.config is not None
        assert made.details.config.cmd == ["echo", "hi"]
        assert engine.containers.run("sdk-import:1", network="none").stdout == b"hi\n"
        made.tag("sdk-import:2")
        assert sorted(engine.images.get("sdk-import:2").tags) == ["sdk-import:1", "sdk-import:2"]
        assert len(made.history()) == 1
        assert "busybox:latest" in [tag for image in engine.images.list() for tag in image.tags]
        engine.images.remove("sdk-import:1")
        engine.images.remove("sdk-import:2")
        assert engine.version().api_version == "1.51"
        assert engine.info().containers == 0


def test_events_end_at_a_time(shared: engines.PrivateEngine) -> None:
    import time

    with proa.connect(shared.socket) as engine:
        since = time.time()
        engine.containers.run("busybox", ["true"], network="none", name="eventful")
        actions = [e.action for e in engine.events(since=since, until=time.time() + 0.2) if e.type == "container"]
        assert actions[0] == "create"
        assert {"start", "die"} <= set(actions)


def test_threads_share_a_client(shared: engines.PrivateEngine) -> None:
    results: list[proa.RunResult] = []
    with proa.connect(shared.socket) as engine:

        def work(number: int) -> None:
            results.append(engine.containers.run("busybox", ["echo", str(number)], network="none"))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(r.stdout for r in results) == [f"{n}\n".encode() for n in range(8)]


def test_awaited(shared: engines.PrivateEngine) -> None:
    async def work() -> None:
        async with proa.connect_async(shared.socket) as engine:
            results = await asyncio.gather(
                *[engine.containers.run("busybox", ["cat"], network="none", input=b"z" * 400_000) for _ in range(4)]
            )
            assert [(r.exit_code, len(r.stdout)) for r in results] == [(0, 400_000)] * 4
            container = await engine.containers.run_detached(
                "busybox",
                ["sh", "-c", "for i in 1 2 3; do echo $i; done; read x; echo $x"],
                network="none",
                open_stdin=True,
            )
            while len(await container.logs()) < 6:  # noqa: ASYNC110 - the log is not ours to be told of
                await asyncio.sleep(0.02)
            async with await container.attach(logs=True) as session:
                await session.write(b"last\n")
                seen = b"".join([piece.data async for piece in session])
            assert seen == b"1\n2\n3\nlast\n"
            assert await container.wait() == 0
            assert b"".join([piece.data async for piece in container.follow_logs()]) == seen
            await container.remove()
            with pytest.raises(proa.NotFound):
                await engine.containers.get(container.id)

    asyncio.run(work())


def test_a_client_survives_an_engine_that_was_replaced(shared: engines.PrivateEngine) -> None:
    shared.proa("ps")
    with proa.connect(shared.socket) as engine:
        assert engine.version().version
        shared.kill_engine()
        shared.proa("ps")
        assert engine.version().version


def test_the_engine_is_started_by_the_sdk_too(engine: engines.PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROA_HOST", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROA_ROOT", str(engine.root))
    monkeypatch.setenv("PROA_RUN", str(engine.run_dir))
    with proa.connect(start=False) as client, pytest.raises(proa.Unavailable):
        client.version()
    with proa.connect() as client:
        assert client.version().version == proa.__version__


def test_limits_health_and_usage(shared: engines.PrivateEngine) -> None:
    with proa.connect(shared.socket) as engine:
        container = engine.containers.run_detached(
            "busybox",
            ["sleep", "1000"],
            network="none",
            name="measured",
            memory_bytes=64 << 20,
            health=proa.Healthcheck("echo fine; test ! -e /ill", interval_s=0.05, retries=1),
            ulimits={"nofile": (77, 88)},
            sysctls={"kernel.msgmax": "9000"},
            devices=["/dev/zero:/dev/z:r"],
            shm_bytes=8 << 20,
            stop_timeout_s=0,
        )
        try:
            assert container.wait("healthy") == 0
            health = container.reload().state.health
            assert health is not None
            assert (health.status, (health.log or [])[-1].output) == ("healthy", "fine\n")
            assert container.health == health
            script = "ulimit -n; cat /proc/sys/kernel/msgmax; ls /dev/z; df -k /dev/shm | tail -1 | awk '{print $2}'"
            assert container.exec(["sh", "-c", script]).stdout == b"77\n9000\n/dev/z\n8192\n"
            container.update(memory_bytes=32 << 20, memory_swap_bytes=64 << 20, restart="on-failure:2")
            found = container.stats()
            assert found.memory_stats.limit == 32 << 20
            assert found.pids_stats.current >= 1
            assert 0 <= found.cpu_percent < 300
            assert found.memory_bytes > 0
            assert next(iter(container.follow_stats())).read > found.read
            with pytest.raises(proa.Invalid, match="Minimum memory limit"):
                container.update(memory_bytes=1000)
            container.exec(["touch", "/ill"])
            assert container.wait("unhealthy") == 0
        finally:
            container.remove(force=True)


def test_waiting_for_health_in_vain(shared: engines.PrivateEngine) -> None:
    async def work() -> None:
        async with proa.connect_async(shared.socket) as engine:
            check = proa.Healthcheck(["true"], interval_s=60)
            container = await engine.containers.create(
                "busybox", ["sleep", "0.2"], network="none", health=check, name="brief"
            )
            await container.start()
            with pytest.raises(proa.Conflict, match="has ended with status 0 before that"):
                await container.wait("healthy")
            await container.update(restart="no")
            await container.remove()

    asyncio.run(work())
