"""An endpoint that speaks OpenAI's API and says what a test has prepared."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Endpoint(BaseHTTPRequestHandler):
    """Answers in turn with what the test prepared; keeps what it was asked."""

    answers: list[Any]
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said |= {"path": self.path, "authorization": self.headers.get("Authorization")}
        type(self).asked.append(said)
        answer = type(self).answers[min(len(type(self).asked), len(type(self).answers)) - 1]
        status, body = (answer, {}) if isinstance(answer, int) else (200, answer)
        if isinstance(body, str):
            body = {"choices": [{"message": {"role": "assistant", "content": body}}]}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def serving(*answers: Any) -> Iterator[tuple[type[Endpoint], str]]:
    """The endpoint, on a port of its own, and its base URL; an answer that is a number is an HTTP status."""
    handler = type("Handler", (Endpoint,), {"answers": list(answers), "asked": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield handler, f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
