"""The names of hosts in settings."""


def is_host(name: str) -> bool:
    """Whether the resolver accepts `name`: it raises `UnicodeError`, which is no `OSError`, for an illegal one.

    >>> [is_host(name) for name in ("redis", "127.0.0.1", "::1", "a..b", "x" * 64, "")]
    [True, True, True, False, False, False]
    """
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False
