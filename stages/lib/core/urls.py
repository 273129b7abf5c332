"""Addresses as they may be shown."""

from urllib.parse import urlsplit


def hide_password(url: str, text: str | None = None) -> str:
    """The address, or a text about it, with `***` for the address's password; what is no address stays as it is."""
    text = url if text is None else text
    try:
        password = urlsplit(url).password
    except ValueError:
        return text
    return text.replace(f":{password}@", ":***@") if password else text
