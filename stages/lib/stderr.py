"""Native libraries that write their diary to standard error."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile


@contextmanager
def hold_back_stderr() -> Iterator[None]:
    """Keep what is written to standard error, also by C++ code, and show it only if the block fails."""
    sys.stderr.flush()
    original = os.dup(2)
    with TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(original, kept.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
