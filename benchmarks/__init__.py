"""Speed, measured: ours against the stock way, both in one run. Each script is run by itself, see `--help`."""
