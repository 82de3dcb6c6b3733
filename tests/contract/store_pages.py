"""Listings, read page by page."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from turnwire_server.stores.page import Page

T = TypeVar("T")


async def walk(read: Callable[[int | None], Awaitable[Page[T]]]) -> list[list[T]]:
    """Return the pages of a listing, read to its end; each leads on."""
    pages: list[list[T]] = []
    cursor: int | None = None
    while True:
        page = await read(cursor)
        pages.append(list(page.items))
        if page.next is None:
            return pages
        assert page.items
        assert page.next != cursor
        cursor = page.next
