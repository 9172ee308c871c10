"""A stand-in for a W&B server: what the real client needs to log runs, on a port of this machine.

python -m tests.wandb_server 8080    # then WANDB_BASE_URL=http://127.0.0.1:8080 and any key of 40 characters
"""

import json
import re
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "somebody"


class Run:
    """What the server knows of one run."""

    def __init__(self, name: str):
        self.name = name
        self.fields: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.lines: dict[int, str] = {}
        self.summary: dict[str, Any] = {}
        self.exitcode: int | None = None
        self.files: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return the rows of the history in their order."""
        return [json.loads(line) for _, line in sorted(self.lines.items())]


class Server(ThreadingHTTPServer):
    """Keeps runs by name; use it as a context, its address is `url`."""

    daemon_threads = True

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, Run] = {}
        self.unknown: set[str] = set()
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


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            if self.path == "/graphql":
                self._answer(self._graphql(json.loads(body)))
            elif stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                self._stream(self.server.run(stream[1]), json.loads(body))
                self._answer({})
            else:
                self._answer({}, 404)

    def do_PUT(self) -> None:
        with self.server.lock:
            self.server.blobs[self.path] = self._body()
            if file := re.fullmatch(r"/upload/([^/]+)/(.*)", self.path):
                self.server.run(file[1]).files[file[2]] = self.server.blobs[self.path]
        self._answer({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return zlib.decompress(body, 31) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, run: Run, body: dict[str, Any]) -> None:
        """Take the rows, the summary and the end of a run."""
        for name, part in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                run.lines |= {part["offset"] + place: line for place, line in enumerate(part["content"])}
            elif name == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        if body.get("complete"):
            run.exitcode = body.get("exitcode")

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        named = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        operation = request.get("operationName") or (named[1] if named else "")
        variables = request.get("variables") or {}
        answer = getattr(self, f"_on_{operation}", None)
        if answer is None:
            self.server.unknown.add(operation)
            return {"errors": [{"message": f"{operation} is not known here"}], "data": None}
        return {"data": answer(variables)}

    def _on_Viewer(self, variables: dict) -> dict:
        return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}",
                           "teams": {"edges": []}}}  # fmt: skip

    _on_GetViewer = _on_GetDefaultEntity = _on_Viewer

    def _on_ServerFeaturesQuery(self, variables: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def _on_RunResumeStatus(self, variables: dict) -> dict:
        run = self.server.runs.get(variables["name"])
        if run is None or not run.fields:
            return {"model": None}
        bucket = {
            "name": run.name, "displayName": run.name, "id": run.name, "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary), "historyLineCount": len(run.lines), "eventsLineCount": 0,
            "logLineCount": 0, "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsTail": "[]", "tags": [], "wandbConfig": "{}",
        }  # fmt: skip
        return {"model": {"id": "1", "name": "p", "entity": {"id": "1", "name": ENTITY}, "bucket": bucket}}

    def _on_UpsertBucket(self, variables: dict) -> dict:
        run = self.server.run(variables["name"])
        inserted = not run.fields
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        run.config |= json.loads(variables.get("config") or "{}")
        project = {"name": variables.get("project") or "p", "entity": {"name": ENTITY}}
        bucket = {"id": run.name, "name": run.name, "displayName": run.name, "config": json.dumps(run.config),
                  "sweepName": None, "project": project, "historyLineCount": len(run.lines)}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _on_CreateRunFiles(self, variables: dict) -> dict:
        files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{variables['run']}/{name}"}
                 for name in variables["files"]]  # fmt: skip
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _on_ArtifactType(self, variables: dict) -> dict:
        return {"project": {"artifactType": None, "artifact": None}}

    def _on_CreateArtifact(self, variables: dict) -> dict:
        given = variables["input"]
        run = self.server.run(given["runName"])
        made = {
            "id": f"artifact-{len(run.artifacts)}-{run.name}",
            "name": given["artifactCollectionName"],
            "type": given["artifactTypeName"],
            "state": "PENDING",
        }
        run.artifacts.append(made)
        return {"createArtifact": {"artifact": {"id": made["id"], "state": "PENDING",
                                                "artifactSequence": {"id": "1", "latestArtifact": None}}}}  # fmt: skip

    def _on_CreateArtifactManifest(self, variables: dict) -> dict:
        file = {"id": "1", "name": "wandb_manifest.json", "displayName": "wandb_manifest.json", "uploadHeaders": [],
                "uploadUrl": f"{self.server.url}/blob/{variables.get('artifactID')}/manifest"}  # fmt: skip
        return {"createArtifactManifest": {"artifactManifest": {"id": "1", "file": file}}}

    _on_UpdateArtifactManifest = _on_CreateArtifactManifest

    def _on_CreateArtifactFiles(self, variables: dict) -> dict:
        edges = []
        for spec in variables["input"]["artifactFiles"] if "input" in variables else variables["artifactFiles"]:
            url = f"{self.server.url}/blob/{spec['artifactID']}/{spec['name']}"
            edges.append({"node": {"id": "1", "name": spec["name"], "displayName": spec["name"], "uploadUrl": url,
                                   "uploadHeaders": [], "storagePath": None, "uploadMultipartUrls": None,
                                   "artifact": {"id": spec["artifactID"]}}})  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _on_CommitArtifact(self, variables: dict) -> dict:
        for run in self.server.runs.values():
            for made in run.artifacts:
                if made["id"] == variables["artifactID"]:
                    made["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}


if __name__ == "__main__":
    with Server(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as server:
        print(server.url, flush=True)
        threading.Event().wait()
