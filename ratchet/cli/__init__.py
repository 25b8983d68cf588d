"""The command line: thin commands whose heavy imports happen when they run, so that `--help` answers at once."""
