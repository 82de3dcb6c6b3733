"""Profiles on a real server: read from files, listed, shown and used."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import yaml

from support.rpc import connect, refusal
from support.server import ServerProcess, server_on
from turnwire.v1 import engine_service_pb2 as pb
from turnwire.v1.engine_pb2 import ProfileSource
from turnwire.v1.engine_service_pb2_grpc import EngineServiceStub
from turnwire.v1.inference_pb2 import InferenceState
from turnwire_client import Client

if TYPE_CHECKING:
    from turnwire.v1.engine_service_pb2_grpc import EngineServiceAsyncStub

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/profiles.yaml"

SHARED = """\
default: assistant
profiles:
  base:
    abstract: true
    version: 2
    engine: scripted
    engine_options: {script: {calls: [{steps: [{text: {text: from the base}}]}]}}
    parameters: {temperature: 0.5}
    middleware: [{name: tool_result_reorder, settings: {}}]
  assistant: {extends: base, description: first, model: one}
  other: {engine: scripted}
"""
OWN = """\
default: mine
profiles:
  base: {extends: base, parameters: {seed: 7}, system_prompt: "See http://u:s3cret@host/?s3cret"}
  mine:
    {extends: assistant, version: 5, parameters: {temperature: null}, overrides: [model], capabilities: {images: false}}
  other: {engine: scripted, description: replaced}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("profiles")
    (directory / "shared.yaml").write_text(SHARED)
    (directory / "own.yaml").write_text(OWN)
    return str(directory / "shared.yaml"), str(directory / "own.yaml")


