"""The one place where rich's consoles and columns are made: what they print is text, whatever it looks like.

    python -c "from study.system.console import console; console().print('folder:cat: and [red] stay as they are')"

rich takes `[red]` for a colour and `:cat:` for an emoji unless it is told not to, in a table's cells too.
"""

from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.table import Column


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence where nobody reads any more, such as after `| head`."""
        with suppress(SystemExit):
            super().on_broken_pipe()


def console(**options: Any) -> Console:
    """Return a console that prints text as it is; `options` are rich's."""
    return _Console(markup=False, emoji=False, highlight=False, **options)


def text_column(text: str, table_column: Column | None = None) -> TextColumn:
    """Return a column of a progress bar that shows text as it is; `text` may name fields of the task."""
    return TextColumn(text, markup=False, table_column=table_column)
