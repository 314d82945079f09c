"""Checks of the chain: audit, verify, reproduce, torture. Imports results and below."""
