"""What a setting may name: backbones, fidelity policies, acquisition policies; from outside the package, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from rsir.errors import ConfigError, RsirError

__all__ = ["Registry"]

Maker = TypeVar("Maker")
Same = TypeVar("Same")


class Registry(Generic[Maker]):
    """Makers by name.

    Parameters
    ----------
    setting : str
        The setting that holds such a name, for messages: "fidelity.policy".
    error : type, default ConfigError
        Raised for a name that is not known, or is taken.
    """

    def __init__(self, setting: str, error: type[RsirError] = ConfigError) -> None:
        self._setting, self._error = setting, error
        self.makers: dict[str, Maker] = {}  # by name

    def register(self, name: str) -> Callable[[Same], Same]:
        """Decorator: make a class or function known by a name; it is handed back as it is."""

        def add(maker: Same) -> Same:
            if name in self.makers:
                raise self._error(f"{self._setting} {name!r} is registered already; choose another name")
            self.makers[name] = maker  # type: ignore[assignment]  # checked where it is called
            return maker

        return add

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.makers)

    def check(self, name: str) -> None:
        """Refuse a name that is not known; the message lists those that are."""
        if name not in self.makers:
            raise self._error(
                f"{self._setting}: expected one of {', '.join(self.names())}, got {name!r}; "
                "--plugins FILE.py registers more"
            )

    def __getitem__(self, name: str) -> Maker:
        self.check(name)
        return self.makers[name]
