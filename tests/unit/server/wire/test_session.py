from datetime import timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from support.samples import sample
from turnwire.v1 import session_pb2 as pb
from turnwire.v1.session_service_pb2 import SessionUpdate, UpdateSessionRequest
from turnwire_server.domain.errors import InvalidFieldError
from turnwire_server.domain.session import NewSession, SessionChange
from turnwire_server.wire.session import (
    change_from_proto,
    from_proto,
    new_session_from_proto,
    new_session_to_proto,
    to_proto,
)


def update(*paths: str, **fields: object) -> UpdateSessionRequest:
    session = SessionUpdate(session_id="s", **fields)  # type: ignore[arg-type]
    return UpdateSessionRequest(session=session, update_mask=FieldMask(paths=paths))


def violations(request: UpdateSessionRequest) -> list[str]:
    with pytest.raises(InvalidFieldError) as refused:
        change_from_proto(request)
    return [violation.field for violation in refused.value.violations]


def test_session_round_trips() -> None:
    message = sample(pb.Session)
    assert to_proto(from_proto(message)) == message


def test_what_is_absent_stays_absent() -> None:
    message = sample(pb.Session)
    for name in ("expire_time", "active", "origin"):
        message.ClearField(name)  # type: ignore[arg-type]
    session = from_proto(message)
    assert (session.expire_time, session.active, session.origin) == (None, None, None)
    assert to_proto(session) == message


def test_new_session_round_trips() -> None:
    message = sample(pb.NewSession)
    assert new_session_to_proto(new_session_from_proto(message, "session")) == message
    assert new_session_from_proto(pb.NewSession(), "session") == NewSession()


def test_ttl_is_a_timedelta() -> None:
    message = pb.NewSession()
    message.ttl.FromTimedelta(timedelta(seconds=1.5))
    assert new_session_from_proto(message, "session").ttl == timedelta(seconds=1.5)


@pytest.mark.parametrize("path", ["session", "new_session"])
def test_metadata_is_json(path: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        new_session_from_proto(pb.NewSession(metadata={"good": "1", "bad": "nope"}), path)
    assert [violation.field for violation in refused.value.violations] == [f'{path}.metadata["bad"]']


def test_change_takes_what_the_mask_names() -> None:
    request = update("display_name", "labels", display_name="new", profile="not named", labels={"a": "b"})
    assert change_from_proto(request) == SessionChange(display_name="new", labels={"a": "b"})


def test_change_to_nothing_is_a_change() -> None:
    assert change_from_proto(update("display_name", "labels", "metadata", "profile")) == SessionChange("", {}, {}, "")


def test_masks_that_are_refused() -> None:
    assert violations(update()) == ["update_mask"]
    assert violations(update("profile", "session_id", "labels.a")) == ["update_mask.paths[1]", "update_mask.paths[2]"]


def test_metadata_is_checked_when_it_is_named() -> None:
    assert violations(update("metadata", metadata={"k": "{"})) == ['session.metadata["k"]']
    assert change_from_proto(update("profile", metadata={"k": "{"})) == SessionChange(profile="")
