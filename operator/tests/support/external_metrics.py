"""External metrics for a HorizontalPodAutoscaler: one value for every name, read anew from a file each time.

external_metrics.py ADDRESS KEY CERTIFICATE VALUE_FILE
"""

import http.server
import json
import ssl
import sys

ADDRESS, KEY, CERTIFICATE, VALUE_FILE = sys.argv[1:]
GROUP = "external.metrics.k8s.io/v1beta1"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if "namespaces" in parts:
            with open(VALUE_FILE) as file:
                value = file.read().strip()
            item = {"metricName": parts[-1], "metricLabels": {}, "timestamp": "2026-01-01T00:00:00Z", "value": value}
            body = {"kind": "ExternalMetricValueList", "apiVersion": GROUP, "metadata": {}, "items": [item]}
        else:
            resource = {"name": "backlog", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
            body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP, "resources": [resource]}
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((ADDRESS, 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
