"""A process that checks parts of books for another: `python -m services.ledger.use_cases.verify_worker`.

Reads parts from standard input and writes reports to standard output, each with its length before it, until its input
ends: so it ends with the process that asks, however that ends. Both run the same code and nobody else holds the pipes,
so what goes through them is pickled. It imports little: each check starts some.
"""

from __future__ import annotations

import gc
import os
import pickle
import struct
import sys
from contextlib import suppress

from services.ledger.model.part_check import check_part
from services.ledger.model.quick_check import quick_check
from services.ledger.model.verification import Part

LENGTH = struct.Struct(">I")
# Whoever books comes first.
_NICENESS = 5


def main() -> None:
    """Checks parts until there are none left."""
    with suppress(OSError):
        os.nice(_NICENESS)
    # Rows refer to nothing in circles, and there are so many that to look for circles takes time.
    gc.disable()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(header := source.read(LENGTH.size)) == LENGTH.size:
        part: Part = pickle.loads(source.read(*LENGTH.unpack(header)))  # noqa: S301 - see above
        report = pickle.dumps(check_part(part) if part.accounts is None else quick_check(part))
        sink.write(LENGTH.pack(len(report)) + report)
        sink.flush()


if __name__ == "__main__":
    main()
