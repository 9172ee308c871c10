"""Prints the page as a PDF with a headless Chromium or Chrome.

python -m analysis.summarize runs --pdf
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from analysis.page import kept
from study.system.errors import UserError

NAME = "report.pdf"
"""The printed page, in the folder of the report."""

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)  # fmt: skip

PLAYWRIGHT = ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
"""Folders of the browsers that playwright installs, on Linux and macOS."""

NAMES = ("chrome", "headless_shell", "chrome-headless-shell")
"""Programs in such a folder that can print."""

SECONDS = 180
"""Time limit for printing a page."""


def browser() -> str:
    """Return the path of a browser that can print; raise UserError if there is none."""
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    for folder in PLAYWRIGHT if path is None else ():
        programs = sorted(Path(folder).expanduser().glob("chromium*/*/*"))
        path = next((str(program) for program in programs if program.name in NAMES), path)
    if path is None:
        raise UserError(
            "--pdf needs Chromium or Chrome, and neither is installed; install one, for example by `pip install "
            "playwright` and `playwright install chromium`, or leave out --pdf and print the page from any browser"
        )
    return path


def print_page(page: Path, program: str) -> Path:
    """Print an HTML page as report.pdf in the same folder and return its path; raise UserError if that fails."""
    # print into a temporary file, so that a failure leaves an older report.pdf as it is
    pdf = page.resolve().with_name(NAME)
    temporary = pdf.with_name(".report.pdf")
    temporary.unlink(missing_ok=True)

    # run the browser with a profile of its own
    with tempfile.TemporaryDirectory(prefix="print-") as profile:
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-extensions",
            f"--user-data-dir={profile}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={temporary}",
            page.resolve().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(f"{program} did not print {page} within {SECONDS} s") from None
        except OSError as error:
            raise UserError(f"{program} cannot be started: {error.strerror}") from None

    # browsers report success without a file too
    if not temporary.exists():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{program} did not print {page}: {lines[-1]}")
    kept.replace(pdf.parent, NAME, temporary.read_bytes())
    temporary.unlink()
    return pdf
