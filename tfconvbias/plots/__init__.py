"""Numbers in, matplotlib figures out."""
