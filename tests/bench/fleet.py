#!/usr/bin/env python3
"""Load of a fleet on Ground Control: many satellites that poll and report, and people who look.

usage: fleet.py PROGRAM SATELLITES [SECONDS] [DATABASE-URL [REPLICAS]]

PROGRAM is ground-control; it has a core of its own, as far as there are two. REPLICAS of it on one
PostgreSQL share that core, and each satellite goes from one to the next with each poll. Each satellite is a task
of this process and speaks the real protocol over a connection of its own, which ends with each poll:
HEAD of its state, its group's and its config by a pull token, and a report by its robot's account,
every PERIOD seconds. Meanwhile somebody asks for the overview every five seconds.

Prints `name<TAB>value<TAB>unit<TAB>limit` a line; scripts/fleet draws the table.
"""
import asyncio
import base64
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PERIOD = 30.0
GROUPS = 20
PASSWORD = "Fleet-bench-1"
ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Connection:
    """One connection; requests on it come one after the other."""

    def __init__(self, port):
        self.port, self.streams, self.bytes = port, None, 0

    async def ask(self, method, path, headers=(), body=b""):
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers)
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        length = 0 if method == "HEAD" or status == 204 else int(fields.get("content-length", 0))
        content = await reader.readexactly(length) if length else b""
        if "chunked" in fields.get("transfer-encoding", "") and method != "HEAD":
            while (size := int(await reader.readline(), 16)) > 0:
                content += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        self.bytes += len(head) + 2 + len(body) + len(answer) + len(content)
        if fields.get("connection") == "close":
            self.close()
        return status, content

    def close(self):
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


