"""How W&B's names and states are read, and what is said where it cannot be asked."""

from types import SimpleNamespace
from urllib.parse import quote

import pytest
import wandb
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.wording import texts as wording
from analysis.wording import words
from study.remote import api as wandb_api
from study.remote.api import STATES, path, state_of, sweep_path
from tests.wandb_server import Server

KEY = "k" * 40


def test_a_sweep_is_named_by_its_path_or_its_page():
    names = ("me", "proj-1", "abc123")
    for word in ("me/proj-1/abc123", "https://wandb.ai/me/proj-1/sweeps/abc123", "me/proj-1/sweeps/abc123",
                 "http://127.0.0.1:8080/me/proj-1/sweeps/abc123/?nw=x"):  # fmt: skip
        assert sweep_path(word) == path(word) == names
    assert path("me/proj-1") == path("https://wandb.ai/me/proj-1") == names[:2]
    for word in ("me/proj-1", "runs", "../a/b", "/a/b/c", "sweeps/old/one.yaml", "a/b/c/d", "tests/../study"):
        assert sweep_path(word) is None


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=r"/\#?%:", include_characters=" "),
               min_size=1, max_size=128).filter(lambda name: name.strip(". ")))  # fmt: skip
@example("my project (2)+'x'")
@example(".hidden")
def test_a_project_may_have_every_name_that_wandb_takes(name):
    assert path(f"me/{name}") == ("me", name)
    assert path(f"me/{name}/abc") == path(f"https://wandb.ai/me/{quote(name)}/sweeps/abc") == ("me", name, "abc")


def test_a_file_or_a_folder_is_no_sweep(tmp_path, monkeypatch):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert sweep_path("a/b/c") is None and sweep_path("a/b/d") == ("a", "b", "d")


@pytest.mark.parametrize(
    ("wandb_says", "told", "state"),
    [
        ("running", {"state": "finished"}, "running"), ("pending", None, "queued"), ("preempted", {}, "queued"),
        ("crashed", {"state": "stopped"}, "crashed"), ("killed", {"state": "failed"}, "killed"),
        ("finished", {"state": "stopped"}, "interrupted"), ("failed", {"state": "finished"}, "interrupted"),
        ("finished", {"started": "now"}, "interrupted"),
        ("failed", {"state": "failed"}, "failed"), ("failed", None, "failed"), ("a new word", None, "interrupted"),
    ],
)  # fmt: skip
def test_the_state_of_a_run(wandb_says, told, state):
    config = {"info": told} if told is not None else {}
    assert state_of(SimpleNamespace(state=wandb_says, config=config, summary_metrics={})) == state


def test_a_result_counts_once_its_summary_is_there():
    for told in ("finished", "stopped", "diverged"):
        info = {"info": {"state": told}}
        for summary in ({"last/epoch": 3}, {"test/acc": 0.5}):  # of earlier versions
            assert state_of(SimpleNamespace(state="finished", config=info, summary_metrics=summary)) == told
        run = SimpleNamespace(state="crashed", config={"info": {"state": told}}, summary_metrics={"state": told})
        assert state_of(run) == told


@pytest.mark.parametrize("language", wording.LANGUAGES)
def test_every_state_has_its_words(language):
    with wording.language(language):
        for state in {*STATES.values(), "diverged", "failed", "interrupted"}:
            assert wording.text(words.STATES[state]) and wording.text(words.RUN_STATES[state], context="of one run")
        assert wording.text(words.STATES["stopped"])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WANDB_MODE": "nonsense"}, "WANDB_MODE is wrong: input should be 'online', 'offline'"),
        ({"WANDB_INIT_TIMEOUT": "abc"}, "WANDB_INIT_TIMEOUT is wrong: input should be a valid number"),
        ({"WANDB_HTTP_TIMEOUT": "abc"}, "WANDB_HTTP_TIMEOUT is wrong: input should be a valid number"),
        ({"WANDB_BASE_URL": "foo"}, "WANDB_BASE_URL is wrong: input should be a valid url"),
        ({"WANDB_MODE": "offline"}, "its server is needed for this"),
    ],
)
def test_a_setting_without_a_meaning_is_one_sentence(command, monkeypatch, variables, message):
    for name, value in ({"WANDB_API_KEY": KEY} | variables).items():
        monkeypatch.setenv(name, value)
    asked = command("study.sweep", "status", "me/proj/abc", code=2)
    assert message in asked.stderr and len(asked.stderr.strip().splitlines()) == 1
    if variables != {"WANDB_MODE": "offline"}:
        run = command("study.train", "--dataset=digits", "--model=mlp", "--epochs=1", code=2)
        assert message in run.stderr and len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "message"), [(401, "W&B refuses the key: type `wandb login"), (500, "W&B does not answer: POST"),
                            (0, "the sweep me/proj/abc cannot be read: W&B does not have it")],
)  # fmt: skip
def test_a_refused_key_is_no_silence_and_no_class_is_named(command, monkeypatch, status, message):
    with Server() as server:
        server.fail("Viewer", *[status] * 20 if status else ())
        variables = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "WANDB_X_GRAPHQL_RETRY_MAX": "1"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        told = command("study.sweep", "status", "me/proj/abc", code=1 if status == 500 else 2).stderr
    assert message in told and "Error" not in told and len(told.strip().splitlines()) == 1


def test_one_process_logs_in_once(monkeypatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        try:
            assert [wandb_api.ask(lambda api: api.default_entity, "nothing") for _ in range(2)] == ["somebody"] * 2
            assert server.requests["Viewer"] == 1
        finally:
            wandb_api.connect.cache_clear()
            wandb.teardown()
