"""`python -m ari_app`."""

import sys

from ari_app.cli import main

if __name__ == "__main__":
    sys.exit(main())
