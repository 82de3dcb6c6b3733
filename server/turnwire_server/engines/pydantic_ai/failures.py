"""What goes wrong at a provider, as errors of the contract."""

from typing import cast

import httpx2
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    UnexpectedModelBehavior,
    UserError,
)

from turnwire_server.domain.errors import (
    ContentRefusedError,
    EngineError,
    EngineRateLimitedError,
    EngineRejectedError,
    EngineStreamBrokenError,
    EngineUnauthenticatedError,
    EngineUnavailableError,
)
from turnwire_server.engines.pydantic_ai.options import ENGINE

# What providers call their content filters where they refuse a request before they stream.
_FILTERS = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})

_DETAIL_LENGTH_MAX = 500
_KEY_LENGTH_MIN = 8

_WithStatus = EngineUnavailableError | EngineRateLimitedError | EngineRejectedError | EngineUnauthenticatedError


def engine_error(error: Exception, *, streaming: bool, key: str) -> EngineError | None:
    """Return the error of the contract for what the SDKs raised; None for what is a defect rather than a failure.

    `streaming` says whether the provider had begun to answer. `key` is left out of the message.
    """
    match error:
        case ModelAPIError() if error.provider_error_code in _FILTERS:
            return refused(_detail(error, key))
        case ModelHTTPError():
            return _with_status(_class_of_status(error.status_code), str(error.status_code), _detail(error, key))
        case ModelConnectionError() | httpx2.TransportError() | httpx2.StreamError():
            detail = _redacted(_root_cause(error), key)
            return broken(detail) if streaming else _unavailable(detail)
        case ModelAPIError():
            cls = _class_of_category(error)
            if cls is EngineUnavailableError and streaming and not error.in_stream:
                # Not the provider's word for a failure, but one that could not be read.
                return broken(_detail(error, key))
            return _with_status(cls, "none", _detail(error, key))
        case UserError():
            return _with_status(EngineRejectedError, "none", _redacted(str(error), key))
        case UnexpectedModelBehavior():
            return broken(_redacted(str(error), key))
        case _:
            return None


def broken(detail: str = "") -> EngineStreamBrokenError:
    """The stream ended before the output was complete."""
    return EngineStreamBrokenError(_message(EngineStreamBrokenError, detail), engine=ENGINE)


def refused(detail: str = "") -> ContentRefusedError:
    """The model or a filter refused."""
    return ContentRefusedError(_message(ContentRefusedError, detail), engine=ENGINE)


def failed(detail: str = "") -> EngineUnavailableError:
    """The provider says itself, within the stream, that it failed."""
    return _unavailable(detail)


def _unavailable(detail: str) -> EngineUnavailableError:
    return EngineUnavailableError(_message(EngineUnavailableError, detail), engine=ENGINE, http_status="none")


def _with_status(cls: type[_WithStatus], status: str, detail: str) -> _WithStatus:
    # Providers quote a part of the key that they did not accept.
    said = "" if cls is EngineUnauthenticatedError else detail
    return cls(_message(cls, said, http_status=status), engine=ENGINE, http_status=status)


def _class_of_status(status: int) -> type[_WithStatus]:
    match status:
        case 401 | 403:
            return EngineUnauthenticatedError
        case 429:
            return EngineRateLimitedError
        case 408:
            return EngineUnavailableError
        case _ if 400 <= status < 500:
            return EngineRejectedError
        case _:
            return EngineUnavailableError


def _class_of_category(error: ModelAPIError) -> type[_WithStatus]:
    match error:
        case ModelAuthenticationError():
            return EngineUnauthenticatedError
        case ModelRateLimitError() | ModelQuotaExceededError():
            return EngineRateLimitedError
        case ModelRequestRejectedError():
            return EngineRejectedError
        case _:
            return EngineUnavailableError


def _message(cls: type[EngineError], detail: str, http_status: str = "none") -> str:
    said = cls.template.format(engine=ENGINE, http_status=http_status)
    return f"{said}: {detail}" if detail else said


def _detail(error: Exception, key: str) -> str:
    body: object = error.body if isinstance(error, ModelAPIError) else None
    while isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        body = fields.get("message") or fields.get("error")
    if isinstance(body, str):
        return _redacted(body, key)
    if isinstance(error, ModelHTTPError):
        return ""
    return _redacted(str(error) or type(error).__name__, key)


def _root_cause(error: BaseException) -> str:
    """Return what happened to the connection; what SDKs make of it is "Connection error."."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _redacted(text: str, key: str) -> str:
    # What is shorter is no secret but the placeholder of a server that wants no key.
    kept = text.replace(key, "***") if len(key) >= _KEY_LENGTH_MIN else text
    return " ".join(kept.split())[:_DETAIL_LENGTH_MAX]
