"""Let Ctrl-C end a command without a traceback while its modules are imported, and while Python ends.

Imported by the packages of the commands. Only `python -m` sets the handler: nothing changes where they are a library.
"""

import atexit
import os
import signal
import sys

CTRL_C = 128 + signal.SIGINT


def end_at_once(code: int = CTRL_C) -> None:
    """Let Ctrl-C end this process at once, with an exit code, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda signum, frame: os._exit(code))


if sys.argv[:1] == ["-m"]:  # as it is while Python looks for the module
    end_at_once()
    # Python's end would give Ctrl-C its default action, which kills; what was registered first is called last
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
