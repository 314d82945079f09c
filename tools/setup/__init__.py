"""The environment: made, looked at, cleaned. Imports checks and below."""
