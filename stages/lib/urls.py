"""Addresses as they may be shown."""

from urllib.parse import urlsplit


def hide_password(url: str) -> str:
    """The same address with `***` for its password; what is no address is left as it is."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return url
    return url.replace(f":{password}@", ":***@", 1) if password else url
