"""Labels as names of files and folders."""

from tfconvbias.arguments import checked


@checked
def slug(name: str) -> str:
    """A label as a folder name: ASCII letters and digits, lower case, joined by hyphens."""
    plain = name.replace("β", "beta").replace("×", "x")
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in plain)
    return "-".join(words.lower().split())
