"""What looks like a secret.

Undo records lie in ConfigMaps, journals on disks, and reports are passed on. So a fault that writes down what it sets
and what was there keeps away from all that is called like a secret, or looks like one.
"""

from __future__ import annotations

import re
from typing import Any

_NAMES = frozenset({
    "key", "keys", "apikey", "token", "password", "passwd", "passphrase", "pwd", "pass", "secret", "secrets",
    "credential", "credentials", "creds", "dsn", "cookie",
})  # fmt: skip
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s@]*:[^/\s@]+@")
WRITTEN_IN = frozenset({"annotations", "args", "command", "data", "env", "stringData"})
"""Members in which people write secrets that belong elsewhere."""
FROM_SECRETS = frozenset({"secretKeyRef", "secretRef"})
"""Members by which a container takes variables out of a Secret."""


def is_called_secret(name: str) -> bool:
    """Whether a setting's name says that it is one: API_KEY, db.password, clientSecret."""
    return any(word.lower() in _NAMES for word in _WORDS.findall(name))


def holds_password(value: Any) -> bool:
    """Whether any text in a value is an address with a password in it."""
    if isinstance(value, dict):
        return any(holds_password(one) for one in value.values())
    if isinstance(value, list):
        return any(holds_password(one) for one in value)
    return isinstance(value, str) and _PASSWORD_IN_ADDRESS.search(value) is not None


def holds_texts(value: Any) -> bool:
    """Whether a value has, somewhere below, members in which people write secrets."""
    if isinstance(value, dict):
        return any(name in WRITTEN_IN or holds_texts(one) for name, one in value.items())
    return isinstance(value, list) and any(holds_texts(one) for one in value)


def comes_from_secret(value: Any) -> bool:
    """Whether a value has, somewhere below, variables that a container takes out of a Secret."""
    if isinstance(value, dict):
        return any(name in FROM_SECRETS or comes_from_secret(one) for name, one in value.items())
    return isinstance(value, list) and any(comes_from_secret(one) for one in value)
