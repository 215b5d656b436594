"""``python -m fastbert.serve [RUN | DIR | runs/]``: models over HTTP, a page to play with them, and live runs."""

import contextlib
import importlib
import os
import signal
import socket
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import require, require_count

PACKAGES = ("starlette", "uvicorn", "pydantic", "orjson")  # of the extra
MOST_WORKERS = 8  # a batch a core needs no barriers; more of them would be too small
LOOK_S = 0.5  # between looks for the parent
GRACE_S = 2  # for requests that are being answered when the server stops
API_KEY = "FASTBERT_API_KEY"


@dataclass(frozen=True)
class ServeOptions:
    """Serve models over HTTP: an API with OpenAI's embeddings, a page to play, and live training runs.

    Needs: pip install 'fastbert[serve]'. The address is printed at once; /docs lists the API.
    """

    directory: Positional[str] = "runs"
    """A trained or fine-tuned run, a Hugging Face directory, or a directory with several of these."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets other machines in: use it with a key."""
    port: int = 8000
    """Port (0: any free one)."""
    api_key: Annotated[str | None, unset("KEY")] = None
    """Answer only requests with "Authorization: Bearer KEY" (default: the environment variable FASTBERT_API_KEY)."""
    batch_tokens: Annotated[int | None, unset("N")] = None
    """Most tokens computed at a time (default: 2048 on a CPU, 65536 on a GPU)."""
    batch_ms: float = 2.0
    """Longest wait for further requests to compute together, in milliseconds; a lone client never waits."""
    queue: int = 256
    """Requests that may wait; a further one is answered with 503."""
    max_body: int = 4_194_304
    """Most bytes of a request."""
    max_texts: int = 2048
    """Most texts in a request."""
    max_tokens: int = 524_288
    """Most tokens that one request may send through the model."""
    watch: bool = False
    """Show runs only, without loading a model."""
    parent: Annotated[int | None, unset("PID")] = None
    """End when this process, which has started the server, does, however it ends."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Of embeddings, as in fastbert.load (auto: bf16 on a CPU with instructions for it)."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def check(options: ServeOptions) -> None:
    require_count(options, "queue", "max_body", "max_texts", "max_tokens", "batch_tokens")
    require(options, "milliseconds from 0 to 1000", lambda ms: 0 <= ms <= 1000, "batch_ms")
    require(options, "0 … 65535", lambda port: 0 <= port < 65_536, "port")
    if options.api_key is not None and not (options.api_key.isascii() and options.api_key.isprintable()):
        raise InputError("--api-key: expected printable ASCII characters")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: the address is in use, or not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # with the protocol unnamed, asyncio leaves Nagle's algorithm on: each answer waits 40 ms for the client's ACK
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}. Try: 127.0.0.1") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--port {port} on {host}: {reason}. Try: another --port, or 0 for any free one") from None
    return listening


def end_with(parent: int) -> None:
    """Wait for the end of the process that has started this one, then stop as by a signal.

    A process whose parent was killed gets another one; a pipe would stay open in the parent's other children.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


def main(options: ServeOptions) -> int:
    check(options)
    if options.watch:
        os.nice(5)  # the training that is watched comes first
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"the package {package} is missing. Try: pip install 'fastbert[serve]'") from None
    from fastbert.serve.models import Models, find

    served = find(Path(options.directory))
    listening = listen(options.host, options.port)
    with contextlib.closing(listening):
        host, port = listening.getsockname()[:2]
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C stops)", flush=True)
        models = Models(served, options.device, options.precision, only_runs=options.watch)
        if len(served) == 1 and models.names:  # connections wait in the socket's queue
            models.get(models.names[0])
        return serve(options, models, listening, host)


def compute_threads() -> int:
    import torch

    return torch.get_num_threads()


def serve(options: ServeOptions, models: Any, listening: socket.socket, host: str) -> int:
    """Answer requests until a signal."""
    import uvicorn

    from fastbert.serve.app import is_loopback, make_app
    from fastbert.serve.queue import QueueSizes
    from fastbert.serve.service import Limits, Service

    # answers count the truncated texts; Python would print each message once, and keep it
    warnings.filterwarnings("ignore", r".* longer than \d+ tokens: truncated")
    on_cpu = not options.watch and (options.device or "cpu") == "cpu"
    threads = compute_threads() if on_cpu else None
    sizes = QueueSizes(
        batch_tokens=options.batch_tokens or (65_536 if (options.device or "cpu").startswith("cuda") else 2048),
        batch_ms=options.batch_ms,
        waiting_requests=options.queue,
        workers=min(threads or 1, MOST_WORKERS),
    )
    service = Service(models, Limits(options.max_body, options.max_texts, options.max_tokens), sizes, threads)
    key = options.api_key or os.environ.get(API_KEY) or None
    local = is_loopback(host)
    if key is None and not local:
        print("note: whoever reaches this address may use it. Try: --api-key", file=sys.stderr)
    app = make_app(service, api_key=key, local=local)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            app.state.stopping.set()  # live pages end their streams
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.queue.refuse()  # at once: the time that uvicorn gives is for batches that are being computed
            await super().shutdown(sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            """As uvicorn's, but a signal is not raised again afterwards: it ends in exit code 0."""
            before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for sig, handler in before.items():
                    signal.signal(sig, handler)

    if options.parent is not None:
        threading.Thread(target=end_with, args=(options.parent,), daemon=True).start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S)
    Server(config).run(sockets=[listening])
    print("stopped", flush=True)
    if service.queue.running:  # a long computation: the thread cannot be interrupted, and its answer has no reader
        sys.stdout.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, ServeOptions))
