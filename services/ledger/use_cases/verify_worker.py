"""A process that checks parts of books for another: `python -m services.ledger.use_cases.verify_worker`.

Reads parts from standard input and writes reports to standard output until its input ends: so it ends with the process
that asks, however that ends. Both run the same code and nobody else holds the pipes, so what goes through them is
pickled, straight out of the pipe and into it: rows are megabytes, which are not copied on the way. It imports little:
each check starts some.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from contextlib import suppress

from services.ledger.model.part_check import check_part
from services.ledger.model.quick_check import quick_check
from services.ledger.model.verification import Part

# Whoever books comes first.
_NICENESS = 5


def main() -> None:
    """Checks parts until there are none left."""
    with suppress(OSError):
        os.nice(_NICENESS)
    # Rows refer to nothing in circles, and there are so many that to look for circles takes time.
    gc.disable()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError):
        while True:
            part: Part = pickle.load(source)  # noqa: S301 - see above
            pickle.dump(check_part(part) if part.accounts is None else quick_check(part), sink)
            sink.flush()
            # Not while the next one comes.
            del part


if __name__ == "__main__":
    main()
