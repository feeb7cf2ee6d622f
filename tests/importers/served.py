"""A server on this machine that misbehaves as servers and networks do, by the first part of the path asked for."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CONTENT = bytes(range(256)) * 1000
TOO_LONG, HALF = 10, len(CONTENT) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD; `asked` lists the paths, `before_the_end` is called when half of a file was sent."""

    def do_GET(self) -> None:
        """Answers as the path says."""
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        getattr(self, f"answer_{self.path.split('/')[1]}")()

    do_HEAD = do_GET

    def answer_whole(self) -> None:
        """The content, half of it at once."""
        self.start(200, {"Content-Length": len(CONTENT)})
        self.send(CONTENT[:HALF])
        self.server.before_the_end()  # type: ignore[attr-defined]
        self.send(CONTENT[HALF:])

    def answer_dropped(self) -> None:
        """Half of it, and the connection is closed."""
        self.start(200, {"Content-Length": len(CONTENT)})
        self.send(CONTENT[:HALF])
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer_silent(self) -> None:
        """Half of it, and then nothing for as long as the server lives."""
        self.start(200, {"Content-Length": len(CONTENT)})
        self.send(CONTENT[:HALF])
        self.server.closing.wait()  # type: ignore[attr-defined]

    def answer_unmeasured(self) -> None:
        """The content without its length, as some servers send it."""
        self.start(200, {})
        self.send(CONTENT)

    def answer_cut(self) -> None:
        """Half of the content without its length: only the hash says that it is not all."""
        self.start(200, {})
        self.send(CONTENT[:HALF])

    def answer_changed(self) -> None:
        """As many bytes, others."""
        self.start(200, {"Content-Length": len(CONTENT)})
        self.send(CONTENT[:-1] + b"!")

    def answer_moved(self) -> None:
        """A redirection to the content."""
        self.start(302, {"Location": "/whole/some.h5", "Content-Length": 0})

    def answer_astray(self) -> None:
        """A redirection to a file of this machine."""
        self.start(302, {"Location": "file:///etc/hostname", "Content-Length": 0})

    def answer_elsewhere(self) -> None:
        """A redirection to another protocol, which urllib would follow."""
        self.start(302, {"Location": "ftp://127.0.0.1/some.h5", "Content-Length": 0})

    def answer_around(self) -> None:
        """A redirection to itself."""
        self.start(302, {"Location": self.path, "Content-Length": 0})

    def answer_missing(self) -> None:
        """That there is no such file."""
        self.start(404, {"Content-Length": 0})

    def answer_timm(self) -> None:
        """Files of a repository as huggingface.co serves them; `whole` has all, `broken` weights that are cut short."""
        _, owner, repository, *_, name = self.path.split("/")
        files = {"config.json": json.dumps({"architecture": "some"}).encode(), "model.safetensors": CONTENT}
        content = files.get(name) if repository in ("whole", "broken") else None
        if content is None:
            code = "EntryNotFound" if repository == "empty" else "RepoNotFound"
            self.start(404, {"X-Error-Code": code, "X-Error-Message": f"nothing in {owner}", "Content-Length": 0})
            return
        about = {"ETag": f'"{name}"', "X-Repo-Commit": "0" * 40, "Content-Length": len(content)}
        self.start(200, about)
        if self.command == "GET":
            self.send(content if repository == "whole" else content[: len(content) // 2])

    def start(self, code: int, headers: dict[str, Any]) -> None:
        """Sends the head of an answer."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def send(self, content: bytes) -> None:
        """Sends bytes of the body, at once."""
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Of 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.closing = threading.Event()
        self.before_the_end = lambda: None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is closed after the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
