"""Parts of the command line: options, progress bars and the table of rounds; :mod:`rsir.cli.run` joins them."""
