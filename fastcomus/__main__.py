"""`python -m fastcomus`: the command line."""

from fastcomus.cli import main

main()
