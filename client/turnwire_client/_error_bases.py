"""What every error of this package is built from; the tree, and the errors of the catalogue, are in `_errors`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from grpc import StatusCode

if TYPE_CHECKING:
    from turnwire.v1.error_reason_pb2 import Error
    from turnwire_client._handle import Result


class Retry(Enum):
    """Whether the same request can succeed later; the words are those of the catalogue."""

    NO = "no"
    NOW = "now"
    LATER = "later"
    AFTER_RETRY_INFO = "after RetryInfo"
    NEW_INFERENCE = "new inference"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that breaks a rule: its path, and what is wrong."""

    field: str
    description: str


class TurnwireError(Exception):
    """The root of everything that this package raises by itself."""


class CataloguedError(TurnwireError):
    """An error that has a reason. The class attributes are the catalogue's line about it."""

    reason: str = ""
    code: StatusCode = StatusCode.UNKNOWN
    definite: bool = False
    retry: Retry = Retry.NO
    metadata_keys: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls,
        *,
        reason: str = "",
        code: StatusCode | None = None,
        definite: bool | None = None,
        retry: Retry = Retry.NO,
        metadata: str = "",
    ) -> None:
        super().__init_subclass__()
        cls.reason = reason
        cls.code = cls.code if code is None else code
        cls.definite = cls.definite if definite is None else definite
        cls.retry = retry
        cls.metadata_keys = tuple(metadata.split())

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class RequestError(CataloguedError):
    """The server, or the way to it, answered with a gRPC status.

    `reason` is the name of the catalogue, also when this version does not know it, and empty when the status did not
    come from a turnwire server. `definite` is True when the request certainly had no effect. `retry_delay` is in
    seconds, None when the server named none. `violations` has the fields that break a rule.
    """

    def __init__(
        self,
        message: str,
        metadata: Mapping[str, str] | None = None,
        *,
        retry_delay: float | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(message, metadata)
        self.retry_delay = retry_delay
        self.violations = violations

    def __str__(self) -> str:
        told = [f"\n  {item.field}: {item.description}" for item in self.violations]
        return super().__str__() + "".join(line for line in told if line.strip() not in self.message)


class InferenceFailedError(CataloguedError):
    """An accepted inference ended FAILED. `error` is the contract's, `result` holds what was produced until then."""

    def __init__(self, error: "Error", result: "Result") -> None:
        super().__init__(error.message, error.metadata)
        self.error = error
        self.result = result


class InferenceCancelledError(TurnwireError):
    """An accepted inference ended CANCELLED.

    `reason` is the canceller's; `result` holds what was produced until then.
    """

    def __init__(self, reason: str, result: "Result") -> None:
        super().__init__(f"the inference was cancelled{f': {reason}' if reason else ''}")
        self.reason = reason
        self.result = result


class SessionDeletedError(TurnwireError):
    """The session was deleted while its events were watched; there will be no terminal event."""


class StreamLostError(TurnwireError):
    """A stream of events was cut, and the server was silent for longer than the policy allows.

    `after_sequence` and `log` are the cursor to go on from. The cause is the last failure.
    """

    def __init__(self, message: str, after_sequence: int, log: str) -> None:
        super().__init__(message)
        self.after_sequence = after_sequence
        self.log = log


class ProtocolError(TurnwireError):
    """The server broke a promise of the contract, such as Ordered, Unique, Gapless or Terminal."""


class UnknownEventError(ProtocolError):
    """An event of a newer contract that must not be skipped. Upgrade the client."""
