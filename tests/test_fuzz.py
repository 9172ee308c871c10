"""A little of what tests/fuzz.py does: wrong input ends in a sentence and exit code 2."""

import os

import pytest

from tests import fuzz

CASES = {"argv": 60, "sweep file": 30, "folder": 15, "run directory": 25}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_python):
    place = tmp_path_factory.mktemp("trained")
    run_python(["-m", "study.train", *fuzz.QUICK], place)
    return next((place / "runs").glob("mlp-*"))


@pytest.mark.parametrize("kind", CASES)
def test_wrong_input_ends_in_a_sentence(kind, trained):
    # the report of a run takes seconds
    cases = fuzz.kinds(trained)[kind].filter(lambda case: kind == "argv" or case.module != "analysis.summarize")
    found = fuzz.search(cases, CASES[kind], number=int(os.environ.get("FUZZ_SEED", "0")))
    assert not found.faults and found.ends.total() == CASES[kind] and found.ends[kind, 2] > 0
