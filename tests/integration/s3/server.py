"""An S3 server on loopback, with faults on demand: run by the Python of its own environment (`make s3-test`).

It prints its port, takes a command a line from standard input and answers each with a line:

    fail N        let every Nth request fail, in turn by 503, by a cut connection, and by one cut once all is done
    fail 0        no more
    refuse TEXT   answer 403 to what would write an object whose key has this text; without TEXT no more
    deny          take no credentials; `admit` takes any
    writes        print what has been written or deleted since the last time, as JSON
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import requests
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

REFUSED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


class Faulty:
    """Stands in front of moto's application and lets requests fail."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.every = self.requests = self.failed = 0
        self.refused = ""
        self.writes: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path.startswith("/moto-api"):
            return self.app(environ, start_response)
        with self.lock:
            self.requests += 1
            fails = self.every and self.requests % self.every == 0
            how = self.failed % 3
            self.failed += bool(fails)
            if method not in ("GET", "HEAD"):
                self.writes.append(f"{method} {path}")
        if method in ("PUT", "POST") and self.refused and self.refused in path:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [REFUSED]
        if fails and how == 0:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [])
            return [b"<Error><Code>SlowDown</Code></Error>"]
        if fails and how == 1:
            return cut(environ)
        answer = self.app(environ, start_response)
        if fails:
            for _ in answer:
                pass
            return cut(environ)
        return answer


def cut(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        command, _, value = line.strip().partition(" ")
        answer = "done"
        with app.lock:
            if command == "fail":
                answer, app.every, app.failed = str(app.failed), int(value), 0
            elif command == "refuse":
                app.refused = value
            elif command == "writes":
                answer, app.writes = json.dumps(app.writes), []
        if command in ("deny", "admit"):
            count = "0" if command == "deny" else "inf"
            url = f"http://127.0.0.1:{server.server_port}/moto-api/reset-auth"
            answer = str(requests.post(url, data=count.encode(), timeout=10).status_code)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
