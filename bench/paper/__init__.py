"""The tables and figures of the COMUS paper (ICLR 2023), each by one command; see `python -m bench.paper --help`."""
