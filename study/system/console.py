"""Make rich's consoles and columns so that they print any text as it is.

    python -c "from study.system.console import console; console().print('folder:cat: and [red] stay as they are')"

By default rich reads `[red]` as a colour and `:cat:` as an emoji, in the cells of a table too.
"""

from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.table import Column


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Ignore a closed pipe, such as after `| head`."""
        with suppress(SystemExit):
            super().on_broken_pipe()


def console(**options: Any) -> Console:
    """Return a console that prints text as it is; `options` are rich's."""
    return _Console(markup=False, emoji=False, highlight=False, **options)


def text_column(text: str, table_column: Column | None = None) -> TextColumn:
    """Return a column of a progress bar that shows text as it is; `text` may name fields of the task."""
    return TextColumn(text, markup=False, table_column=table_column)
