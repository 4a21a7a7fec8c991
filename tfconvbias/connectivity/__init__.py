"""Which input feeds which output: shapes, patch index maps, supports and orbits (NumPy only)."""