def basic(name, password):
    return "Authorization", "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Load:
    def __init__(self, ports):
        self.ports, self.took, self.errors, self.bytes = ports, [], [], 0

    async def timed(self, connection, expected, *request):
        begun = time.monotonic()
        try:
            status, content = await asyncio.wait_for(connection.ask(*request), 30)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
            connection.close()
            self.errors.append(f"{request[0]} {request[1]}: {error!r}")
            return b""
        self.took.append(time.monotonic() - begun)
        if status not in expected:
            self.errors.append(f"{request[0]} {request[1]}: {status} {content[:200]!r}")
        return content

    async def satellite(self, name, group, robot, until):
        await asyncio.sleep(random.random() * PERIOD)
        account = basic(robot["username"], robot["password"])
        bearer, digest = None, "sha256:" + "0" * 64
        report = {
            "name": name, "state_report_interval": "@every 00h00m30s", "latest_state_digest": "",
            "latest_config_digest": "", "memory_used_bytes": 5 << 20, "storage_used_bytes": 1 << 30,
            "cpu_percent": 1.5, "last_sync_duration_ms": 12, "image_count": 3,
            "cached_images": [
                {"reference": f"registry.test/app/{i}:1@{digest}", "size_bytes": 1 << 20}
                for i in range(3)
            ],
        }
        turn = 0
        while time.monotonic() < until:
            begun = time.monotonic()
            turn += 1
            connection = Connection(self.ports[turn % len(self.ports)])
            if bearer is None:
                scope = f"repository:satellite/satellite-state/{name}/state:pull"
                path = f"/service/token?service=ground-control&scope={scope}"
                token = await self.timed(connection, {200}, "GET", path, [account])
                bearer = json.loads(token or b"{}").get("token")
            headers = [("Authorization", f"Bearer {bearer}"), ("Accept", ACCEPT)]
            for repository in (
                f"satellite/satellite-state/{name}/state",
                f"satellite/group-state/{group}/state",
                "satellite/config-state/default/state",
            ):
                path = f"/v2/{repository}/manifests/latest"
                await self.timed(connection, {200}, "HEAD", path, headers)
            report["request_created_time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            body = json.dumps(report).encode()
            await self.timed(connection, {200}, "POST", "/satellites/sync", [account], body)
            connection.close()
            self.bytes += connection.bytes
            await asyncio.sleep(max(0.0, PERIOD * (0.95 + random.random() / 10)
                                    - (time.monotonic() - begun)))


def pinned(core):
    def pin():
        if os.cpu_count() > 1:
            os.sched_setaffinity(0, {core})
    return pin


async def gather(limit, tasks):
    gate = asyncio.Semaphore(limit)

    async def one(task):
        async with gate:
            return await task
    return await asyncio.gather(*(one(task) for task in tasks))


async def main():
    # Each satellite has a connection while it polls.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    program, count = sys.argv[1], int(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 90.0
    directory = tempfile.mkdtemp(prefix="moonlet-fleet-")
    replicas = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    ports = [free_port() for _ in range(replicas)]
    environment = dict(os.environ, GROUND_CONTROL_ADMIN_PASSWORD=PASSWORD)
    begun = time.monotonic()
    log = open(os.path.join(directory, "log"), "wb")
    servers = []
    for port in ports:
        # They have one address for satellites, which here is the first of them.
        command = [program, "serve", "--data", directory, "--listen", f"127.0.0.1:{port}",
                   "--url", f"http://127.0.0.1:{ports[0]}"]
        if len(sys.argv) > 4:
            command += ["--database", sys.argv[4]]
        servers.append(subprocess.Popen(
            command, env=environment, preexec_fn=pinned(0), stdout=log, stderr=log))
    pinned(1)()
    try:
        database = sys.argv[4] if len(sys.argv) > 4 else ""
        await measure(servers, ports, count, seconds, begun, (directory, database))
    finally:
        for server in servers:
            server.terminate()
            server.wait()
        shutil.rmtree(directory)


async def first_page(port):
    while True:
        try:
            status, _ = await Connection(port).ask("GET", "/console/login")
            return status
        except OSError:
            await asyncio.sleep(0.01)


def line(name, value, unit, limit=""):
    print(f"{name}\t{value}\t{unit}\t{limit}", flush=True)


def processes(servers):
    """Processor seconds of all, and the most memory of one."""
    each = [process(server) for server in servers]
    return sum(spent for spent, _ in each), max(peak for _, peak in each)


def process(server):
    with open(f"/proc/{server.pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    with open(f"/proc/{server.pid}/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM"))
    return ticks / os.sysconf("SC_CLK_TCK"), int(peak.split()[1]) / 1024


async def measure(servers, ports, count, seconds, begun, store):
    port = ports[0]
    assert all([await first_page(one) == 200 for one in ports])
    line("from nothing to the first page", f"{time.monotonic() - begun:.2f}", "s", 2)
    admin = Connection(port)
    login = json.dumps({"username": "admin", "password": PASSWORD}).encode()
    status, content = await admin.ask("POST", "/login", (), login)
    assert status == 200, content
    session = [("Authorization", "Bearer " + json.loads(content)["token"])]

    async def change(path, value):
        # People are limited; the fleet is there before the figures are taken.
        while True:
            connection = Connection(port)
            status, content = await connection.ask(
                "POST", path, session, json.dumps(value).encode())
            connection.close()
            if status != 429:
                assert status in (200, 201), (path, status, content)
                return json.loads(content or b"null")
            await asyncio.sleep(0.5)

    artifact = {"repository": "app", "tag": ["1"], "type": "IMAGE", "digest": "sha256:" + "1" * 64}
    for group in range(GROUPS):
        await change("/api/groups/sync", {
            "group": f"g{group}", "registry": "https://registry.test", "artifacts": [artifact]})

    await change("/api/configs", {"config_name": "default", "registry": "https://registry.test",
                                  "config": {"app_config": {"heartbeat_interval": "@every 00h00m30s"}}})

    async def enrol(index):
        name, group = f"edge-{index:06}", f"g{index % GROUPS}"
        token = (await change("/api/satellites", {
            "name": name, "groups": [group], "config_name": "default"}))["token"]
        connection = Connection(port)
        status, content = await connection.ask("GET", f"/satellites/ztr/{token}")
        connection.close()
        assert status == 200, content
        return name, group, json.loads(content)["auth"]

    begun = time.monotonic()
    members = await gather(16, [enrol(index) for index in range(count)])
    line("satellites added and enrolled", f"{count / (time.monotonic() - begun):.0f}", "per s")

    load = Load(ports)
    until = time.monotonic() + PERIOD + seconds
    tasks = [asyncio.create_task(load.satellite(*member, until)) for member in members]
    await asyncio.sleep(PERIOD)
    load.took.clear()
    load.bytes = 0
    cpu, _ = processes(servers)
    since, pages, page_bytes = time.monotonic(), [], 0
    cookie = await console(port)
    while time.monotonic() < until:
        before = time.monotonic()
        connection = Connection(port)
        status, page = await connection.ask("GET", "/console", [("Cookie", cookie)])
        connection.close()
        assert status == 200, status
        pages.append(time.monotonic() - before)
        page_bytes = len(page)
        await asyncio.sleep(5)
    spent, peak = processes(servers)
    span = time.monotonic() - since
    took = sorted(load.took)
    at = lambda part: took[min(len(took) - 1, int(len(took) * part))] * 1000
    line("requests", f"{len(took) / span:.0f}", "per s")
    line("errors", len(load.errors), "", 0)
    line("p50", f"{at(0.5):.1f}", "ms")
    line("p99", f"{at(0.99):.1f}", "ms", 100)
    line("memory at most", f"{peak:.0f}", "MiB", 128)
    line("processor", f"{(spent - cpu) / span * 100:.0f}", "% of a core", 100)
    line("processor for each satellite", f"{(spent - cpu) / span / count * 1e6:.0f}", "us per s")
    line("an unchanged poll and a report", f"{load.bytes / max(1, len(took)) * 4:.0f}", "bytes", 4096)
    line("overview, median", f"{sorted(pages)[len(pages) // 2] * 1000:.0f}", "ms", 100)
    line("overview", f"{page_bytes / 1000:.1f}", "KB", 60)
    # What a change costs: the group of one in GROUPS satellites gets another image.
    before = time.monotonic()
    await change("/api/groups/sync", {"group": "g0", "registry": "https://registry.test",
                                      "artifacts": [dict(artifact, digest="sha256:" + "2" * 64)]})
    line(f"change of the group of {count // GROUPS}", f"{(time.monotonic() - before) * 1000:.0f}",
         "ms", 1000)
    stored = database_bytes(*store)
    line("database for each satellite", f"{stored / count:.0f}", "bytes")
    for error in load.errors[:5]:
        print(error, file=sys.stderr)
    for task in tasks:
        task.cancel()


def database_bytes(directory, database):
    """Of the files of SQLite, its log included, or as PostgreSQL says."""
    if database:
        query = "SELECT pg_database_size(current_database())"
        answer = subprocess.run(["psql", "-Atc", query, database], stdout=subprocess.PIPE, check=True)
        return int(answer.stdout)
    return sum(entry.stat().st_size for entry in os.scandir(directory) if "control.db" in entry.name)


async def console(port):
    """The cookie of a session in the console."""
    connection = Connection(port)
    body = f"username=admin&password={PASSWORD}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((f"POST /console/login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
                  f"Origin: http://127.0.0.1:{port}\r\n"
                  "Content-Type: application/x-www-form-urlencoded\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
    answer = (await reader.read()).decode("latin-1")
    writer.close()
    connection.close()
    cookies = [l.split(": ", 1)[1].split(";")[0] for l in answer.split("\r\n")
               if l.lower().startswith("set-cookie: ")]
    assert cookies, answer
    return "; ".join(cookies)


asyncio.run(main())
