"""``rsir serve RUN``: recommendations over HTTP."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys

from rsir.cli.parsing import Parser
from rsir.errors import ConfigError
from rsir.files import local
from rsir.runtime.environment import check_device

__all__ = ["main", "parser"]


def parser() -> Parser:
    """The parser of the command."""
    made = Parser("serve", "Answer over HTTP what a run, or a refit, recommends; / is a page to look users up.")
    made.add_argument("run", metavar="RUN", help="folder of the run, or a link; a newer one is taken over")
    made.add_argument("--host", default="127.0.0.1", help="address to listen at; there are no passwords [127.0.0.1]")
    made.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free [8000]")
    made.add_argument("--max-k", type=int, default=1000, metavar="N", help="most items a request may ask for [1000]")
    made.add_argument(
        "--reload", type=float, default=5.0, metavar="SECONDS", help="time between looks for a newer run; 0: none [5]"
    )
    made.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads [1]")
    made.add_argument("--gpu", action="store_true", help="compute on a CUDA device")
    return made


def main(arguments: list[str]) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    options = parser().parse_args(arguments)
    for name, value, least in (("--max-k", options.max_k, 1), ("--threads", options.threads, 1)):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, got {value}")
    if not 0 <= options.port < 2**16:
        raise ConfigError(f"--port: expected a number in 0..65535, got {options.port}")
    if not 0 <= options.reload < 1e9:
        raise ConfigError(f"--reload: expected seconds of 0 or more, got {options.reload}")
    device = "cuda" if options.gpu else "cpu"
    check_device(device, "--gpu")
    try:
        import uvicorn

        from rsir.service.app import application
    except ImportError as cause:
        raise ConfigError(f"rsir serve needs FastAPI and uvicorn: pip install 'rsir[serve]' ({cause})") from cause
    import torch

    from rsir.service.served import Served

    torch.set_num_threads(options.threads)
    served = Served(local(options.run), device)
    with _listening(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        app = application(served, most=options.max_k, every=options.reload)
        print(f"rsir: serving {options.run}, round {served.run.best}, at http://{host}:{port}/", flush=True)
        if not _is_loopback(host):
            print("rsir: note: there are no passwords: others on the network see users' histories", file=sys.stderr)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Else the body of an answer waits 40 ms for its head to be confirmed; asyncio leaves such sockets as they are.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as cause:
        raise ConfigError(
            f"--host {host} --port {port}: cannot be listened at: {_reason(cause)}; choose another port, "
            "or 0 for any that is free"
        ) from cause


def _reason(cause: OSError) -> str:
    return os.strerror(cause.errno) if cause.errno is not None and cause.errno > 0 else str(cause.strerror or cause)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
