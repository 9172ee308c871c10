"""Parts of a report that may fail one by one: a message replaces the part that failed, and the others are written.

python -c "from analysis.page.attempt import attempted; print(attempted('costs', lambda: 1 / 0))"
"""

import sys
from collections.abc import Callable
from typing import TypeVar

from analysis.page.blocks import Paragraph
from analysis.page.characters import shortened
from analysis.wording.texts import restored, text
from study.system.errors import is_out_of_memory, one_line

Part = TypeVar("Part")

LONGEST = 300
"""At most this many characters of an error message are shown in a report."""


def attempted(what: str, make: Callable[[], Part]) -> Part | Paragraph:
    """Return the result of `make`; if it fails, return a paragraph with the error and print the same on stderr.

    `what` is the name of the part for a reader. Ctrl-C and a lack of memory are not caught.
    """
    try:
        return make()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        message = text(
            "{what}: this part could not be made ({why}).", what=what, why=shortened(one_line(error), LONGEST)
        )
        print(f"warning: {restored(message)}", file=sys.stderr, flush=True)
        return Paragraph(message)
