#!/usr/bin/env python3
"""Figures of hostile peers: what an upstream's manifests and clients that take all connections cost.

usage: crowd.py PROGRAM memory|fair

Prints `name<TAB>value<TAB>unit<TAB>limit` a line; scripts/bench draws the table. Everything runs on
loopback: a small registry in this process, and PROGRAM with a store that is removed at the end.
"""
import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONNECTIONS = 127


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Content:
    """What a registry has: blobs, manifests by digest with their media types, and tags."""

    def __init__(self):
        self.blobs, self.manifests, self.tags, self.referrers = {}, {}, {}, {}

    def blob(self, data, media_type="application/octet-stream"):
        self.blobs[digest_of(data)] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def manifest(self, document, tag=None, media_type=MANIFEST):
        data = json.dumps(document, separators=(",", ":")).encode()
        self.manifests[digest_of(data)] = (media_type, data)
        if tag:
            self.tags[tag] = digest_of(data)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def image(self, tag=None, layer=b"layer", **members):
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(b"{}", "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
        document.update(members)
        return self.manifest(document, tag)


class Registry:
    """Serves a Content by the pull part of the distribution specification."""

    def __init__(self, content):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                status, media_type, data = self.found()
                self.send_response_only(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(data)))
                if status == 200 and "/manifests/" in self.path:
                    self.send_header("Docker-Content-Digest", digest_of(data))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_HEAD = do_GET

            def found(self):
                reference = self.path.rsplit("/", 1)[-1]
                if "/manifests/" in self.path:
                    held = content.manifests.get(content.tags.get(reference, reference))
                    if held:
                        return 200, *held
                elif "/blobs/" in self.path and reference in content.blobs:
                    return 200, "application/octet-stream", content.blobs[reference]
                elif "/referrers/" in self.path:
                    index = {"schemaVersion": 2, "mediaType": INDEX}
                    index["manifests"] = content.referrers.get(reference, [])
                    return 200, INDEX, json.dumps(index).encode()
                return 404, "application/json", b"{}"

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]


class Moonlet:
    """The program, holding one image of a registry."""

    def __init__(self, program, registry, tls=False):
        self.directory = tempfile.mkdtemp(prefix="moonlet-crowd-")
        self.port, self.tls = free_port(), tls
        lines = ['name = "crowd"', "[serve]", f'listen = "127.0.0.1:{self.port}"']
        if tls:
            certificate(self.directory)
            lines += [f'tls_cert = "{self.directory}/cert"', f'tls_key = "{self.directory}/key"']
        lines += ["[store]", f'path = "{self.directory}/store"', 'size_max = "256MiB"']
        lines += ["[[upstream]]", 'registry = "up.test"', f'url = "http://127.0.0.1:{registry.port}"']
        lines += ["[[image]]", 'reference = "up.test/app:1"', 'platforms = ["linux/amd64"]']
        with open(self.directory + "/moonlet.toml", "w", encoding="utf8") as file:
            file.write("\n".join(lines) + "\n")
        self.log = open(self.directory + "/log", "wb")
        command = [program, "--config", self.directory + "/moonlet.toml", "run"]
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log)
        self.wait_for("sync: ", 120)

    def wait_for(self, text, seconds):
        deadline = time.time() + seconds
        while time.time() < deadline:
            with open(self.directory + "/log", encoding="utf8", errors="replace") as file:
                if text in file.read():
                    return
            if self.process.poll() is not None:
                sys.exit(f"crowd.py: the program ended: see {self.directory}/log")
            time.sleep(0.05)
        sys.exit(f"crowd.py: no {text!r} within {seconds} s: see {self.directory}/log")

    def peak_mebibytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) / 1024

    def connect(self, source="127.0.0.1", small=False):
        plain = socket.socket()
        if small:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.bind((source, 0))
        plain.settimeout(30)
        plain.connect(("127.0.0.1", self.port))
        if not self.tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain)

    def seconds_to_answer(self, source):
        begun = time.time()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.sock = self.connect(source)
        connection.request("GET", "/v2/app/manifests/1")
        status = connection.getresponse().status
        connection.close()
        return time.time() - begun if status == 200 else float("inf")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()
        shutil.rmtree(self.directory)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificate(directory):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-keyout", directory + "/key", "-out", directory + "/cert"]
    subprocess.run(command, check=True, capture_output=True)


def row(name, value, unit, limit):
    print(f"{name}\t{value:.1f}\t{unit}\t{limit}", flush=True)


def annotations(count):
    return {f"{number:x}": "" for number in range(count)}


def manifests():
    """Manifests below the limit of 4 MiB whose parsed form would be many times as large."""
    content = Content()
    content.image("1", annotations=annotations(330_000))
    yield "330,000 annotations", content
    content = Content()
    layer = content.blob(b"layer", "application/vnd.oci.image.layer.v1.tar")
    content.image("1", layers=[layer] * 28_000)
    yield "28,000 times one layer", content
    content = Content()
    child = content.image() | {"platform": {"os": "linux", "architecture": "amd64"}}
    small = [{"digest": f"sha256:{n:064x}", "size": 1, "mediaType": MANIFEST} for n in range(25_000)]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child] + small}
    content.manifest(index, "1", INDEX)
    yield "an index of 25,000", content
    content = Content()
    subject = content.image("1")
    signed = [content.image(subject=subject, annotations=annotations(330_000), x=n) for n in (1, 2)]
    content.referrers[subject["digest"]] = signed
    yield "two referrers of 3.6 MB", content


def memory(program):
    """Peak resident memory, in MiB."""
    for name, content in manifests():
        moonlet = Moonlet(program, Registry(content))
        row(name, moonlet.peak_mebibytes(), "MiB", 10)
        moonlet.stop()
    content = Content()
    subject = content.image("1", layer=bytes(30_000_000), annotations=annotations(330_000))
    registry = Registry(content)
    for tls in (False, True):
        moonlet = Moonlet(program, registry, tls)
        for what in ("manifests/1", "blobs/" + digest_of(bytes(30_000_000))):
            clients = [moonlet.connect(small=True) for _ in range(CONNECTIONS)]
            for client in clients:
                client.sendall(f"GET /v2/app/{what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(3)
            kind = "manifest of 3.6 MB" if what.startswith("manifests") else "blob of 30 MB"
            scheme = "TLS" if tls else "plain"
            name = f"{CONNECTIONS} {scheme} clients that do not read a {kind}"
            row(name, moonlet.peak_mebibytes(), "MiB", 10)
            for client in clients:
                client.close()
        moonlet.stop()
    assert subject["digest"] in content.manifests


def fair(program):
    """How long another client waits while one address has taken all 128 connections."""
    content = Content()
    content.image("1", layer=bytes(30_000_000))
    moonlet = Moonlet(program, Registry(content))
    get = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    blob = f"GET /v2/app/blobs/{digest_of(bytes(30_000_000))} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for name, first, answered in (
        ("silent", b"", False),
        ("half a head", get[:-2], False),
        ("a body that does not come", get.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n"), False),
        ("idle", get, True),
        ("not reading 30 MB", blob, False),
    ):
        clients = [moonlet.connect(small=True) for _ in range(128)]
        for client in clients:
            client.sendall(first)
            if answered:
                client.recv(4096)
        time.sleep(0.5)
        row(f"128 {name}", moonlet.seconds_to_answer("127.0.0.2"), "s", 2)
        for client in clients:
            client.close()
    moonlet.stop()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("memory", "fair"):
        sys.exit(__doc__)
    {"memory": memory, "fair": fair}[sys.argv[2]](sys.argv[1])
