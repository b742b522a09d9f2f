#!/usr/bin/env python3
"""What connections cost that do nothing, and whether others are served beside them.

usage: idle.py PID PORT PATH

PID is a server that listens on PORT of the loopback. Prints `name<TAB>value<TAB>unit<TAB>limit` a line;
scripts/bench draws the table.
"""
import http.client
import resource
import socket
import statistics
import sys
import threading
import time

IDLE, SLOW = 1000, 200


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def latencies(port, path, count):
    """Milliseconds of so many requests, each on a connection of its own."""
    times = []
    for _ in range(count):
        begun = time.monotonic()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("GET", path)
        answer = client.getresponse()
        body = answer.read()
        client.close()
        assert answer.status == 200 and body, answer.status
        times.append((time.monotonic() - begun) * 1000)
    return sorted(times)


def main():
    pid, port, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    files = IDLE + SLOW + 100
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
    alone = latencies(port, path, 200)
    before = resident(pid)
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    idle = []
    for _ in range(IDLE):
        one = socket.create_connection(("127.0.0.1", port))
        one.settimeout(10)
        one.sendall(request)
        assert one.recv(1 << 16), "an idle connection was not answered first"
        idle.append(one)
    held = resident(pid)
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(SLOW)]
    ended = threading.Event()

    def drip():
        text = b"GET / HTTP/1.1\r\nX: " + b"x" * 10000
        for at in range(len(text)):
            for one in slow:
                try:
                    one.send(text[at:at + 1])
                except OSError:
                    pass
            if ended.wait(0.2):
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    time.sleep(1)
    beside = latencies(port, path, 200)
    most = resident(pid)
    ended.set()
    dripping.join()
    kept = 0
    for one in idle:
        one.setblocking(False)
        try:
            kept += one.recv(1) != b""
        except BlockingIOError:
            kept += 1
    print(f"others' manifest beside them, p99\t{beside[197]:.1f}\tms\t50")
    print(f"the same alone\t{alone[197]:.1f}\tms\t")
    print(f"median beside them\t{statistics.median(beside):.2f}\tms\t")
    print(f"bytes per idle connection\t{(held - before) // IDLE}\tB\t")
    print(f"all of them, resident\t{most / 2**20:.1f}\tMiB\t24")
    print(f"before them\t{before / 2**20:.1f}\tMiB\t")
    print(f"idle connections that are still open\t{kept}\t\t")


if __name__ == "__main__":
    main()
