"""The server serves every rpc of the contract."""

from collections.abc import Mapping

from turnwire_server.rpc.debug_service import DebugService
from turnwire_server.rpc.engine_service import EngineService
from turnwire_server.rpc.inference_service import InferenceService
from turnwire_server.rpc.server import SERVICES, served_rpcs
from turnwire_server.rpc.session_service import SessionService

IMPLEMENTATIONS: Mapping[str, type] = {
    "InferenceService": InferenceService,
    "SessionService": SessionService,
    "EngineService": EngineService,
    "DebugService": DebugService,
}


def missing(implementations: Mapping[str, type]) -> set[str]:
    return {
        f"{service.name}.{method.name}"
        for service in SERVICES
        for method in service.methods
        if method.name not in served_rpcs(service, implementations.get(service.name))
    }


def test_every_rpc_is_served() -> None:
    assert missing(IMPLEMENTATIONS) == set()


def test_gate_fails() -> None:
    assert missing({**IMPLEMENTATIONS, "DebugService": object}) == {
        f"DebugService.{name}" for name in ("SetStepMode", "ListPauses", "ReleasePause", "ListTurnSnapshots")
    }
