"""Tokens used, to and from protobuf."""

from turnwire.v1 import inference_pb2 as pb
from turnwire_server.domain.inference import Usage


def to_proto(usage: Usage) -> pb.Usage:
    """Return a Usage."""
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def from_proto(message: pb.Usage) -> Usage:
    """Return the usage."""
    return Usage(message.input_tokens, message.output_tokens, message.cached_tokens, message.reasoning_tokens)
