"""Violations of what the contract says of engines and profiles."""

from turnwire.v1.engine_pb2 import Profile
from violations.edits import alters, clears, cuts, maps, reverses, sets
from violations.kinds import changes, refuses, sends
from violations.streams import changes_events
from violations.violation import violation

VIOLATIONS = [
    violation(
        "engines-have-other-names",
        ("Engine.name", "The name that profiles refer to"),
        changes("ListEngines", maps("engines.name", lambda name: f"{name}-2")),
    ),
    violation(
        "engines-can-do-nothing",
        ("Engine.capabilities", "What it can do at best"),
        changes("ListEngines", clears("engines.capabilities")),
    ),
    violation(
        "engines-come-in-another-order",
        ("EngineService.ListEngines", "Lists the engines that are installed, by name."),
        changes("ListEngines", reverses("engines")),
    ),
    violation(
        "no-profile-is-listed",
        ("EngineService.ListProfiles", "Lists the profiles, by name."),
        changes("ListProfiles", cuts("profiles", 0)),
    ),
    violation(
        "profiles-have-other-names",
        ("Profile.name", "The name that StartInference refers to."),
        alters(Profile, maps("name", lambda name: f"{name}-2")),
    ),
    violation(
        "profiles-have-no-version",
        ("Profile.version", "What the author of the profile counts it by"),
        alters(Profile, clears("version")),
    ),
    violation(
        "profiles-have-no-engine", ("Profile.engine", "The engine that it uses."), alters(Profile, clears("engine"))
    ),
    violation(
        "profiles-can-do-nothing",
        ("Profile.capabilities", "What can be done with it."),
        alters(Profile, clears("capabilities")),
    ),
    violation(
        "no-profile-is-the-default-one",
        ("Profile.is_default", "Whether it is the one that is used when nobody names one."),
        alters(Profile, clears("is_default")),
    ),
    violation(
        "profiles-come-from-others-only",
        ("Profile.lineage", "The profiles that it was made of"),
        alters(Profile, cuts("lineage", -1)),
    ),
    violation(
        "settings-are-no-json",
        ("Profile.settings", "Everything that is in effect, resolved, as one JSON object."),
        alters(Profile, clears("settings")),
    ),
    violation(
        "everything-may-be-changed",
        ("Profile.overrides", "What a request or a session may change of it"),
        alters(Profile, lambda profile: profile.overrides.append("everything")),
    ),
    violation(
        "named-profiles-are-not-looked-at",
        ("GetProfileRequest.profile", "The name."),
        refuses("GetProfile", "PROFILE_NOT_FOUND", when=lambda request: bool(request.profile)),
    ),
    violation(
        "there-is-no-default-profile",
        ("GetProfileRequest.profile", "Empty: the default profile."),
        refuses("GetProfile", "PROFILE_NOT_FOUND", when=lambda request: not request.profile),
    ),
    violation(
        "sessions-need-a-profile",
        ("Session.profile", "Empty: the server's default."),
        sends("GetProfile", maps("profile", lambda name: name or "none")),
    ),
    violation(
        "started-inferences-name-another-profile",
        ("InferenceStarted.profile", "The profile that will be used."),
        changes_events(sets("inference_started.profile", "other")),
    ),
    violation(
        "started-inferences-name-another-engine",
        ("InferenceStarted.engine", "The engine that will be used."),
        changes_events(sets("inference_started.engine", "other")),
    ),
    violation(
        "engine-calls-name-another-engine",
        ("EngineCallStarted.engine", "The engine."),
        changes_events(sets("engine_call_started.engine", "other")),
    ),
]
