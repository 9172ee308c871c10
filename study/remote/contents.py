"""Ask W&B for the contents of many runs at once: config, summary, history, and the address of evaluation.npz.

python -c "from study.remote import contents; print([run.id for run in contents.listed('ENTITY/PROJECT', {})])"
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.remote.api import ask, connect
from study.remote.publish import JOB_TYPE

LIST_PAGE = 500
"""Runs of one request that lists them without their contents."""

PAGE = 25
"""Runs of one request for their contents."""

ROWS = 1000
"""Rows of a run that such a request returns, as many as the client's own scan of a history asks for at a time."""

QUERY = f"""
query RunContents(
  $project: String!, $entity: String!, $cursor: String, $perPage: Int, $order: String, $filters: JSONString
) {{
  project(name: $project, entityName: $entity) {{
    runCount(filters: $filters)
    runs(filters: $filters, after: $cursor, first: $perPage, order: $order) {{
      edges {{
        cursor
        node {{
          id name state config summaryMetrics historyKeys historyLineCount user {{ username }}
          rows: history(minStep: 0, maxStep: {ROWS}, samples: {ROWS})
          artifacts: outputArtifacts(first: 100) {{
            edges {{
              node {{
                versionIndex
                artifactType {{ name }}
                files(first: 1) {{ edges {{ node {{ name: displayName url sizeBytes }} }} }}
              }}
            }}
          }}
        }}
      }}
      pageInfo {{ endCursor hasNextPage }}
    }}
  }}
}}
"""
"""The client's own query for runs, whose objects of the class Run it fills, with the history and the artifacts."""


def listed(path: str, filters: dict[str, Any]) -> list[Any]:
    """List the runs of a project ENTITY/PROJECT, without their contents; raise UserError if W&B does not answer.

    Runs that only hold the page of a report are left out.
    """
    failed = f"the runs of {path} cannot be fetched"
    runs = ask(lambda api: list(api.runs(path, filters, per_page=LIST_PAGE)), failed)
    return [run for run in runs if run.job_type != JOB_TYPE]


def stamp(run: Any) -> list[Any]:
    """Return what changes whenever a run changes: its state, its last sign of life, and the number of its rows."""
    return [run.state, run.heartbeat_at, run.history_line_count]


def author(run: Any) -> str | None:
    """Return the username of whoever started a run, if W&B tells it."""
    user = getattr(run, "user", None)
    return user.username if user else None


def of_runs(path: str, names: Sequence[str]) -> dict[str, Any]:
    """Fetch up to PAGE runs with their contents by one request, and return them by id."""
    api = connect()
    runs = api.runs(path, {"name": {"$in": list(names)}}, per_page=len(names), lazy=False)
    runs.QUERY = QUERY
    found = {run.id: run for run in runs}
    runs.objects.clear()  # which the client would keep
    runs.last_response = None
    return found


def of_run(path: str, name: str) -> Any:
    """Fetch one run by the client's own query, without its history and artifacts, which need further requests."""
    return connect().run(f"{path}/{name}")


def rows(run: Any) -> list[dict[str, Any]]:
    """Return all rows of a run; those that did not come with it are asked for."""
    found = [json.loads(row) for row in getattr(run, "rows", None) or ()]
    is_whole = len(found) >= (run.history_line_count or 0) and hasattr(run, "rows")
    return found if is_whole else list(run.scan_history(use_cache=False))


def download(run: Any, kind: str, folder: Path) -> None:
    """Download the file of the newest artifact of a kind into a folder, if the run has one."""
    # artifacts that came with the run, of one file each
    if hasattr(run, "artifacts"):
        nodes = [edge["node"] for edge in run.artifacts["edges"]]
        files = {
            node["versionIndex"]: edge["node"]
            for node in nodes
            if node["artifactType"]["name"] == kind
            for edge in node["files"]["edges"]
        }
        if files:
            from wandb.apis.public import File

            File(None, files[max(files)]).download(str(folder), api=connect()).close()
        return

    # otherwise the client's own requests
    artifacts = [artifact for artifact in run.logged_artifacts() if artifact.type == kind]
    if artifacts:
        newest = max(artifacts, key=lambda artifact: int(artifact.version.removeprefix("v")))
        newest.download(root=str(folder), skip_cache=True)
