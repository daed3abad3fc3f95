"""A server of S3 on this machine (moto), for tests and harnesses; skipped where moto is not installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "bucket"


def environment(address: str) -> dict[str, str]:
    """What a process must be told to use the server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def serving(output: Path) -> Iterator[str]:
    """A server with one empty bucket; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    without_proxies = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with output.open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=without_proxies)
        try:
            for _ in range(600):
                try:
                    _request(f"{address}/{BUCKET}", "PUT")
                    break
                except OSError:
                    if server.poll() is not None:
                        raise
                    time.sleep(0.1)
            yield address
        finally:
            server.kill()
            server.wait()


def _request(address: str, method: str, content: bytes = b"") -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(address, content or None, {"Content-Type": "text/plain"}, method=method)
    with opener.open(request, timeout=30) as answer:
        found: bytes = answer.read()
        return found


def only_known_users(address: str) -> None:
    """Have the server refuse those whose keys it does not know, which is everybody."""
    _request(f"{address}/moto-api/reset-auth", "POST", b"0")


def anybody(address: str) -> None:
    """Have it ask for no keys again."""
    _request(f"{address}/moto-api/reset-auth", "POST", b"inf")
