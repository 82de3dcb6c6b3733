"""Settings from flags, the environment and a file."""

from pathlib import Path

import pytest

from turnwire_server.config.error import ConfigError
from turnwire_server.config.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("arguments", "profiles"),
    [
        ((), ()),
        (("--profiles", ""), ()),
        (("--profiles", "a.yaml"), ("a.yaml",)),
        (("--profiles", "a.yaml", "--profiles", "b c.yaml"), ("a.yaml", "b c.yaml")),
        (("--profiles", "a.yaml,b.yaml", "--profiles=c.yaml"), ("a.yaml", "b.yaml", "c.yaml")),
        (("--profiles", " a.yaml , b.yaml,"), ("a.yaml", "b.yaml")),
    ],
)
def test_profile_files_are_named_by_a_flag(arguments: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    assert load_settings(arguments).profiles == profiles


def test_profile_files_are_named_by_a_list_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("profiles: ['a, with a comma.yaml', b.yaml]\nqueue_depth_max: 2\n")
    settings = load_settings(("--config", str(path)))
    assert settings.profiles == ("a, with a comma.yaml", "b.yaml")
    assert settings.queue_depth_max == 2
    assert load_settings(("--config", str(path), "--profiles", "c.yaml")).profiles == ("c.yaml",)


def test_bounds_have_defaults_and_flags() -> None:
    assert Settings().queue_depth_max == 64
    assert Settings().events_retention_seconds is None
    settings = load_settings(("--queue-depth-max", "3", "--events-retention-seconds", "86400.5"))
    assert (settings.queue_depth_max, settings.events_retention_seconds) == (3, 86400.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--queue-depth-max", "0"), "queue_depth_max"),
        (("--events-retention-seconds", "0"), "events_retention_seconds"),
        (("--listen", "nowhere"), "listen"),
        (("--config", "nowhere.yaml"), "there is no file nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_settings(arguments)


def test_the_help_says_what_each_setting_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_settings(("--help",))
    said = " ".join(capsys.readouterr().out.split())
    assert "--queue-depth-max int the most inferences that wait in one session" in said
    assert "how long the events of an inference that has ended stay in the log; when nothing is said, for ever" in said
    assert "what a later one says of a profile, or of the default, wins" in said
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in said
        assert field.description
