#!/usr/bin/env bash
# etcd3gw 2.7.0: where the server ends the stream of a watch, as any does that is stopped in order, the iterator that
# watch() returned neither ends nor raises: next() waits for ever, with its connection closed, and nothing is logged.
# A program learns of no change from then on. (aetcd 1.0.0 raises there, the npm package etcd3 1.1.2 goes on.)
#
# Expected: the iterator ends, raises, or watches again.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check etcd3gw==2.7.0
"$dir/venv/bin/python" - <<'PYTHON'
import json
import os
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import etcd3gw

EVENT = {"kv": {"key": b64encode(b"job").decode(), "value": b64encode(b"1").decode(), "mod_revision": "2"}}
SENT = ({"result": {"created": True}}, {"result": {"events": [EVENT]}})
requests = []


class Watched(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b'{"etcdserver": "3.5.1", "etcdcluster": "3.5.0"}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        requests.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for message in SENT:
            line = json.dumps(message).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")  # the stream ends in order
        self.close_connection = True

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Watched)
threading.Thread(target=server.serve_forever, daemon=True).start()
events, _ = etcd3gw.client(port=server.server_port).watch("job")
told = []


def follow():
    try:
        for event in events:
            told.append(event["kv"]["value"])
        told.append("ended")
    except Exception as error:
        told.append(repr(error))


watching = threading.Thread(target=follow, daemon=True)
watching.start()
watching.join(10)
print(f"10 s after the stream has ended: the iterator gave {told}, is waiting: {watching.is_alive()}; requests: {requests}")
os._exit(0 if watching.is_alive() and told == [b"1"] and len(requests) == 1 else 1)
PYTHON
