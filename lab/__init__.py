"""The laboratory: what measures and stresses the product, for who works on it. Imports tools; nothing there imports it."""

import tools  # noqa: F401, which lets a Ctrl-C end a command that still imports its modules
