"""``python -m nn_meter`` is ``nn-meter``."""

import sys

from nn_meter.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
