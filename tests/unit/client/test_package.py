"""What is public, what is shipped, and what is not loaded before it is needed."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import turnwire_client
from turnwire_client import errors
from turnwire_client._transport import channel_options

CONTRACT = Path(__file__).resolve().parents[3] / "proto/turnwire/v1/grpc_service_config.json"


def test_the_service_config_is_the_contract_s() -> None:
    shipped = files("turnwire_client").joinpath("grpc_service_config.json").read_text()
    assert shipped == CONTRACT.read_text()
    assert dict(channel_options())["grpc.service_config"] == shipped


def test_public_names_are_listed_sorted_few_and_there() -> None:
    names = turnwire_client.__all__
    assert names == sorted(names)
    assert len(names) <= 20
    for name in names:
        assert getattr(turnwire_client, name).__name__ == name
    assert set(names) <= set(dir(turnwire_client))
    assert errors.__all__ == sorted(errors.__all__, key=lambda name: (not name.isupper(), name))


def test_the_command_line_starts_without_grpc() -> None:
    code = "import sys, turnwire_client.cli; assert not {'grpc', 'google.protobuf', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
