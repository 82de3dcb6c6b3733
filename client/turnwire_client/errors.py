"""Every error of this package, for callers that tell more of them apart than `turnwire_client` itself lists."""

from turnwire_client import _errors
from turnwire_client._errors import *  # noqa: F403

__all__: list[str] = []
__all__ += _errors.__all__
