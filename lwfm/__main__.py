"""``python -m lwfm`` is the command line."""

import sys

from lwfm.cli import main

sys.exit(main())
