"""The sessions of all people who have the page open. Owns who gets which, and where their folders lie and when they
go."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from session import Session

from stmemory.errors import OptionError
from stmemory.predictor import VOSPredictor

__all__ = ["Sessions"]

IDLE = 600.0  # seconds without a word after which a session's place may go to somebody who waits for one
IDLE_EMPTY = 30.0  # the same for one that no clip was opened in, as of clients that have no page


class Sessions:
    """One session for each key, made when it is first asked for.

    A page that is closed gives its place back at once. Not every client says when it goes, so where no place is free,
    the session that was silent for longest is ended, if that was long enough and nothing is tracked in it.

    Args:
        predictor: what tracks, for all.
        root: a folder that the sessions' folders go into, under names that nobody can choose or guess.
        most: sessions at a time.
    """

    def __init__(self, predictor: VOSPredictor, root: Path, *, most: int = 8) -> None:
        self._predictor, self._root, self._most = predictor, root, most
        self._sessions: dict[str, Session] = {}
        self._seen: dict[str, float] = {}
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
                if len(self._sessions) >= self._most and not self._end_a_silent_one():
                    raise OptionError(
                        f"expected at most {self._most} people at a time, and they are here already; come back later"
                    )
                self._sessions[key] = Session(
                    self._predictor, Path(tempfile.mkdtemp(prefix="session-", dir=self._root))
                )
            self._seen[key] = time.monotonic()
            return self._sessions[key]

    def close(self, key: str) -> None:
        """End a page's session, if it has one: what runs is stopped, and its folder is removed."""
        with self._lock:
            session = self._sessions.pop(key, None)
            self._seen.pop(key, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """End them all."""
        for key in list(self._sessions):
            self.close(key)

    def _end_a_silent_one(self) -> bool:
        """End the session that was silent for longest, if one was for long enough; whether it was."""
        now = time.monotonic()
        for key in sorted(self._seen, key=self._seen.__getitem__):
            session = self._sessions[key]
            if not session.busy and now - self._seen[key] >= (IDLE_EMPTY if session.empty else IDLE):
                del self._sessions[key], self._seen[key]
                session.close()
                return True
        return False
