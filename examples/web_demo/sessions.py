"""The sessions of all people who have the page open. Owns who gets which, and where their folders lie and when they go."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from session import Session

from stmemory.errors import OptionError
from stmemory.predictor import VOSPredictor

__all__ = ["Sessions"]


class Sessions:
    """One session for each key, made when it is first asked for.

    Args:
        predictor: what tracks, for all.
        root: a folder that the sessions' folders go into, under names that nobody can choose or guess.
        most: sessions at a time.
    """

    def __init__(self, predictor: VOSPredictor, root: Path, *, most: int = 8) -> None:
        self._predictor, self._root, self._most = predictor, root, most
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: str) -> Session:
        """The session of a page.

        Raises:
            OptionError: there are too many.
        """
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= self._most:
                    raise OptionError(f"expected at most {self._most} people at a time, and they are here already; come back later")
                self._sessions[key] = Session(self._predictor, Path(tempfile.mkdtemp(prefix="session-", dir=self._root)))
            return self._sessions[key]

    def close(self, key: str) -> None:
        """End a page's session, if it has one: what runs is stopped, and its folder is removed."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """End them all."""
        for key in list(self._sessions):
            self.close(key)
