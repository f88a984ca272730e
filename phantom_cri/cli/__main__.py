from __future__ import annotations

import sys

from phantom_cri.cli import main

sys.exit(main())
