"""An ingest that understands no version of the ledger's messages that is in use: `python -m tests.faults.older_ingest --config FILE`."""

from __future__ import annotations

import sys

from gateway.ingest.role import Ingest
from gateway.roles import main
from schemas.wire import VERSION

if __name__ == "__main__":
    defaults = Ingest.__init__.__kwdefaults__
    assert defaults is not None
    assert defaults["supports"] == VERSION
    defaults["supports"] = VERSION - 1
    sys.argv.insert(1, "ingest")
    main()
