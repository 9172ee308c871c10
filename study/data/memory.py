"""Keep a data set in memory for the next run of a process; without torch, which takes seconds to import.

memory = Memory()
dataset.load(config, device, memory=memory)
"""

from collections.abc import Callable, Hashable
from typing import Any


class Memory:
    """Keeps the data set that was loaded last, so that runs on the same data load it once."""

    def __init__(self) -> None:
        self.key: Hashable = None
        self.data: Any = None

    def cached(self, key: Hashable, read: Callable[[], Any]) -> Any:
        """Return the data if they were kept under this key; otherwise drop them, call `read` and keep its result."""
        if self.data is None or key != self.key:
            self.data = None  # frees the memory for the next data set
            self.data = read()
            self.key = key
        return self.data
