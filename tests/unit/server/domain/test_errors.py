import pytest

from turnwire_server.domain.errors import (
    Code,
    EngineStreamBrokenError,
    Failure,
    InvalidFieldError,
    MalformedMessageError,
    SessionBusyError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnwireError,
    UnknownBlockKindError,
    Violation,
)


def leaves(cls: type[TurnwireError]) -> list[type[TurnwireError]]:
    subclasses = cls.__subclasses__()
    return [leaf for each in subclasses for leaf in leaves(each)] or [cls]


# The others are made of what their own constructor takes.
LEAVES = [cls for cls in leaves(TurnwireError) if cls not in {InvalidFieldError, StoreUnavailableError}]


def test_reason_is_made_of_the_name() -> None:
    assert SessionBusyError.reason == "SESSION_BUSY"
    assert EngineStreamBrokenError.reason == "ENGINE_STREAM_BROKEN"


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.reason)
def test_metadata_are_the_keys_and_all_of_them(cls: type[TurnwireError]) -> None:
    error = cls(**{key: index for index, key in enumerate(cls.keys)})
    assert error.metadata == {key: str(index) for index, key in enumerate(cls.keys)}
    assert str(error) == error.message != ""
    for value in error.metadata.values():
        assert f"{value}" in error.message
    with pytest.raises(TypeError, match=cls.reason):
        cls(**dict.fromkeys(cls.keys[1:], "x"), another="x")


def test_a_message_of_ones_own() -> None:
    assert SessionNotFoundError("gone since", session_id="s").message == "gone since"


def test_a_store_that_does_not_answer_says_why_and_what_that_means() -> None:
    error = StoreUnavailableError("it is closed", is_definite=True)
    assert str(error) == "the store did not answer (it is closed); repeat the request with the same idempotency key"
    assert error.is_definite
    error = StoreUnavailableError()
    assert str(error) == "the store did not answer; repeat the request with the same idempotency key"
    assert not error.is_definite


def test_metadata_may_be_called_message() -> None:
    error = MalformedMessageError(message="turnwire.v1.WaitRequest")
    assert error.metadata == {"message": "turnwire.v1.WaitRequest"}
    assert "turnwire.v1.WaitRequest" in error.message


def test_violations_are_kept_and_told() -> None:
    error = InvalidFieldError(Violation("a.b", "must be x", "r"), Violation("c", "must be y"))
    assert [violation.field for violation in error.violations] == ["a.b", "c"]
    assert str(error) == "a.b: must be x; c: must be y"


def test_failure_is_what_is_stored() -> None:
    failure = EngineStreamBrokenError(engine="scripted").failure()
    assert failure == Failure(
        "ENGINE_STREAM_BROKEN", Code.UNAVAILABLE, "the stream of engine scripted broke off", {"engine": "scripted"}
    )


def test_numbers_become_text() -> None:
    assert UnknownBlockKindError(block=2).metadata == {"block": "2"}
