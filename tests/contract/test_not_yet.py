"""CHANGELOG's list of what is not there yet is what the server leaves out."""

import re
from pathlib import Path

from turnwire_server.rpc.engine_service import EngineService
from turnwire_server.rpc.inference_service import InferenceService
from turnwire_server.rpc.server import SERVICES, served_rpcs
from turnwire_server.rpc.session_service import SessionService

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def test_the_changelog_lists_every_rpc_that_is_not_served() -> None:
    implementations = {
        "InferenceService": InferenceService,
        "SessionService": SessionService,
        "EngineService": EngineService,
    }
    missing = {
        f"{service.name}.{method.name}"
        for service in SERVICES
        for method in service.methods
        if method.name not in served_rpcs(service, implementations.get(service.name))
    }
    unreleased = CHANGELOG.read_text(encoding="utf-8").split("### Not yet", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"`([A-Z]\w+Service\.[A-Z]\w+)`", unreleased))
    assert listed == missing
