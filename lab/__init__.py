"""The laboratory: what measures and stresses the product, for who works on it. Imports tools; nothing there imports it."""
