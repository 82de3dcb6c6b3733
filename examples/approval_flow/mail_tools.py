"""A tool of the server that does something that cannot be undone."""

from turnwire_server.tools.function import tool


@tool
async def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    return f"sent {len(text)} characters to {to}"  # a real tool would send it here
