"""`python -m data.grammar list|show|instructions`: see data/grammar/command.py."""

import sys

from data.grammar.command import main

if __name__ == "__main__":
    sys.exit(main())
