"""The profiles of a server: read from files, resolved, and described with what could be a secret masked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from turnwire_server.config.built_in import BUILT_IN, built_in_entries
from turnwire_server.config.error import ConfigError, explain
from turnwire_server.config.inheritance import WrittenProfile, lineage_of, merge
from turnwire_server.config.mask import masked, masked_urls
from turnwire_server.config.profile_file import ProfileEntry, ProfileFile
from turnwire_server.config.yaml_file import read_yaml
from turnwire_server.domain.profile import Capabilities, EngineInfo, Profile, Profiles, ProfileSource

# A profile has to fit into a response, with room for what else it has.
SETTINGS_BYTES_MAX = 1024 * 1024

# What GetProfile shows beside the settings, or not at all.
_NO_SETTINGS = {"extends", "abstract", "version", "description"}


def load_profiles(
    sources: Sequence[str], environment: Mapping[str, str], engines: Mapping[str, EngineInfo]
) -> Profiles:
    """Return the profiles of these files, or the built-in ones without any. `engines` are those that are installed.

    Of a profile that several files have, and of the default, what the latest file says is in effect.

    Errors: ConfigError.
    """
    if not sources:
        return _built_in_profiles(environment, engines)
    written: dict[str, list[WrittenProfile]] = {}
    default, default_source = "", ""
    for source in _distinct(sources):
        named, profiles = _read(source)
        for profile in profiles:
            written.setdefault(profile.name, []).append(profile)
        if named:
            default, default_source = named, source
    lineages = {name: lineage_of(name, written) for name in written}
    entries = {name: _resolve(lineage) for name, lineage in lineages.items()}
    usable = {name: entry for name, entry in entries.items() if not entry.abstract}
    for name, entry in usable.items():
        _check_engine(entry, lineages[name][-1], engines)
    if default not in usable:
        raise _wrong_default(default, default_source, sources, entries)
    return Profiles({name: _profile(usable[name], lineages[name], engines) for name in sorted(usable)}, default)


def _built_in_profiles(environment: Mapping[str, str], engines: Mapping[str, EngineInfo]) -> Profiles:
    try:
        entries = built_in_entries(environment)
    except ValidationError as error:
        raise explain("a built-in profile, which the environment is asked for,", error) from None
    found = {
        name: _profile(entry, [WrittenProfile(name, BUILT_IN, {}, entry)], engines) for name, entry in entries.items()
    }
    return Profiles(found, next(iter(found)))


def _distinct(sources: Sequence[str]) -> Sequence[str]:
    paths = [Path(source).resolve() for source in sources]
    for position, path in enumerate(paths):
        if path in paths[:position]:
            msg = f"the profile file {sources[position]} is named twice; name it once"
            raise ConfigError(msg)
    return sources


def _read(source: str) -> tuple[str, list[WrittenProfile]]:
    """Return what a file says is the default, empty when it says nothing, and its profiles."""
    try:
        content = read_yaml("profile file", source)
        file = ProfileFile.model_validate(content)
    except ValidationError as error:
        raise explain(f"the profile file {source}", error) from None
    except RecursionError:
        msg = f"the profile file {source} contains itself, by an alias; write it out"
        raise ConfigError(msg) from None
    return file.default or "", [
        WrittenProfile(name, source, content["profiles"][name], entry) for name, entry in file.profiles.items()
    ]


def _resolve(lineage: Sequence[WrittenProfile]) -> ProfileEntry:
    *below, leaf = lineage
    try:
        return ProfileEntry.model_validate(merge(lineage)) if below else leaf.entry
    except ValidationError as error:
        raise explain(f"the profile {leaf}, laid over {', '.join(map(str, below))},", error) from None


def _check_engine(entry: ProfileEntry, leaf: WrittenProfile, engines: Mapping[str, EngineInfo]) -> None:
    if entry.engine in engines:
        return
    if not entry.engine:
        msg = f"the profile {leaf} has no engine; add `engine:`, or mark it with `abstract: true`"
        raise ConfigError(msg)
    msg = (
        f"the profile {leaf} needs the engine {entry.engine}, which is not installed; there are: {', '.join(engines)}"
        " (pydantic_ai comes with: pip install 'turnwire[pydantic-ai]')"
    )
    raise ConfigError(msg)


def _wrong_default(
    default: str, source: str, sources: Sequence[str], entries: Mapping[str, ProfileEntry]
) -> ConfigError:
    usable = ", ".join(sorted(name for name, entry in entries.items() if not entry.abstract)) or "none"
    if not default:
        return ConfigError(f"no default profile in {', '.join(sources)}; add `default:` with one of: {usable}")
    why = "is abstract" if default in entries else "no file has"
    return ConfigError(f"the profile file {source} names {default} as the default, which {why}; there are: {usable}")


def _profile(entry: ProfileEntry, lineage: Sequence[WrittenProfile], engines: Mapping[str, EngineInfo]) -> Profile:
    capabilities = entry.capabilities.capabilities()
    if entry.engine in engines:
        capabilities = capabilities.narrowed_to(engines[entry.engine].capabilities)
    settings = _settings_text(entry, capabilities)
    try:
        size = len(settings.encode())
    except UnicodeEncodeError as error:
        msg = f"the profile {lineage[-1]} has text that is not Unicode: {error}; correct it"
        raise ConfigError(msg) from None
    if size > SETTINGS_BYTES_MAX:
        msg = f"the profile {lineage[-1]} is larger than {SETTINGS_BYTES_MAX} bytes; shorten it"
        raise ConfigError(msg)
    return Profile(
        lineage[-1].name,
        entry.engine,
        entry.description,
        entry.config(),
        entry.engine_options,
        entry.version,
        entry.middleware_uses(),
        entry.tool_sources(),
        entry.tool_policy.policy(),
        entry.output_repairs_max,
        entry.record_snapshots,
        frozenset(entry.overrides),
        capabilities,
        tuple(ProfileSource(each.name, each.entry.version, each.source) for each in lineage),
        settings,
    )


def _settings_text(entry: ProfileEntry, capabilities: Capabilities) -> str:
    settings = entry.model_dump(exclude=_NO_SETTINGS)
    settings["engine_options"] = masked(settings["engine_options"])
    settings["system_prompt"] = masked_urls(settings["system_prompt"])
    for each in (*settings["middleware"], *settings["tools"]):
        each["settings"] = masked(each["settings"])
    settings["capabilities"] = asdict(capabilities)
    return json.dumps(settings, ensure_ascii=False)
