"""A real HTTP server on this machine that does what a test tells it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """A mirror on this machine: `answers` holds what it does for a path, `asked` the paths that it was asked for."""

    def __init__(self):
        self.answers, self.asked = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                answer = server.answers.get(self.path, send(b"not here", status=404))
                answer(self)

            def log_message(self, *_):
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=[0.01], daemon=True).start()

    def stop(self):
        """Answer no more."""
        self._http.shutdown()
        self._http.server_close()


def send(body, status=200, expected=None, **headers):
    """Answer with a body; `expected` is the length that the header tells."""

    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if expected is None else expected))
        handler.end_headers()
        handler.wfile.write(body)

    return answer
