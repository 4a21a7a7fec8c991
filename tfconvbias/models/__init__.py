"""The papers' model families, one family a file."""
