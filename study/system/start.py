"""Let Ctrl-C end a command without a traceback while its modules are imported, and while Python ends.

Imported by the packages of the commands. Only commands set the handler: nothing changes where they are a library. On
Windows, and for a command in a Python without the libraries, the first import says what is needed.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

CTRL_C = 128 + signal.SIGINT
"""What a shell has as the exit code of a command that Ctrl-C has ended."""

_is_interrupted = False


def end_at_once(code: int = CTRL_C) -> None:
    """Let Ctrl-C end this process at once, with an exit code, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # The default action of a signal ends any process but the first one of a container
        by_signal = code == CTRL_C and os.getpid() != 1
        signal.signal(signal.SIGINT, signal.SIG_DFL if by_signal else lambda signum, frame: os._exit(code))


def end_by_ctrl_c() -> None:
    """Make SIGINT end this process once Python has finished: a shell stops its loop only if a command dies by it."""
    global _is_interrupted
    _is_interrupted = True


@atexit.register  # what is registered first is called last
def _end() -> None:
    """End this process by SIGINT if Ctrl-C has ended its command."""
    if _is_interrupted:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


if sys.platform == "win32":  # which lacks fork and the signals by which runs are ended
    print("error: this needs Linux or macOS; on Windows use WSL: wsl --install, then the same there", file=sys.stderr)
    sys.exit(2)

LIBRARIES = ("pydantic", "rich", "pandas", "torch")
"""Some of the libraries without which no command works."""

# `-m` is there while Python looks for the module
if sys.argv and (sys.argv[0] == "-m" or Path(sys.argv[0]).name.startswith("study-")):
    end_at_once()
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        print(
            f"error: {sys.executable} has no {missing[0]}: type `source .venv/bin/activate` in the folder of the study "
            "and then the same again, or install the libraries, with `make quickstart` or `pip install -e .`",
            file=sys.stderr,
        )
        sys.exit(2)
    # Python's end would give Ctrl-C its default action, which kills
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
