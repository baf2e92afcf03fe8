"""What a server stands: latency, load, hostile requests, and what the allocator is worth.

    python benchmarks/serve.py latency load hostile --model my-run
    python benchmarks/serve.py allocator --model my-run

Everything runs on loopback, client and server on the same cores, so that latencies are upper bounds. "One at a time"
is a server with `--max-batch 1 --batch-wait-ms 0` and a single client.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

GLIBC_DEFAULT = {"MALLOC_TOP_PAD_": "131072"}
# The text that is asked of text models: 20 words.
TEXT = "I did not expect to see her there after all these years and I could not stop smiling at that"


@dataclass
class Server:
    """A running `samo serve`."""

    process: subprocess.Popen[str]
    port: int

    def cpu_s(self) -> float:
        """User and system seconds, those of decoders included."""
        return sum(_cpu_s(pid) for pid in self._pids())

    def rss_mb(self) -> float:
        """Resident memory of the server without its decoders."""
        return _rss_mb(self.process.pid)

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def server(args: argparse.Namespace, *flags: str, variables: dict[str, str] | None = None) -> Iterator[Server]:
    """Start one, wait until it is ready, and stop it with SIGTERM, which must give status 0."""
    words = [sys.executable, "-m", "samo_cli", "serve", args.model, "--port", "0", "--threads", str(args.threads)]
    words += ["--artifacts", args.artifacts] if args.artifacts else []
    process = subprocess.Popen(
        [*words, *flags], stderr=subprocess.PIPE, text=True, env={**os.environ, **(variables or {})}
    )
    try:
        port = 0
        while not port:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
            found = re.search(r"serving at http://[^:]+:(\d+)", line)
            port = int(found[1]) if found else 0
        for _ in range(600):
            if asyncio.run(ready(port)):
                break
            time.sleep(0.1)
        yield Server(process, port)
        process.terminate()
        if process.wait(60):
            raise SystemExit(f"the server ended with status {process.returncode}")
    finally:
        process.kill()
        process.communicate()


async def ready(port: int) -> bool:
    return (await Client(port).ask(b"GET", "/readyz"))[0] == 200


class Client:
    """One connection that is kept open; as little of HTTP as that needs, so that the client costs little."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: bytes, path: str, body: bytes = b"", kind: str = "audio/wav") -> tuple[int, bytes]:
        """Status and body of a response."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(method + b" " + head.encode() + body)
        status, found, closed = await response(reader)
        if closed:
            await self.close()
        return status, found

    async def close(self) -> None:
        """End the connection."""
        if self.streams:
            self.streams[1].close()
            self.streams = None


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    return int(head[9:12]), body, "connection: close" in head


def shown(title: str, **numbers: float | str) -> None:
    cells = (
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )
    print(f"{title:34} " + "  ".join(cells), flush=True)


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{q}_ms": 1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * q / 100))] for q in (50, 90, 99)}


# Latency and load


async def paced(
    port: int, request: tuple[str, bytes, str], seconds: float, rate: float
) -> tuple[list[float], Counter[int]]:
    """Requests at a fixed rate, whether those before were answered or not; each on a connection of a pool."""
    loop, took, statuses = asyncio.get_running_loop(), [], Counter[int]()
    pool: list[Client] = []

    async def one(at: float) -> None:
        client = pool.pop() if pool else Client(port)
        status, _ = await client.ask(b"POST", *request)
        took.append(loop.time() - at)
        statuses[status] += 1
        pool.append(client)

    began, tasks = loop.time(), []
    for k in range(round(seconds * rate)):
        at = began + k / rate
        await asyncio.sleep(max(0.0, at - loop.time()))
        tasks.append(asyncio.create_task(one(at)))
    await asyncio.gather(*tasks)
    return took, statuses


async def pressed(
    port: int, request: tuple[str, bytes, str], clients: int, seconds: float, n: int = 0
) -> tuple[float, list[float], Counter[int]]:
    """Clients that ask again as soon as they are answered, for some seconds or until ``n`` answers."""
    loop, took, statuses = asyncio.get_running_loop(), [], Counter[int]()
    began = loop.time()

    async def one() -> None:
        client = Client(port)
        while (len(took) < n) if n else (loop.time() - began < seconds):
            at = loop.time()
            status, _ = await client.ask(b"POST", *request)
            took.append(loop.time() - at)
            statuses[status] += 1
            if status == 429:
                await asyncio.sleep(1)
        await client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return loop.time() - began, took, statuses


def latency(args: argparse.Namespace, request: tuple[str, bytes, str]) -> None:
    with server(args) as running:
        asyncio.run(paced(running.port, request, 3, args.rate))
        before = running.cpu_s()
        took, statuses = asyncio.run(paced(running.port, request, args.seconds, args.rate))
        cpu = 1e3 * (running.cpu_s() - before) / len(took)
        shown(
            f"{args.rate:g} requests/s, {args.seconds:g} s",
            **percentiles(took),
            cpu_ms=cpu,
            statuses=str(dict(statuses)),
        )


def load(args: argparse.Namespace, request: tuple[str, bytes, str]) -> None:
    with server(args, "--max-batch", "1", "--batch-wait-ms", "0") as running:
        asyncio.run(pressed(running.port, request, 1, 2))
        before = running.cpu_s()
        wall, took, statuses = asyncio.run(pressed(running.port, request, 1, args.seconds / 2))
        alone, cpu_alone = len(took) / wall, 1e3 * (running.cpu_s() - before) / len(took)
        shown(
            "one at a time, no batches",
            per_s=alone,
            **percentiles(took),
            cpu_ms=cpu_alone,
            statuses=str(dict(statuses)),
        )
    with server(args) as running:
        asyncio.run(pressed(running.port, request, args.clients, 5))
        memory, before = running.rss_mb(), running.cpu_s()
        wall, took, statuses = asyncio.run(pressed(running.port, request, args.clients, args.seconds))
        together, cpu = len(took) / wall, 1e3 * (running.cpu_s() - before) / len(took)
        after = running.rss_mb()
        shown(
            f"{args.clients} clients, {args.seconds:g} s",
            per_s=together,
            **percentiles(took),
            cpu_ms=cpu,
            statuses=str(dict(statuses)),
        )
        shown("memory", before_mb=memory, after_mb=after, grown_percent=100 * (after / memory - 1))
        shown("throughput", ratio=f"{together / alone:.2f}", cpu_ratio=f"{cpu_alone / cpu:.2f}")
        errors = {status: n for status, n in statuses.items() if status not in (200, 429)}
        if errors:
            raise SystemExit(f"errors under load: {errors}")


# Hostile requests


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content[: rng.choice([len(content), rng.randrange(len(content))])])
    for _ in range(rng.choice([1, 4, 64])):
        if changed:
            changed[rng.randrange(min(len(changed), rng.choice([64, len(changed)])))] = rng.randrange(256)
    return bytes(changed)


def hostile_kinds(args: argparse.Namespace) -> dict[str, Callable[[random.Random], bytes]]:
    """Whole requests, as bytes on the wire."""
    files = [sound(args.rate_hz, kind, 0.3) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF")]

    def post(path: str, body: bytes, kind: str, length: str = "") -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        return f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body

    def junk_json(rng: random.Random) -> bytes:
        return rng.choice([
            b"{", b"[" * rng.randrange(1, 50_000), json.dumps({"text": rng.randrange(9)}).encode(), b"\xff\xfe",
            b'{"text": "\\ud800"}', json.dumps({"text": ["x"] * 500}).encode(), b'{"text": NaN}', b"null", b'""',
            json.dumps({"text": "x", "model": "../../etc/passwd"}).encode(), b'{"text": "' + b"x" * 30_000 + b'"}',
            json.dumps({"clips": [{"audio": "AAAA" * rng.randrange(99)}] * rng.randrange(80)}).encode(),
        ])  # fmt: skip

    paths = ("/v1/predict/text", "/predict", "/v1/predict/audio/batch")
    return {
        "damaged files": lambda rng: post("/v1/predict/audio", mutated(rng.choice(files), rng), "audio/wav"),
        "random bytes": lambda rng: post("/v1/predict/audio", rng.randbytes(rng.randrange(5000)), "audio/ogg"),
        "random JSON": lambda rng: post(rng.choice(paths), junk_json(rng), "application/json"),
        "wrong types": lambda rng: post(rng.choice(paths), files[0], rng.choice(["text/plain", "", "a" * 2000])),
        "wrong routes": lambda rng: (
            f"{rng.choice(['GET', 'PUT', 'DELETE', 'TRACE'])} /{rng.randbytes(9).hex()}/%2e%2e%00 HTTP/1.1\r\n".encode()
            + b"Host: localhost\r\n\r\n"
        ),
        "wrong queries": lambda rng: post(
            f"/v1/predict/audio?timeline={rng.randbytes(3).hex()}&model={rng.randbytes(3).hex()}", files[0], "audio/wav"
        ),
        "wrong hosts": lambda rng: b"GET /v1/models HTTP/1.1\r\nHost: " + rng.randbytes(5).hex().encode() + b"\r\n\r\n",
        "wrong lengths": lambda rng: post("/predict", b"{}", "application/json", rng.choice(["9" * 11, "-1", "1e9"])),
        "no HTTP": lambda rng: rng.choice([rng.randbytes(300), b"\r\n" * 50, b"GET", b"A" * 70_000, b"\x16\x03\x01"]),
        "early closers": lambda rng: post("/v1/predict/audio", files[0], "audio/wav")[: rng.randrange(1, 9999)],
    }  # fmt: skip


async def attack(port: int, request: bytes, patience: float, *, leave: bool) -> int:
    """Status of what one hostile request gets; 0 where the connection ends without one."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            if leave:
                await writer.drain()
                return 0
            async with asyncio.timeout(patience):
                return (await response(reader))[0]
        finally:
            writer.close()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError):
        return 0


