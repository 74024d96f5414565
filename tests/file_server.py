"""A web server in a thread, which answers what a test wants and can break off in mid-file."""

import base64
import contextlib
import hashlib
import http.server
import re
import socket
import sys
import threading
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Takes it calmly when a client hangs up."""

    def handle_error(self, request, client_address):
        """Prints all errors but that one."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class FileServer:
    """The base of the servers that stand in for hubs.

    Attributes:
        requests: what was asked for, such as "GET /model/config.json"; for a part of a file also
            from which byte, "GET /model/config.json from 1000".
        sent: the names of the files of which anything was sent.
        breaks: for a file's name the number of bytes after which the connection is dropped, once.
        changes: for a number of requests a function that is called when so many have been answered.
        status: if set, the answer to everything.
        status_after_break: what `status` is set to when a connection is dropped.
    """

    def __init__(self):
        self.requests = []
        self.sent = set()
        self.breaks = {}
        self.changes = {}
        self.status = self.status_after_break = None

    @contextlib.contextmanager
    def running(self):
        """Serves on a free port of this machine; gives the address."""

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(handler):
                if change := self.changes.pop(len(self.requests), None):
                    change()
                self.requests.append(f"{handler.command} {handler.path}")
                if self.status is not None:
                    send(handler, self.status, b"")
                else:
                    self.answer(handler)

            do_HEAD = do_GET = do_POST = handle_any

            def log_message(handler, *arguments):
                pass

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                self.address = f"http://127.0.0.1:{server.server_port}"
                yield self.address
            finally:
                server.shutdown()

    def answer(self, handler):
        """Answers one request."""
        raise NotImplementedError

    def send_file(self, handler, name: str, data: bytes, headers: dict) -> None:
        """A file, or the part of it that was asked for, or what the connection lets through."""
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")):
            start = int(asked[1])
            self.requests[-1] += f" from {start}"
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        part = data[start:]
        allowed = None
        if handler.command == "GET":
            self.sent.add(name)
            allowed = self.breaks.pop(name, None)
            self.status = self.status if allowed is None else self.status_after_break
        send(handler, 206 if start else 200, part, {"Accept-Ranges": "bytes", **headers}, allowed)


def send(handler, status: int, data: bytes, headers: dict | None = None, allowed=None) -> None:
    """An answer, of which only the first `allowed` bytes arrive."""
    handler.send_response(status)
    for name, value in {"Content-Length": len(data), **(headers or {})}.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data[:allowed])
    if allowed is not None:
        handler.close_connection = True


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def md5(data: bytes) -> str:
    """The MD5 sum of bytes in base64, as Google's storage writes it."""
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def closed_port() -> str:
    """An address at which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"