@pytest.fixture(scope="module")
def server(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp("store") / "turnwire.db"
    with server_on(path, *("--profiles", files[0]), *("--profiles", files[1]), "--drain-grace-seconds", "0") as started:
        yield started


@asynccontextmanager
async def engine_service(address: str) -> "AsyncGenerator[EngineServiceAsyncStub]":
    async with connect(address) as stubs:
        yield EngineServiceStub(stubs.channel)


async def test_a_profile_is_shown_with_what_it_was_made_of(server: ServerProcess, files: tuple[str, str]) -> None:
    async with engine_service(server.address) as engines:
        mine = (await engines.GetProfile(pb.GetProfileRequest())).profile
        assert mine == (await engines.GetProfile(pb.GetProfileRequest(profile="mine"))).profile
    shared, own = files
    assert list(mine.lineage) == [
        ProfileSource(profile="base", version=2, source=shared),
        ProfileSource(profile="base", version=1, source=own),
        ProfileSource(profile="assistant", version=1, source=shared),
        ProfileSource(profile="mine", version=5, source=own),
    ]
    assert (mine.name, mine.version, mine.description, mine.engine) == ("mine", 5, "first", "scripted")
    assert (mine.config.model, mine.config.HasField("temperature"), mine.config.seed) == ("one", False, 7)
    assert list(mine.middleware) == ["tool_result_reorder", "system_prompt"]
    assert list(mine.overrides) == ["model"]
    assert mine.is_default
    assert mine.capabilities.tools
    assert not mine.capabilities.images
    assert "s3cret" not in mine.settings
    settings = json.loads(mine.settings)
    assert settings["system_prompt"] == "See http://***@host/?***"
    assert settings["engine_options"]["script"]["calls"][0]["steps"] == [{"text": {"text": "from the base"}}]


async def test_profiles_are_listed_by_name_page_by_page(server: ServerProcess) -> None:
    async with engine_service(server.address) as engines:
        whole = await engines.ListProfiles(pb.ListProfilesRequest())
        assert [(each.name, each.is_default) for each in whole.profiles] == [
            ("assistant", False),
            ("mine", True),
            ("other", False),
        ]
        assert whole.next_page_token == ""
        assert whole.profiles[2].description == "replaced"
        first = await engines.ListProfiles(pb.ListProfilesRequest(page_size=2))
        rest = await engines.ListProfiles(pb.ListProfilesRequest(page_size=2, page_token=first.next_page_token))
        assert [*first.profiles, *rest.profiles] == list(whole.profiles)
        assert rest.next_page_token == ""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await engines.ListEngines(pb.ListEnginesRequest(page_token=first.next_page_token))
    assert refusal(refused.value)[:2] == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


async def test_engines_are_listed_by_name_also_those_that_no_profile_uses(server: ServerProcess) -> None:
    async with engine_service(server.address) as engines:
        found = (await engines.ListEngines(pb.ListEnginesRequest())).engines
        assert [each.name for each in found] == ["pydantic_ai", "scripted"]
        assert all(each.description and each.capabilities.streaming for each in found)
        first = await engines.ListEngines(pb.ListEnginesRequest(page_size=1))
        rest = await engines.ListEngines(pb.ListEnginesRequest(page_size=1, page_token=first.next_page_token))
        assert [*first.engines, *rest.engines] == list(found)


@pytest.mark.parametrize("name", ["nope", "base"])
async def test_a_profile_that_is_not_there_or_abstract_is_refused(server: ServerProcess, name: str) -> None:
    async with engine_service(server.address) as engines:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await engines.GetProfile(pb.GetProfileRequest(profile=name))
    assert refusal(refused.value) == ("NOT_FOUND", "PROFILE_NOT_FOUND", {"profile": name})


async def test_an_inference_runs_with_what_is_in_effect(server: ServerProcess) -> None:
    async with Client.connect(server.address) as client:
        result = await (await client.start_inference(input="hello")).result()
        assert result.text == "from the base"
        assert (result.inference.profile, result.inference.config.seed) == ("mine", 7)
        assert (await client.get_profile()).name == "mine"
        assert [each.name async for each in client.list_profiles()] == ["assistant", "mine", "other"]
        assert "scripted" in [each.name async for each in client.list_engines()]


def turnwire(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "turnwire_client.cli", *arguments, "--target", target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_shows_them(server: ServerProcess, files: tuple[str, str]) -> None:
    listed = turnwire(server.address, "profiles", "list").stdout.splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["PROFILE", "VERSION", "DEFAULT", "ENGINE"],
        ["assistant", "1", "-", "scripted"],
        ["mine", "5", "default", "scripted"],
        ["other", "1", "-", "scripted"],
    ]
    shown = turnwire(server.address, "profiles", "show").stdout
    assert "mine (the default)" in shown
    assert f"assistant 1 ({files[0]}) -> mine 5 ({files[1]})" in shown
    assert '"seed": 7' in shown
    as_json = json.loads(turnwire(server.address, "profiles", "show", "other", "--json").stdout)
    assert as_json["profile"]["description"] == "replaced"
    assert json.loads(as_json["profile"]["settings"])["engine"] == "scripted"
    engines = json.loads(turnwire(server.address, "engines", "--json").stdout)["engines"]
    assert [each["name"] for each in engines] == ["pydantic_ai", "scripted"]
    refused = turnwire(server.address, "profiles", "show", "nope")
    assert refused.returncode == 1
    assert "profiles list" in refused.stderr


async def test_large_profiles_are_listed_in_pages_that_fit(tmp_path: Path, servers: ExitStack) -> None:
    text = "a" * 600_000
    profiles = {f"p{number}": {"engine": "scripted", "system_prompt": text} for number in range(8)}
    path = tmp_path / "large.yaml"
    path.write_text(json.dumps({"default": "p0", "profiles": profiles}))
    server = servers.enter_context(server_on(tmp_path / "turnwire.db", "--profiles", str(path)))
    async with Client.connect(server.address) as client:
        assert [each.name async for each in client.list_profiles()] == sorted(profiles)
    async with engine_service(server.address) as engines:
        assert len((await engines.ListProfiles(pb.ListProfilesRequest())).profiles) == 1


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ({"engine": "scripted", "engine_options": {"script": {"calls": 1}}}, "the engine_options of the profile a"),
        ({"engine": "pydantic_ai", "engine_options": {"dialect": "latin"}}, "the engine_options of the profile a"),
        ({"engine": "nope"}, "needs the engine nope"),
    ],
)
def test_a_profile_that_cannot_work_ends_the_start(tmp_path: Path, profile: dict[str, object], says: str) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(yaml.safe_dump({"default": "a", "profiles": {"a": profile}}))
    command = [sys.executable, "-m", "turnwire_server", "--store", "memory", "--profiles", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_example_is_served_and_has_a_profile_without_a_key(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db", "--profiles", str(EXAMPLE)))
    async with Client.connect(server.address) as client:
        found = {profile.name: profile async for profile in client.list_profiles()}
        assert set(found) == {"fast", "careful", "local", "echo"}
        assert found["fast"].is_default
        assert [each.profile for each in found["careful"].lineage] == ["base", "careful"]
        assert list(found["careful"].middleware) == ["log_calls", "tool_result_reorder", "system_prompt"]
        assert list(found["careful"].overrides) == ["output_schema", "tools"]
        assert not found["local"].capabilities.images
        result = await (await client.start_inference(input="Hello there", profile="echo")).result()
        assert (result.inference.state, result.text) == (InferenceState.INFERENCE_STATE_SUCCEEDED, "Hello there")


async def test_the_example_is_changed_by_the_file_in_its_comment(tmp_path: Path, servers: ExitStack) -> None:
    own = tmp_path / "proxy.yaml"
    own.write_text("".join(re.findall(r"^#     (profiles:\n|  base: .*\n)", EXAMPLE.read_text(), re.MULTILINE)))
    server = servers.enter_context(server_on(tmp_path / "turnwire.db", "--profiles", f"{EXAMPLE},{own}"))
    async with Client.connect(server.address) as client:
        settings = {each.name: json.loads(each.settings) async for each in client.list_profiles()}
    proxied = {"dialect": "openai-responses", "base_url": "https://proxy.example/v1", "api_key_env": "OPENAI_API_KEY"}
    assert {name: each["engine_options"] for name, each in settings.items()} == {
        "fast": proxied,
        "careful": proxied,
        "local": {"dialect": "openai-chat", "base_url": "http://127.0.0.1:8080/v1"},
        "echo": {},
    }