async def dripped(port: int, seconds: float) -> int:
    """A slow sender: a byte of its body each tenth of a second."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999\r\n\r\n"
        )
        answer = asyncio.create_task(response(reader))
        try:
            until = time.monotonic() + seconds
            while not answer.done() and time.monotonic() < until:
                writer.write(b" ")
                await asyncio.sleep(0.1)
            return (await answer)[0] if answer.done() else 0
        finally:
            answer.cancel()
            writer.close()
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0


def hostile(args: argparse.Namespace, request: tuple[str, bytes, str]) -> None:
    kinds, rng = hostile_kinds(args), random.Random(0)
    found: dict[str, Counter[int]] = {kind: Counter() for kind in [*kinds, "slow senders"]}

    async def go(port: int) -> tuple[bytes, bytes]:
        good = (await Client(port).ask(b"POST", *request))[1]
        turns = iter([kind for kind in kinds for _ in range(args.requests // len(kinds))])

        async def worker() -> None:
            for kind in turns:
                status = await attack(port, kinds[kind](rng), 40, leave=kind == "early closers")
                found[kind][status] += 1

        async def slow() -> None:
            for _ in range(5):
                found["slow senders"][await dripped(port, 10)] += 1

        await asyncio.gather(*(worker() for _ in range(32)), *(slow() for _ in range(40)))
        return good, (await Client(port).ask(b"POST", *request))[1]

    # A name that the attack does not know makes "wrong hosts" wrong; short times make slow senders fail soon.
    with server(args, "--header-timeout", "3", "--body-timeout", "2") as running:
        memory = running.rss_mb()
        before, after = asyncio.run(go(running.port))
        for kind, statuses in found.items():
            shown(kind, n=str(statuses.total()), statuses=str(dict(sorted(statuses.items()))))
        total = sum(found.values(), Counter[int]())
        bad = {status: n for status, n in total.items() if status >= 500 and status not in (503, 504)}
        same = close(json.loads(before), json.loads(after))
        shown(
            "all", n=str(total.total()), bad=str(bad), next_good=str(same), before_mb=memory, after_mb=running.rss_mb()
        )
        if bad or not same:
            raise SystemExit("the server did not stand it")


def close(a: object, b: object) -> bool:
    """Whether two answers are the same up to the last bits."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    return abs(a - b) < 1e-4 if isinstance(a, float) and isinstance(b, float) else a == b


