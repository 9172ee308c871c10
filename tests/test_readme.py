"""What README.md, LEEME.md and docs/ say: their links lead somewhere, their commands print what stands below them."""

import re
import shlex
from pathlib import Path

import pytest

from analysis.wording import messages
from study.config.choices import NETWORKS
from study.sweeps import definition as search

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "LEEME.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
ROW = re.compile(
    r"^\| \[(?P<name>[\w-]+)\]\(sweeps/(?P=name)\.yaml\) \|.*\| (?P<networks>[^|]*) \| (?P<runs>\d+) \|", re.M
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_the_table_of_sweeps_is_that_of_the_files(page):
    rows = {row["name"]: row for row in ROW.finditer(page.read_text(encoding="utf-8"))}
    sweeps = {path.stem: search.read(path) for path in messages.sweeps()}
    assert rows.keys() == sweeps.keys()
    for name, sweep in sweeps.items():
        assert int(rows[name]["runs"]) == sweep.size
        named = {*re.split(r"\W (?:or )?|$", rows[name]["networks"])} & NETWORKS.keys()
        assert named <= {point.config.model for point in sweep.points()}


def printed(page):
    """List the commands on a page and the lines that stand below each."""
    found = []
    for block in CONSOLE.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((shlex.split(line[2:]), []))
            else:
                found[-1][1].append(line)
    return found


def like(line):
    """Return the pattern of a line: other numbers, and anything in place of `…`."""
    parts = [re.sub(r"\d(?:\d|\\?[.,])*", r"\\d[\\d.,]*", re.escape(part)) for part in line.rstrip().split("…")]
    return re.compile(r".*".join(parts) + r"\s*")


def commands(page):
    """List the words of every command of this project on a page, in a block or within a sentence."""
    text = page.read_text(encoding="utf-8")
    in_lines = re.findall(r"^ *(?:\$ |sweep=\$\()?(python -m [^`\n]+)$", text, re.MULTILINE)
    in_sentences = re.findall(r"`(python -m [^`]+)`", text)
    found = [line.split(" #")[0].split()[2:] for line in [*in_lines, *in_sentences]]
    return [words for words in found if words[0].partition(".")[0] in ("study", "analysis")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_the_options_that_a_page_gives_it(page, call):
    unknown = []
    for module, *words in commands(page):
        named = words[:1] if module == "study.sweep" and words else []
        entry = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
        help_text = call(entry, *named, "--help").stdout
        options = {word.strip("[](),;:").split("=")[0] for word in words if word.strip("[(").startswith("--")}
        unknown += [(module, *named, option) for option in options if not re.search(rf"{option}\b", help_text)]
    assert not unknown


@pytest.mark.slow
def test_commands_print_what_stands_below_them(command, tmp_path):
    for name in ("sweeps", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    expected: dict[tuple[str, ...], list[str]] = {}  # a command on several pages has the lines of all
    for page in PAGES:
        for words, lines in printed(page):
            expected.setdefault(tuple(words), []).extend(lines)
    for words, lines in expected.items():
        assert words[:2] == ("python", "-m")
        result = command(*words[2:])
        said = (result.stdout + result.stderr).splitlines()
        for line in lines:
            assert any(like(line).fullmatch(other) for other in said), f"{line}\n\n{result.stdout}\n{result.stderr}"
    assert expected
