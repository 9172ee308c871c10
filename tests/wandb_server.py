"""A stand-in for a W&B server: what the real client needs to log runs, hand out sweeps and read back.

python -m tests.wandb_server 8080    # then WANDB_BASE_URL=http://127.0.0.1:8080 and any key of 40 characters

with Server() as server:
    server.fail("Runs", 429, "silence")   # the next two requests of this operation, or of `file_stream`
    server.deleted.add("abc")             # this run's id is refused with 409
    server.runs["abc"].broken = True      # whatever asks for this run gets an error
    server.requests["Runs"]               # how often it was asked for
"""

import itertools
import json
import re
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SILENCE_SECONDS = 3.0


class Run:
    """What the server knows of one run; its attributes may be set to make it crashed, old or broken."""

    def __init__(self, name: str, config: dict[str, Any] | None = None, sweep: str | None = None):
        self.name = name
        self.sweep = sweep
        self.fields: dict[str, Any] = {}
        self.config: dict[str, Any] = config or {}
        self.lines: dict[int, str] = {}
        self.log: dict[int, str] = {}
        self.summary: dict[str, Any] = {}
        self.exitcode: int | None = None
        self.preempting = False
        self.crashed = False
        self.broken = False
        self.stop = False
        self.files: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return the rows of the history in their order."""
        return [json.loads(line) for _, line in sorted(self.lines.items())]

    @property
    def state(self) -> str:
        """Return what W&B calls the state of the run."""
        if self.exitcode is not None:
            return "finished" if self.exitcode == 0 else "preempted" if self.preempting else "failed"
        return "crashed" if self.crashed else "running"


class Sweep:
    """A grid and its runs."""

    def __init__(self, name: str, project: str, config: dict[str, Any]):
        self.name, self.project, self.config, self.state = name, project, config, "RUNNING"

    def points(self) -> list[dict[str, Any]]:
        """Expand the grid."""
        values = [given.get("values", [given.get("value")]) for given in self.config["parameters"].values()]
        return [dict(zip(self.config["parameters"], point, strict=True)) for point in itertools.product(*values)]

    def next_command(self, runs: dict[str, Run]) -> dict[str, Any]:
        """Tell an agent that has nothing to do what to do; as W&B does, by the runs' configs.

        A run that was preempted comes with its whole config, not only with the keys of the sweep.
        """
        mine = [run for run in runs.values() if run.sweep == self.name]
        program = self.config.get("program", "")
        for run in mine:
            if run.state == "preempted":
                run.exitcode, run.preempting = None, False
                return {"type": "resume", "run_id": run.name, "args": run.config, "program": program}
        for point in self.points() if self.state == "RUNNING" else ():
            if not any(all(run.config.get(k, {}).get("value") == v for k, v in point.items()) for run in mine):
                run = Run(f"{self.name}r{len(mine)}", {k: {"value": v} for k, v in point.items()}, self.name)
                run.fields["project"] = self.project
                runs[run.name] = run
                return {"type": "run", "run_id": run.name, "args": run.config, "program": program}
        self.state = "FINISHED" if self.state == "RUNNING" else self.state
        return {"type": "exit"}


class Server(ThreadingHTTPServer):
    """Keeps runs and sweeps by name; use it as a context, its address is `url`."""

    daemon_threads = True
    request_queue_size = 128  # else the client's uploads, all at once, wait a second

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Sweep] = {}
        self.alerts: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.unknown: set[str] = set()
        self.deleted: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.failures: dict[str, deque[int | str]] = defaultdict(deque)
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that hang up."""

    def run(self, name: str) -> Run:
        """Return a run, made when it is first named."""
        return self.runs.setdefault(name, Run(name))

    def fail(self, operation: str, *failures: int | str) -> None:
        """Let the next requests of an operation fail: with an HTTP status such as 429, or by `silence`."""
        self.failures[operation] += failures

    def artifacts(self) -> list[dict[str, Any]]:
        """List the artifacts of all runs."""
        return [made for run in self.runs.values() for made in run.artifacts]


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer takes 40 ms

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self._body())
        if self.path == "/graphql":
            self._graphql(body)
        elif stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            if self._fails("file_stream"):
                return
            with self.server.lock:
                run = self.server.run(stream[1])
                _take_stream(run, body)
            self._answer({"stopped": run.stop} if run.stop else {})
        else:
            self._answer({}, 404)

    def do_PUT(self) -> None:
        with self.server.lock:
            self.server.blobs[self.path] = self._body()
            if file := re.fullmatch(r"/upload/([^/]+)/(.*)", self.path):
                self.server.run(file[1]).files[file[2]] = self.server.blobs[self.path]
        self._answer({})

    def do_GET(self) -> None:
        self.server.requests["GET"] += 1
        blob = self.server.blobs.get(self.path.partition("?")[0])
        self._answer(blob if blob is not None else {}, 200 if blob is not None else 404)

    def _graphql(self, request: dict[str, Any]) -> None:
        from tests import wandb_graphql

        named = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        operation = request.get("operationName") or (named[1] if named else "")
        variables = request.get("variables") or {}
        if operation == "UpsertBucket" and variables.get("name") in self.server.deleted:
            self._answer({"errors": [{"message": "run was previously created and deleted"}]}, 409)
        elif not self._fails(operation):
            with self.server.lock:
                answer = wandb_graphql.answer(self.server, operation, variables)
            self._answer(answer)

    def _fails(self, operation: str) -> bool:
        """Count a request; if the next one of its operation is to fail, let it fail."""
        self.server.requests[operation] += 1
        if not self.server.failures[operation]:
            return False
        failure = self.server.failures[operation].popleft()
        if failure == "silence":
            time.sleep(SILENCE_SECONDS)
            self.close_connection = True
        else:
            self._answer({"errors": [{"message": f"{operation} fails with {failure}"}]}, failure)
        return True

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return zlib.decompress(body, 31) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: Any, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _take_stream(run: Run, body: dict[str, Any]) -> None:
    """Take the rows, the summary and the end of a run."""
    for name, part in (body.get("files") or {}).items():
        if name == "wandb-history.jsonl":
            run.lines |= {part["offset"] + place: line for place, line in enumerate(part["content"])}
        elif name == "output.log":
            run.log |= {part["offset"] + place: line for place, line in enumerate(part["content"])}
        elif name == "wandb-summary.json":
            run.summary = json.loads(part["content"][-1])
    run.preempting |= bool(body.get("preempting"))
    if body.get("complete"):
        run.exitcode = body.get("exitcode")


if __name__ == "__main__":
    with Server(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as server:
        print(server.url, flush=True)
        threading.Event().wait()
