"""Time from starting `shoal up` to the first token of an answer: `python start.py MODEL BUILD_FOLDER`.

The first of two starts warms the file cache; the second one counts. Prints one JSON object.
"""

import http.client
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

MANIFEST = """\
apiVersion: shoal.dev/v1alpha1
kind: ServingCluster
metadata: {{ name: start }}
spec:
  model: {{ name: smollm2, source: {{ path: {model} }} }}
  gateway: {{ port: {port} }}
"""
LIMIT = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def retry(port, began, attempt):
    """Repeats `attempt` on fresh connections until it succeeds; the seconds since `began`."""
    while time.perf_counter() - began < LIMIT:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        try:
            if attempt(connection):
                return time.perf_counter() - began
        except OSError:
            time.sleep(0.005)
        finally:
            connection.close()
    sys.exit(f"nothing within {LIMIT} s")


def ready(connection):
    connection.request("GET", "/ready")
    return connection.getresponse().status == 200


def first_token(connection):
    body = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 8, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status == 200 and response.readline().startswith(b"data: {")


def start(model, build, attempt):
    state = pathlib.Path(tempfile.mkdtemp(prefix="shoal-start-"))
    port = free_port()
    manifest = state / "cluster.yaml"
    manifest.write_text(MANIFEST.format(model=model, port=port))
    command = [build / "shoal", "up", "--state-dir", state, "-f", manifest]
    with open(state / "up.log", "wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            return retry(port, began, attempt)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            shutil.rmtree(state)


def main():
    model, build = sys.argv[1], pathlib.Path(sys.argv[2])
    start(model, build, first_token)
    seconds = {"first_token_seconds": start(model, build, first_token), "ready_seconds": start(model, build, ready)}
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
