"""The profiles of a server without a profile file: one for each key, or address, that its environment has."""

from collections.abc import Mapping

from turnwire_server.config.profile_file import ProfileEntry

# What a profile's lineage calls them, in place of a file.
BUILT_IN = "built-in"

# Environment variable, profile, what the engine is told, model. The first key that is there gives the default profile.
_KEYS = (
    ("OPENAI_API_KEY", "openai", "openai-responses", "gpt-5-mini"),
    ("ANTHROPIC_API_KEY", "anthropic", "anthropic", "claude-sonnet-4-5"),
    ("GEMINI_API_KEY", "gemini", "google", "gemini-2.5-flash"),
    ("GOOGLE_API_KEY", "gemini", "google", "gemini-2.5-flash"),
)


def built_in_entries(environment: Mapping[str, str]) -> dict[str, ProfileEntry]:
    """Return the built-in profiles by name, the default one first."""
    found: dict[str, ProfileEntry] = {}
    if base_url := environment.get("TURNWIRE_BASE_URL"):
        found["compatible"] = ProfileEntry(
            engine="pydantic_ai",
            description="the server at TURNWIRE_BASE_URL",
            model=environment.get("TURNWIRE_MODEL", "default"),
            engine_options={
                "dialect": "openai-chat",
                "base_url": base_url,
                **({"api_key_env": "TURNWIRE_API_KEY"} if environment.get("TURNWIRE_API_KEY") else {}),
            },
        )
    for variable, name, dialect, model in _KEYS:
        if environment.get(variable) and name not in found:
            found[name] = ProfileEntry(
                engine="pydantic_ai",
                description=f"uses the key in {variable}",
                model=environment.get("TURNWIRE_MODEL", model),
                engine_options={"dialect": dialect, "api_key_env": variable},
            )
    found["scripted"] = ProfileEntry(engine="scripted", description="plays a script; no model is asked")
    return found
