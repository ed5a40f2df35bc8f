"""Lists the message providers that exist."""

from __future__ import annotations

from mesh import pages
from mesh.errors import Problem, Reason
from mesh.provider.registry import ProviderFacts
from services.notifications.peers import Providers


def list_providers(providers: Providers, *, page_size: int, page_token: str) -> tuple[list[ProviderFacts], str]:
    """A page of providers by slug, and the token of the next page ("" on the last).

    Raises:
        Problem: PAGE_TOKEN_INVALID.
    """
    limit = pages.page_size(page_size)
    arguments = {"list": "notifications providers"}
    position = pages.decode_page_token(page_token, arguments)
    after = "" if position is None else position.get("provider")
    # A token is not signed: what it holds is input like any other.
    if not isinstance(after, str):
        raise Problem(Reason.PAGE_TOKEN_INVALID, "page_token was not made by this list")
    found = [facts for facts in providers.facts() if facts.slug > after]
    if len(found) <= limit:
        return found, ""
    return found[:limit], pages.encode_page_token({"provider": found[limit - 1].slug}, arguments)
