"""`python -m hf_gammareg`: the same as the command `gammareg`."""

import sys

from hf_gammareg.cli import main

if __name__ == "__main__":
    sys.exit(main())
