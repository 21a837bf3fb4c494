"""Collect what TensorRT logs while it works."""

from __future__ import annotations

from typing import Any

_LISTING = "Layers:"


class Log:
    """Keeps a library's complaints, and the listing of layers that its builder logs.

    Attributes:
        logger: to give to the library.
        errors: what went wrong.
        listing: of the layers of the engine that was built last, if it was logged.
    """

    def __init__(self, module: Any) -> None:
        self.errors: list[str] = []
        self.listing: str | None = None
        keep, error = self._keep, module.ILogger.ERROR

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                keep(message, wrong=severity <= error)

        self.logger = Logger()

    def _keep(self, message: str, *, wrong: bool) -> None:
        if wrong:
            self.errors.append(message.strip())
        elif message.startswith(_LISTING):
            self.listing = message

    @property
    def complaint(self) -> str:
        """The errors in one sentence."""
        return "; ".join(self.errors) or "it gives no reason"
