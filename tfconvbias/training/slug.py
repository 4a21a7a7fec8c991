"""Labels as names of files and folders."""

from tfconvbias.arguments import checked


@checked
def slug(name: str) -> str:
    """A label as a folder name: ASCII letters and digits, lower case, joined by hyphens."""
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in name.replace("β", "beta"))
    return "-".join(words.lower().split())
