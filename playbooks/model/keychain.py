"""The language model of credentials: the root's `keychain`.

Read by `playbooks.credentials`. Plain data.
"""

from __future__ import annotations

from typing import Final

from playbooks.model.access import ALIAS_PATTERN
from playbooks.model.parts import Block, Choice, Key, Text

#: Kinds of credentials a box keeps; `edge keychain set` takes the same.
KINDS: Final = ("bearer", "basic", "api_key", "map")
SCOPES: Final = ("local", "global", "shared", "catalog")
#: NoETL's kinds that something in a data centre resolves.
CENTRE_KINDS: Final = (
    *("secret_manager", "oauth2", "credential", "gcp_access_token", "service_account", "http", "secret"),
    *("postgres", "postgres_credential", "snowflake", "kubernetes", "vault"),
)
_CENTRE: Final = (
    "it is resolved in a data centre; put the value into the box's keychain: edge keychain set NAME."
)

KEYCHAIN_ENTRY: Final = Block(
    "keychain.entry",
    "One alias that steps may be granted; its value is in the box's keychain, never in a playbook.",
    (
        Key("name", Text(ALIAS_PATTERN), "The alias.", required=True),
        Key("kind", Choice(KINDS), "What kind of credential it is."),
        Key("scope", Choice(SCOPES), "Read and without meaning on one box."),
        Key("description", Text(), "What it is for."),
    ),
    {
        **dict.fromkeys(
            ("provider", "map", "auth", "credential", "endpoint", "method", "headers", "data"), _CENTRE
        ),
        **dict.fromkeys(("auto_renew", "renew_config", "ttl", "token_field", "ttl_field"), _CENTRE),
        "when": "an alias that no step uses costs nothing; take it out.",
    },
)
