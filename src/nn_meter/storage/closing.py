"""What holds something until it is closed."""

from __future__ import annotations

from typing import Self


class Closing:
    """Closed where a ``with`` block ends, however it ends."""

    def close(self) -> None:
        """Give up what is held; harmless the second time."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
