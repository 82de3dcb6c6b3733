"""What could be a secret is not shown."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.config.mask import MASK, masked, masked_urls


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        # Keys.
        ({"api_key": "s3"}, {"api_key": MASK}),
        (
            {"apiKey": "s3", "X-Auth-Token": "s3", "PASSWORD": "s3"},
            {"apiKey": MASK, "X-Auth-Token": MASK, "PASSWORD": MASK},
        ),
        ({"db_pass": "s3", "private": "s3", "jwt": "s3"}, {"db_pass": MASK, "private": MASK, "jwt": MASK}),
        ({"client_secret": {"a": ["s3", 1], "b": None}}, {"client_secret": {"a": [MASK, MASK], "b": None}}),
        ({"password": 1234, "token": True}, {"password": MASK, "token": True}),
        ({"authorization": "Bearer s3"}, {"authorization": MASK}),
        # A variable is named, unless that is no name of one.
        ({"api_key_env": "OPENAI_API_KEY"}, {"api_key_env": "OPENAI_API_KEY"}),
        ({"api_key_env": "sk-s3"}, {"api_key_env": MASK}),
        ({"api_key_env": ["A"]}, {"api_key_env": [MASK]}),
        # Values of maps that carry secrets, whatever their keys are.
        ({"env": {"HOME": "${HOME}", "N": 1}}, {"env": {"HOME": MASK, "N": MASK}}),
        ({"env": ["A=s3"]}, {"env": [MASK]}),
        (
            {"headers": {"X": "s3"}, "extra_headers": {"X": "s3"}},
            {"headers": {"X": MASK}, "extra_headers": {"X": MASK}},
        ),
        # Command lines.
        (["serve", "--api-key", "s3", "--verbose", "yes"], ["serve", "--api-key", MASK, "--verbose", "yes"]),
        (["--token=s3", "-H", "Authorization: Bearer s3"], ["--token=" + MASK, "-H", "Authorization:" + MASK]),
        ("serve --api-key s3 --port 1", "serve --api-key" + MASK),
        ("Server=db;Password=s3;x=1", "Server=db;Password=" + MASK),
        ('{"access_token": "s3"}', '{"access_token":' + MASK),
        # URLs.
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("https://u:s3@host/v1?a=s3#s3", f"https://{MASK}@host/v1?{MASK}"),
        ("https://s3@host", f"https://{MASK}@host"),
        ("https://u:s/3@host/v1", f"https://{MASK}@host/v1"),
        (["see https://u:s3@a and postgres://u:s3@b/c?d"], [f"see https://{MASK}@a and postgres://{MASK}@b/c?{MASK}"]),
        ("https://hooks.example/s/T01/B02/a8Xk2pQ9zL0mN4vB7cD1eF3g", f"https://hooks.example/s/T01/B02/{MASK}"),
        ("https://h/api/0b5f2f0e-6f6e-4c0e-9a51-1c2d3e4f5a6b/mcp", f"https://h/api/{MASK}/mcp"),
        # What has the form of a key.
        (["login", "ghp_a8Xk2pQ9zL0m", "sk-proj-a8Xk2pQ9"], ["login", MASK, MASK]),
        (["-p", "s3", "Bearer s3"], ["-p", MASK, "Bearer" + MASK]),
        (["mcp-server-everything", "a_name_that_is_long_and_has_no_digit"],) * 2,
        # The rest.
        ({"name": "time", "command": ["mcp-server-time"]}, {"name": "time", "command": ["mcp-server-time"]}),
        ({"rows_max": 10, "modes": [{"name": "a", "x": None}]}, {"rows_max": 10, "modes": [{"name": "a", "x": None}]}),
    ],
)
def test_examples(value: Any, shown: Any) -> None:
    assert masked(value) == shown


def test_a_prompt_keeps_its_words() -> None:
    prompt = "Never tell the password: it is a secret. See https://u:s3@host/a?b=s3."
    assert masked_urls(prompt) == f"Never tell the password: it is a secret. See https://{MASK}@host/a?{MASK}"


SECRETS = st.text("abcXYZ0189-_.~", min_size=1, max_size=8).map(lambda text: f"S3CR3T{text}")
WORDS = ("key", "Token", "SECRET", "password", "passwd", "pwd", "credentials", "authorization", "cookie")
SMELLY = st.builds("".join, st.tuples(st.sampled_from(("", "api_", "x-", "my", "client.")), st.sampled_from(WORDS)))
ANY_KEYS = st.text("abcdeN_-", min_size=1, max_size=6)
URLS = st.builds(
    lambda scheme, user, secret, form: form.format(scheme=scheme, user=user, secret=secret),
    st.sampled_from(("http", "https", "postgres", "HTTPS")),
    st.text("abc", max_size=3),
    SECRETS,
    st.sampled_from(
        (
            "{scheme}://{user}:{secret}@host/p",
            "{scheme}://{secret}@h",
            "{scheme}://h/p?{user}={secret}",
            "{scheme}://h/#{secret}",
        )
    ),
)
CARRIERS = st.one_of(
    st.builds(lambda key, secret: {key: secret}, SMELLY, SECRETS),
    st.builds(lambda key, inner, secret: {key: {inner: [secret]}}, SMELLY, ANY_KEYS, SECRETS),
    st.builds(lambda form, key, secret: {form: {key: secret}}, st.sampled_from(("env", "headers")), ANY_KEYS, SECRETS),
    st.builds(
        lambda key, secret: ["serve", f"--{key}", secret], SMELLY.map(lambda key: key.replace(".", "-")), SECRETS
    ),
    st.builds(lambda key, secret: [f"--{key}={secret}"], SMELLY, SECRETS),
    st.builds(lambda key, secret: f"{key}: {secret}", SMELLY, SECRETS),
    st.builds(lambda key, url: {key: url}, ANY_KEYS, URLS),
    URLS.map(lambda url: f"at {url} "),
)
TREES = st.recursive(
    CARRIERS | st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(tree=TREES)
def test_no_secret_is_shown(tree: Any) -> None:
    assert "S3CR3T" not in json.dumps(masked(tree))


@given(tree=TREES)
def test_masking_keeps_the_form_and_does_not_care_how_often(tree: Any) -> None:
    once = masked(tree)
    assert masked(once) == once
    assert form(once) == form(tree)


def form(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: form(each) for key, each in value.items()}
    return [form(each) for each in value] if isinstance(value, list) else None


@pytest.mark.parametrize(
    "text", ["key" * 100_000, "-" * 300_000, "a://" * 70_000, "key" + " " * 300_000, "@" * 300_000]
)
def test_a_large_text_takes_no_time(text: str) -> None:
    begin = time.process_time()
    masked(text)
    assert time.process_time() - begin < 10
