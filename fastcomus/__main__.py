"""`python -m fastcomus`: the command line."""

from fastcomus.cli.commands import main

main()
