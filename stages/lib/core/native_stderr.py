"""Native libraries that write their diary to standard error."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile


@contextmanager
def capture_native_stderr() -> Iterator[Callable[[], str]]:
    """Keep what is written to standard error, also by C++ code, and show it only if the block fails.

    The block is given a function that tells what was written so far.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)

        def read() -> str:
            # pread, for the place where the next text goes is shared with descriptor 2.
            return os.pread(kept.fileno(), os.fstat(kept.fileno()).st_size, 0).decode(errors="replace")

        try:
            yield read
        except BaseException:
            os.write(original, read().encode())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
