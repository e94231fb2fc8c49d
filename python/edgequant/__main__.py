"""python -m edgequant"""

import sys

from edgequant.cli.main import main

sys.exit(main())
