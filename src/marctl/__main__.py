"""`python -P -m marctl`: runs the command when its script is not on PATH."""

import sys

from marctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
