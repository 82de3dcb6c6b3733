"""What the commands about engines and profiles do."""

import json

from turnwire.v1.engine_pb2 import Capabilities
from turnwire_client._client import Client
from turnwire_client.cli import _output as out
from turnwire_client.cli._sessions import Command


def list_engines(*, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        engines = [engine async for engine in client.list_engines()]
        if as_json:
            out.print_json({"engines": [out.to_dict(engine) for engine in engines]})
            return
        rows = [(each.name, abilities(each.capabilities), each.description) for each in engines]
        out.print_table(("ENGINE", "CAN", "DESCRIPTION"), rows)

    return command


def list_profiles(*, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        profiles = [profile async for profile in client.list_profiles()]
        if as_json:
            out.print_json({"profiles": [out.to_dict(profile) for profile in profiles]})
            return
        rows = [
            (
                each.name,
                each.version,
                "default" if each.is_default else "-",
                each.engine,
                each.config.model or "-",
                each.description,
            )
            for each in profiles
        ]
        out.print_table(("PROFILE", "VERSION", "DEFAULT", "ENGINE", "MODEL", "DESCRIPTION"), rows)

    return command


def show_profile(name: str, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        profile = await client.get_profile(name)
        if as_json:
            out.print_json({"profile": out.to_dict(profile)})
            return
        out.print_facts(
            [
                ("profile", f"{profile.name} (the default)" if profile.is_default else profile.name),
                ("version", profile.version),
                ("description", profile.description),
                ("engine", profile.engine),
                ("model", profile.config.model),
                ("can", abilities(profile.capabilities)),
                ("middleware", ", ".join(profile.middleware)),
                ("tools", ", ".join(profile.tools)),
                ("overrides", ", ".join(profile.overrides) or "none"),
                ("made of", " -> ".join(f"{each.profile} {each.version} ({each.source})" for each in profile.lineage)),
            ]
        )
        out.print_line("\nsettings", "bold")
        out.print_line(json.dumps(json.loads(profile.settings), ensure_ascii=False, indent=2))

    return command


def abilities(capabilities: Capabilities) -> str:
    """What can be done, in the contract's words."""
    return ", ".join(field.name for field, _ in capabilities.ListFields()) or "-"
