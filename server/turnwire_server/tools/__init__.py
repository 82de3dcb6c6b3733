"""The tools that the server itself executes: where they come from, and how one call is executed."""
