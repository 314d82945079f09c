"""Stand-in for ais_bench (see __main__)."""