# The allocator


def allocator(args: argparse.Namespace, request: tuple[str, bytes, str]) -> None:
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for k in range(args.rounds):
        for way in ("with", "without")[:: 1 if k % 2 else -1]:
            with server(args, variables=GLIBC_DEFAULT if way == "without" else {}) as running:
                for clients in (1, args.clients):
                    asyncio.run(pressed(running.port, request, clients, 0, 50))
                    before = _cpu_s(running.process.pid)
                    asyncio.run(pressed(running.port, request, clients, 0, args.requests))
                    cpu = 1e3 * (_cpu_s(running.process.pid) - before) / args.requests
                    row = {"cpu_ms": cpu, "rss_mb": running.rss_mb()}
                    found.setdefault((clients, way), []).append(row)
    for clients in (1, args.clients):
        middle = {
            way: {key: statistics.median(row[key] for row in found[clients, way]) for key in ("cpu_ms", "rss_mb")}
            for way in ("with", "without")
        }
        for way, row in middle.items():
            shown(f"{clients} client(s), {way}", **row)
        ratios = {key: f"{middle['with'][key] / middle['without'][key]:.2f}" for key in ("cpu_ms", "rss_mb")}
        shown(f"{clients} client(s), ratio", **ratios)


def sound(rate: int, kind: str = "WAV", seconds: float = 3.0) -> bytes:
    """A clip that moves as speech does, in 16 bits."""
    rng = np.random.default_rng(0)
    t = np.arange(round(rate * seconds)) / rate
    pitch = 2 * np.pi * np.cumsum(180 + 40 * np.sin(2 * np.pi * 0.7 * t)) / rate
    voice = sum(np.sin(k * pitch) / k for k in range(1, 12)) * np.abs(np.sin(2 * np.pi * 2 * t))
    file = io.BytesIO()
    soundfile.write(file, 0.2 * voice + 0.005 * rng.normal(size=len(t)), rate, format=kind)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=["latency", "load", "hostile", "allocator"])
    parser.add_argument("--model", required=True, help="run or exported file")
    parser.add_argument("--artifacts", default="")
    parser.add_argument("--modality", default="audio", choices=["audio", "text"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second of `latency`")
    parser.add_argument("--rate-hz", type=int, default=48_000, help="sampling rate of the clip")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    request = ("/v1/predict/audio", sound(args.rate_hz), "audio/wav")
    if args.modality == "text":
        request = ("/v1/predict/text", json.dumps({"text": TEXT}).encode(), "application/json")
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    for part in args.parts:
        print(f"{part}:")
        {"latency": latency, "load": load, "hostile": hostile, "allocator": allocator}[part](args, request)
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
