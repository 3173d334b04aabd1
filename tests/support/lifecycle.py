"""What is started by `with` and ends with its block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Started"]


class Started(ABC):
    """A program that a test starts."""

    def __enter__(self) -> Self:
        """Starts it; it ends with the block, also where it did not come up."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def start(self) -> object:
        """Starts it, and returns when it can be used."""

    @abstractmethod
    def close(self) -> None:
        """Ends it for good."""
