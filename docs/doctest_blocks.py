"""An extension of griffe: the API page shows doctests in docstrings as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

# From a line that begins with >>> to the next empty line.
_DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class DoctestBlocks(Extension):
    """Puts a fence around every doctest."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class and function, once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(lambda found: f"```python\n{found[0]}\n```", obj.docstring.value)
