"""The report: tables and figures as files, and one page that shows them all.

python -m analysis.summarize runs --out report
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from analysis import figures, runs, tables
from analysis.runs import Frames, Section
from analysis.wording import label, sentence
from study.errors import UserError
from study.run_directory import DONE

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass
class _Picture:
    """A figure that has been written, as the page shows it."""

    name: str
    title: str
    svg: str


@dataclass
class _Part:
    """A section of the page."""

    anchor: str
    title: str
    description: str
    data: list[str]
    notes: list[str]
    table: dict[str, Any] | None = None
    table_notes: list[str] = field(default_factory=list)
    curves: _Picture | None = None
    curves_caption: str = ""
    confusions: list[_Picture] = field(default_factory=list)


def write(frames: Frames, sections: Sequence[Section], source: str, out: Path) -> Path:
    """Write `index.html`, `tables/` and `figures/` into a folder, and return the path of the page."""
    try:
        for folder in (out / "tables", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the report cannot be written to {out}: {error.strerror}") from None
    parts, anchors = [], set()
    for section in sections:
        anchor = _unused(_file_name(section.name) or "section", anchors)
        parts.append(_part(frames, section, anchor, out))
    older = int((frames.runs.results_version != runs.RESULTS_VERSION).sum())
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(say=sentence, label=label)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        parts=parts,
        problems=[*frames.problems, *([sentence("other_version", count=older)] if older else [])],
        source=sentence(
            "source",
            finished=int((frames.runs.state == "finished").sum()),
            runs=len(frames.runs) + len(frames.problems),
            source=source,
            date=date.today().isoformat(),
        ),
        made_with=_made_with(frames),
    )
    _write(out / "index.html", page)
    return out / "index.html"


def _part(frames: Frames, section: Section, anchor: str, out: Path) -> _Part:
    part = _Part(anchor, section.name, section.description, _data(frames, section), _notes(section))
    if section.runs.empty:
        part.notes.insert(0, sentence("nothing"))
        return part
    frame = tables.comparison(section)
    for suffix, text in (("md", tables.markdown(frame)), ("tex", tables.latex(frame)), ("csv", tables.csv(frame))):
        _write(out / "tables" / f"{part.anchor}.{suffix}", text)
    header, rows, tied = tables.cells(frame)
    part.table = {"header": header, "rows": list(zip(rows, tied, strict=True))}
    part.table_notes = _table_notes(frame)
    name = section.dataset if section.dataset in section.name else f"{section.name} ({section.dataset})"
    title = sentence("curves_title", name=name)
    part.curves = _draw(figures.learning_curves(section.history, title), f"{part.anchor}-curves", out, title)
    part.curves_caption = sentence("curves_caption" if frame.n.max() > 1 else "curves_caption_single")
    best = section.runs.sort_values("best/val_acc", ascending=False).drop_duplicates("setting")
    best = best.sort_values("setting", key=lambda column: column.map(list(frame.setting).index))
    predictions = runs.predictions(frames, list(best.index))
    names: set[str] = set()
    for run, row in best.iterrows():
        title = sentence("confusion_title", dataset=section.dataset, setting=row["setting"], seed=row["seed"])
        figure = figures.confusion_matrix(predictions[predictions.run == run], frames.data(str(run))["classes"], title)
        part.confusions.append(
            _draw(figure, _unused(f"{part.anchor}-confusion-{_file_name(row['setting'])}", names), out, title)
        )
    return part


def _data(frames: Frames, section: Section) -> list[str]:
    """Describe the data of a section's runs."""
    described = {}
    for run, dataset in section.runs.dataset.items():
        data = frames.data(str(run))
        channels, height, width = data["image_shape"]
        described[
            sentence(
                "data", dataset=dataset.removeprefix("folder:"), **data["images"],
                channels=channels, height=height, width=width, classes=len(data["classes"]),
            )
        ] = None  # fmt: skip
    return list(described)


def _notes(section: Section) -> list[str]:
    """Say what a reader must know of a section's runs: what is missing, what is left out, what is mixed."""
    notes = []
    if section.missing:
        notes.append(sentence("missing", points="; ".join(section.missing)))
    others = {state: count for state, count in section.states.items() if state != "finished"}
    if others:
        notes.append(sentence("other_states", states=", ".join(f"{count} {state}" for state, count in others.items())))
    for setting, group in section.runs.groupby("setting", sort=False):
        for what in ("device", "threads", "data_digest"):
            values = sorted(map(str, group[what].unique()))
            if len(values) > 1:
                notes.append(sentence("mixed", setting=setting, what=what, values=", ".join(values)))
    return notes


def _table_notes(frame: pd.DataFrame) -> list[str]:
    notes = []
    if (frame.n > 1).any():
        notes.append(sentence("table_interval"))
    if (frame.n == 1).any():
        notes.append(sentence("table_single"))
    notes.append(sentence("table_gap"))
    if frame.epoch_seconds.notna().any():
        notes.append(sentence("table_times"))
    if frame.epoch_seconds.isna().any():
        notes.append(sentence("table_no_times"))
    return notes


def _draw(figure: Figure, name: str, out: Path, title: str) -> _Picture:
    """Write a figure as PNG and SVG and return it for the page."""
    written = {}
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=160, metadata={"Date": None} if suffix == "svg" else None)
        _write(out / "figures" / f"{name}.{suffix}", buffer.getvalue())
        written[suffix] = buffer.getvalue()
    return _Picture(name, title, "data:image/svg+xml;base64," + base64.b64encode(written["svg"]).decode())


def _write(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then put it in place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def _made_with(frames: Frames) -> str:
    """Say on which machines and with which versions the runs were made."""
    done = [run for run in frames.runs.index if frames.runs.state[run] in DONE]
    infos = [frames.directories[run].info() for run in done]
    versions = sorted({f"{name} {version}" for info in infos for name, version in info.get("versions", {}).items()})
    hosts = sorted({f"{info.get('host')} ({info.get('device')})" for info in infos})
    return sentence("made_with", hosts=", ".join(hosts), versions=", ".join(versions)) if infos else ""


def _file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _unused(name: str, used: set[str]) -> str:
    """Number a name that has been used before."""
    numbered = next(word for word in (name, *(f"{name}-{n}" for n in range(2, len(used) + 3))) if word not in used)
    used.add(numbered)
    return numbered
