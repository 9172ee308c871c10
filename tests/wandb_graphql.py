"""The answers of the stand-in W&B server: a function for every GraphQL operation of the client that a run needs."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tests.wandb_server import Run, Server

ENTITY = "somebody"
CREATED = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
ROWS = 1000
LAST_PAGE = {"endCursor": None, "hasNextPage": False}


def answer(server: "Server", operation: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    several = json.loads(variables.get("filters") or "{}").get("name")
    names = several["$in"] if isinstance(several, dict) else [variables.get(key) for key in ("name", "run", "runName")]
    for name in names:
        if name in server.runs and server.runs[name].broken:
            return {"errors": [{"message": f"run {name} cannot be read"}], "data": None}
    function = OPERATIONS.get(operation)
    if function is None:
        server.unknown.add(operation)
        return {"errors": [{"message": f"{operation} is not known here"}], "data": None}
    return {"data": function(server, variables)}


# logging a run


def viewer(server: "Server", variables: dict) -> dict:
    return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}",
                       "teams": {"edges": []}}}  # fmt: skip


def server_features(server: "Server", variables: dict) -> dict:
    return {"serverInfo": {"features": []}}


def organization(server: "Server", variables: dict) -> dict:
    return {"entity": None}


def run_resume_status(server: "Server", variables: dict) -> dict:
    run = server.runs.get(variables["name"])
    if run is None or "config" not in run.fields:
        return {"model": None}
    bucket = {
        "name": run.name, "displayName": run.name, "id": run.name, "config": json.dumps(run.config),
        "summaryMetrics": json.dumps(run.summary), "historyLineCount": len(run.lines), "eventsLineCount": 0,
        "logLineCount": 0, "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": "[]", "tags": [], "wandbConfig": json.dumps({"t": 1}),
    }  # fmt: skip
    return {"model": {"id": "1", "name": "p", "entity": {"id": "1", "name": ENTITY}, "bucket": bucket}}


def upsert_bucket(server: "Server", variables: dict) -> dict:
    run = server.run(variables["name"])
    inserted = "config" not in run.fields
    run.fields |= {key: value for key, value in variables.items() if value is not None}
    run.config |= json.loads(variables.get("config") or "{}")
    run.sweep = run.sweep or variables.get("sweep")
    if run.exitcode is not None:
        run.exitcode, run.preempting = None, False
    project = {"name": run.fields.get("project") or "p", "entity": {"name": ENTITY}}
    shown = run.fields.get("displayName") or run.name
    bucket = {"id": run.name, "name": run.name, "displayName": shown, "config": json.dumps(run.config),
              "sweepName": run.sweep, "project": project, "historyLineCount": len(run.lines)}  # fmt: skip
    return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}


def create_run_files(server: "Server", variables: dict) -> dict:
    files = [{"name": name, "uploadUrl": f"{server.url}/upload/{variables['run']}/{name}"}
             for name in variables["files"]]  # fmt: skip
    return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}


# writing artifacts


def artifact_type(server: "Server", variables: dict) -> dict:
    return {"project": {"artifactType": None, "artifact": None}}


def create_artifact(server: "Server", variables: dict) -> dict:
    given = variables["input"]
    run = server.run(given["runName"])
    versions = [made for made in server.artifacts() if made["name"] == given["artifactCollectionName"]]
    made = {"id": f"artifact-{len(run.artifacts)}-{run.name}", "name": given["artifactCollectionName"],
            "type": given["artifactTypeName"], "state": "PENDING", "digest": given["digest"],
            "version": len(versions), "files": {}, "metadata": json.loads(given.get("metadata") or "{}"),
            "aliases": [alias["alias"] for alias in given.get("aliases") or ()]}  # fmt: skip
    run.artifacts.append(made)
    sequence = {"id": "1", "latestArtifact": None}
    return {"createArtifact": {"artifact": {"id": made["id"], "state": "PENDING", "artifactSequence": sequence}}}


def create_artifact_manifest(server: "Server", variables: dict) -> dict:
    file = {"id": "1", "name": "wandb_manifest.json", "displayName": "wandb_manifest.json", "uploadHeaders": [],
            "uploadUrl": f"{server.url}/blob/{variables.get('artifactID')}/manifest"}  # fmt: skip
    return {"createArtifactManifest": {"artifactManifest": {"id": "1", "file": file}}}


def create_artifact_files(server: "Server", variables: dict) -> dict:
    edges = []
    for spec in variables["input"]["artifactFiles"] if "input" in variables else variables["artifactFiles"]:
        url = f"{server.url}/blob/{spec['artifactID']}/{spec['name']}"
        _artifact(server, spec["artifactID"])["files"][spec["name"]] = url
        edges.append({"node": {"id": "1", "name": spec["name"], "displayName": spec["name"], "uploadUrl": url,
                               "uploadHeaders": [], "storagePath": None, "uploadMultipartUrls": None,
                               "artifact": {"id": spec["artifactID"]}}})  # fmt: skip
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def commit_artifact(server: "Server", variables: dict) -> dict:
    made = _artifact(server, variables["artifactID"])
    made["state"] = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": made["id"], "digest": made["digest"]}}}


def _artifact(server: "Server", identifier: str) -> dict[str, Any]:
    return next(made for made in server.artifacts() if made["id"] == identifier)


def alert(server: "Server", variables: dict) -> dict:
    server.alerts.append(variables)
    return {"notifyScriptableRunAlert": {"success": True}}


# sweeps and agents


def upsert_sweep(server: "Server", variables: dict) -> dict:
    from tests.wandb_server import Sweep

    project = variables["projectName"] or "uncategorized"
    sweep = Sweep(f"sweep{len(server.sweeps)}", project, yaml.safe_load(variables["config"]))
    server.sweeps[sweep.name] = sweep
    return {"upsertSweep": {"sweep": {"name": sweep.name, "project": _project(project)},
                            "configValidationWarnings": []}}  # fmt: skip


def get_sweep(server: "Server", variables: dict) -> dict:
    sweep = server.sweeps.get(variables.get("name") or variables.get("sweep"))
    if sweep is None:
        return {"project": {"sweep": None}}
    node = {"__typename": "Sweep", "id": sweep.name, "name": sweep.name, "displayName": None, "method": "grid",
            "state": sweep.state, "description": None, "bestLoss": None, "config": yaml.safe_dump(sweep.config),
            "createdAt": CREATED, "updatedAt": None, "runCount": 0, "runCountExpected": len(sweep.points()),
            "runs": {"edges": []}}  # fmt: skip
    return {"project": {"sweep": node}}


def get_sweep_state(server: "Server", variables: dict) -> dict:
    return {"project": {"sweep": {"state": server.sweeps[variables["sweep"]].state}}}


def create_agent(server: "Server", variables: dict) -> dict:
    name = f"agent{len(server.agents)}"
    server.agents[name] = server.sweeps[variables["sweep"]]
    return {"createAgent": {"agent": {"id": name}}}


def heartbeat(server: "Server", variables: dict) -> dict:
    sweep = server.agents[variables["id"]]
    running = [name for name, runs in json.loads(variables.get("runState") or "{}").items() if runs]
    if running:
        commands = [{"type": "stop", "run_id": name} for name in running if server.run(name).stop]
    else:
        commands = [sweep.next_command(server.runs)]
    return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}


# reading runs back


def runs(server: "Server", variables: dict) -> dict:
    wanted = json.loads(variables.get("filters") or "{}")
    found = [run for run in server.runs.values() if run.fields.get("project") == variables["project"]]
    found = [run for run in found if matches(run, wanted)]
    if (variables.get("order") or "").startswith("-"):
        found.reverse()
    begin, size = int(variables.get("cursor") or 0), variables.get("perPage") or 50
    edges = [{"node": _run(run), "cursor": str(begin + place + 1)}
             for place, run in enumerate(found[begin : begin + size])]  # fmt: skip
    page = {"endCursor": str(begin + len(edges)), "hasNextPage": begin + size < len(found)}
    return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False,
                        "runs": {"edges": edges, "pageInfo": page}}}  # fmt: skip


def run_contents(server: "Server", variables: dict) -> dict:
    """Serve runs with their history and their artifacts, as study/remote/contents.py asks for them."""
    page = runs(server, variables)
    for edge in page["project"]["runs"]["edges"]:
        run = server.runs[edge["node"]["name"]]
        artifacts = []
        for made in run.artifacts:
            files = [{"node": {"name": name, "url": url, "sizeBytes": None}} for name, url in made["files"].items()]
            artifacts.append({"node": {"versionIndex": made["version"], "artifactType": {"name": made["type"]},
                                       "files": {"edges": files[:1]}}})  # fmt: skip
        edge["node"] |= {"rows": [json.dumps(row) for row in run.history[:ROWS]], "artifacts": {"edges": artifacts}}
    return page


def one_run(server: "Server", variables: dict) -> dict:
    run = server.runs.get(variables["name"])
    return {"project": {"run": _run(run) if run else None}}


def matches(run: "Run", wanted: dict[str, Any]) -> bool:
    """Tell whether a run fits a Mongo-style filter."""
    for key, given in wanted.items():
        if key in ("$and", "$or"):
            fits = (all if key == "$and" else any)(matches(run, part) for part in given)
        else:
            found = _field(run, key)
            conditions = given if isinstance(given, dict) else {"$eq": given}
            fits = all(COMPARISONS[name](found, value) for name, value in conditions.items())
        if not fits:
            return False
    return True


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda found, value: found == value, "$ne": lambda found, value: found != value,
    "$in": lambda found, value: found in value, "$nin": lambda found, value: found not in value,
}  # fmt: skip


def _field(run: "Run", key: str) -> Any:
    place, _, rest = key.partition(".")
    if place == "config":
        return run.config.get(rest.removesuffix(".value"), {}).get("value")
    if place == "summary_metrics":
        return run.summary.get(rest)
    return {"sweep": run.sweep, "state": run.state, "name": run.name, "group": run.fields.get("groupName"),
            "display_name": run.fields.get("displayName"), "jobType": run.fields.get("jobType")}[key]  # fmt: skip


def _run(run: "Run") -> dict[str, Any]:
    rows, fields = run.history, run.fields
    keys = {key: {"typeCounts": [{"type": "number", "count": len(rows)}]} for row in rows for key in row}
    return {
        "id": run.name, "projectId": "1", "tags": fields.get("tags") or [], "name": run.name,
        "displayName": fields.get("displayName") or run.name, "sweepName": run.sweep, "state": run.state,
        "config": json.dumps(run.config), "group": fields.get("groupName"), "jobType": fields.get("jobType"),
        "commit": None, "readOnly": False, "createdAt": CREATED, "description": None,
        "heartbeatAt": fields.get("heartbeatAt", CREATED), "notes": fields.get("notes"),
        "systemMetrics": "{}", "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(rows), "user": {"name": ENTITY, "username": fields.get("author", ENTITY)},
        "historyKeys": {"lastStep": max((row.get("_step", 0) for row in rows), default=-1), "keys": keys},
    }  # fmt: skip


def history(server: "Server", variables: dict) -> dict:
    """Serve RunFullHistory, which samples evenly, and HistoryPage, which holds every row of a range of steps."""
    rows = server.runs[variables.get("name") or variables["run"]].history
    if "minStep" in variables:
        rows = [row for row in rows if variables["minStep"] <= row["_step"] < variables["maxStep"]]
    return {"project": {"run": {"history": [json.dumps(row) for row in _sampled(rows, variables.get("samples"))],
                                "events": []}}}  # fmt: skip


def sampled_history(server: "Server", variables: dict) -> dict:
    rows, sampled = server.runs[variables["name"]].history, []
    for spec in map(json.loads, variables["specs"]):
        whole = [{key: row[key] for key in spec["keys"]} for row in rows if set(spec["keys"]) <= set(row)]
        sampled.append(_sampled(whole, spec.get("samples")))
    return {"project": {"run": {"sampledHistory": sampled}}}


def _sampled(rows: list, samples: int | None) -> list:
    return rows[:: math.ceil(len(rows) / samples)] if samples and len(rows) > samples else rows


def parquet_history(server: "Server", variables: dict) -> dict:
    return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": []}}}}


def run_files(server: "Server", variables: dict) -> dict:
    run = server.runs[variables["name"]]
    names = [name for name in run.files if not variables.get("fileNames") or name in variables["fileNames"]]
    edges = [{"node": {"id": name, "name": name, "url": f"{server.url}/upload/{run.name}/{name}", "mimetype": "",
                       "directUrl": f"{server.url}/upload/{run.name}/{name}", "sizeBytes": len(run.files[name]),
                       "updatedAt": CREATED, "md5": ""}, "cursor": name} for name in names]  # fmt: skip
    return {"project": {"internalId": "1", "run": {"fileCount": len(names),
                                                   "files": {"edges": edges, "pageInfo": LAST_PAGE}}}}  # fmt: skip


# reading artifacts back


def run_output_artifacts(server: "Server", variables: dict) -> dict:
    found = server.runs[variables["run"]].artifacts
    edges = [{"node": _artifact_node(made, variables["project"]), "cursor": made["id"]} for made in found]
    return {"project": {"run": {"artifacts": {"totalCount": len(edges), "pageInfo": LAST_PAGE, "edges": edges}}}}


def artifact_membership(server: "Server", variables: dict) -> dict:
    made = _version(server, *variables["name"].split("/")[-1].split(":"))
    if made is None:
        return {"project": {"artifactCollectionMembership": None}}
    membership = {
        "__typename": "ArtifactCollectionMembership", "id": made["id"], "versionIndex": made["version"],
        "createdAt": CREATED, "aliases": [], "artifact": _artifact_node(made, variables["project"]),
        "artifactCollection": {"__typename": "ArtifactSequence", "name": made["name"],
                               "project": _project(variables["project"])},
    }  # fmt: skip
    return {"project": {"artifactCollectionMembership": membership}}


def artifact_manifest(server: "Server", variables: dict) -> dict:
    return {"artifact": {"currentManifest": {"file": {"directUrl": f"{server.url}/blob/{variables['id']}/manifest"}}}}


def artifact_file_urls(server: "Server", variables: dict) -> dict:
    made = _version(server, variables["collection"], variables["alias"])
    edges = [{"node": {"__typename": "File", "name": name, "directUrl": url}} for name, url in made["files"].items()]
    files = {"pageInfo": {"__typename": "PageInfo", **LAST_PAGE}, "edges": edges}
    return {"project": {"artifactCollection": {"__typename": "ArtifactSequence",
                                               "artifactMembership": {"files": files}}}}  # fmt: skip


def _version(server: "Server", name: str, alias: str = "latest") -> dict[str, Any] | None:
    versions = [made for made in server.artifacts() if made["name"] == name]
    return next((made for made in reversed(versions) if alias in ("latest", f"v{made['version']}")), None)


def _artifact_node(made: dict[str, Any], project: str) -> dict[str, Any]:
    return {
        "__typename": "Artifact", "id": made["id"], "versionIndex": made["version"], "description": None,
        "artifactSequence": {"__typename": "ArtifactSequence", "name": made["name"], "project": _project(project)},
        "artifactType": {"name": made["type"]}, "metadata": None, "ttlDurationSeconds": -1, "ttlIsInherited": True,
        "tags": [], "historyStep": None, "state": made["state"], "size": 1, "digest": made["digest"],
        "digestAlgorithm": "MANIFEST_MD5", "commitHash": None, "fileCount": len(made["files"]),
        "createdAt": CREATED, "updatedAt": None, "aliases": [],
    }  # fmt: skip


# reports


def projects(server: "Server", variables: dict) -> dict:
    names = sorted({run.fields.get("project") or "p" for run in server.runs.values()})
    user = {"id": "1", "name": ENTITY, "username": ENTITY, "email": "", "admin": False, "flags": "{}", "entity": ENTITY,
            "deletedAt": None, "apiKeys": None, "teams": None}  # fmt: skip
    edges = [{"cursor": name, "node": {"__typename": "Project", "id": name, "name": name, "entityName": ENTITY,
                                       "createdAt": CREATED, "isBenchmark": False, "user": user}}
             for name in names]  # fmt: skip
    return {"models": {"pageInfo": {"__typename": "PageInfo", **LAST_PAGE}, "edges": edges}}


def project_id(server: "Server", variables: dict) -> dict:
    return {"project": {"id": "1", "internalId": "1"}}


def upsert_view(server: "Server", variables: dict) -> dict:
    server.reports.append({**variables, "spec": json.loads(variables["spec"])})
    project = {"id": "1", "name": variables["projectName"], "entityName": variables["entityName"]}
    view = {"id": f"report{len(server.reports)}", "project": project, "updatedAt": CREATED,
            **{key: variables[key] for key in ("type", "name", "displayName", "description", "spec")}}  # fmt: skip
    return {"upsertView": {"view": view, "inserted": True}}


def _project(name: str) -> dict[str, Any]:
    return {"id": "1", "internalId": "1", "name": name, "entity": {"id": "1", "name": ENTITY}}


OPERATIONS: dict[str, Callable[["Server", dict], dict]] = {
    "Viewer": viewer, "GetViewer": viewer, "GetDefaultEntity": viewer, "ServerFeaturesQuery": server_features,
    "OrganizationCoreWeaveOrganizationID": organization,
    "RunResumeStatus": run_resume_status, "UpsertBucket": upsert_bucket, "CreateRunFiles": create_run_files,
    "ArtifactType": artifact_type, "CreateArtifact": create_artifact, "CommitArtifact": commit_artifact,
    "CreateArtifactManifest": create_artifact_manifest, "UpdateArtifactManifest": create_artifact_manifest,
    "CreateArtifactFiles": create_artifact_files,
    "NotifyScriptableRunAlert": alert,
    "UpsertSweep": upsert_sweep, "GetSweep": get_sweep, "SweepWithRuns": get_sweep, "GetSweepState": get_sweep_state,
    "CreateAgent": create_agent, "Heartbeat": heartbeat,
    "Runs": runs, "RunContents": run_contents, "Run": one_run, "RunState": one_run, "RunHistoryKeys": one_run,
    "RunFullHistory": history, "HistoryPage": history, "RunSampledHistory": sampled_history,
    "RunParquetHistory": parquet_history, "RunFiles": run_files, "RunOutputArtifacts": run_output_artifacts,
    "ArtifactMembershipByName": artifact_membership, "FetchArtifactManifest": artifact_manifest,
    "GetArtifactMembershipFileUrls": artifact_file_urls,
    "GetProjects": projects, "ProjectInternalId": project_id, "upsertView": upsert_view,
}  # fmt: skip
