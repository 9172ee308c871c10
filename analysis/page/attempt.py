"""Parts of a report that are made one by one: what fails in one is named in its place, and the others stand.

python -c "from analysis.page.attempt import attempted; print(attempted('costs', lambda: 1 / 0))"
"""

import sys
from collections.abc import Callable
from typing import TypeVar

from analysis.page.blocks import Paragraph
from analysis.page.letters import shortened
from analysis.wording.texts import restored, sentence
from study.system.errors import is_out_of_memory, one_line

Made = TypeVar("Made")

LONGEST = 300
"""Characters of an error's own words in a report."""


def attempted(what: str, make: Callable[[], Made]) -> Made | Paragraph:
    """Return what `make` returns; where it fails, a paragraph that says so, which goes to stderr too.

    `what` names the part for a reader. Ctrl-C and a lack of memory end the report, as they end everything.
    """
    try:
        return make()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = sentence("part_failed", what=what, why=shortened(one_line(error), LONGEST))
        print(f"warning: {restored(said)}", file=sys.stderr, flush=True)
        return Paragraph(said)
