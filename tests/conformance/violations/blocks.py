"""Violations of what the contract says of blocks."""

from collections.abc import Callable
from typing import Any

from turnwire.v1 import turn_pb2
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.turn_pb2 import BLOCK_STATUS_COMPLETE, BLOCK_STATUS_INCOMPLETE, Block, Image, OtherBlock, Turn
from violations.edits import alters, clears, drops, maps, sets, tolerates
from violations.kinds import When, accepts, refuses
from violations.violation import violation

MEBIBYTE = 1024 * 1024


def some(test: Callable[[Any], bool]) -> When:
    """Whether a test holds for a block of a request."""
    return lambda request: any(test(block) for block in request.input)


def some_image(test: Callable[[Any], bool]) -> When:
    """Whether a test holds for an image of a request."""
    return some(lambda block: any(test(image) for image in block.user.images))


def is_incomplete(block: Any) -> bool:
    """Whether a block is cut off."""
    return bool(block.status == BLOCK_STATUS_INCOMPLETE)


def has(kind: str) -> When:
    """Whether a block of a request has that kind."""
    return some(lambda block: block.HasField(kind))


def has_large_metadata(block: Any) -> bool:
    """Whether the metadata of a block is large."""
    return sum(len(value) for value in block.metadata.values()) > 60000


def padded(block: Any) -> None:
    """Write the values of metadata anew."""
    for key, value in list(block.metadata.items()):
        block.metadata[key] = f" {value}"


VIOLATIONS = [
    # what is kept
    violation(
        "blocks-become-other-blocks",
        ("Block.kind", "What the block is."),
        alters(Block, sets("llm_text.text", "?"), lambda block: block.HasField("llm_text")),
    ),
    violation(
        "foreign-blocks-are-changed",
        [
            ("OtherBlock", "It is stored and returned byte for byte"),
            ("Block.other", "A kind that this contract does not have"),
        ],
        alters(OtherBlock, sets("payload", b"?")),
    ),
    violation(
        "reasoning-loses-its-signature",
        ("ReasoningBlock", "What a provider needs to accept it again is kept"),
        alters(turn_pb2.ReasoningBlock, clears("signature")),
    ),
    violation(
        "images-are-dropped",
        [("UserBlock", "Text and images MAY both be present"), ("Image.source", "Where the image is.")],
        alters(turn_pb2.UserBlock, clears("images")),
    ),
    violation(
        "images-are-all-of-one-url",
        ("Image.source", "Where the image is."),
        alters(Image, sets("url", "https://example.com/other")),
    ),
    violation(
        "blocks-have-one-id",
        ("Block.id", "The identity of the block within its session."),
        alters(Block, sets("id", "x")),
    ),
    violation(
        "blocks-have-short-ids",
        ("Block.id", "In a request it MAY be empty: the server mints a UUIDv7."),
        alters(Block, maps("id", lambda name: name[:8])),
    ),
    violation(
        "ids-may-be-there-twice",
        ("Block.id", "One that is set MUST be unique within the request."),
        tolerates("StartInference", some(lambda block: block.id == "one")),
    ),
    violation(
        "everybody-is-a-user",
        ("Block.role", "Who speaks, such as `user`"),
        alters(Block, sets("role", "user")),
    ),
    violation(
        "roles-are-not-derived",
        ("Block.role", "In a request it MAY be empty"),
        alters(Block, clears("role")),
    ),
    violation(
        "every-block-is-whole",
        [
            ("Block.status", "Whether the block is whole."),
            ("BlockStatus.BLOCK_STATUS_INCOMPLETE", "The inference ended before the block did"),
        ],
        alters(Block, sets("status", BLOCK_STATUS_COMPLETE)),
    ),
    violation(
        "no-block-is-whole",
        [
            ("Block.status", "In a request UNSPECIFIED means COMPLETE."),
            ("BlockStatus.BLOCK_STATUS_COMPLETE", "The block is whole."),
        ],
        alters(Block, sets("status", BLOCK_STATUS_INCOMPLETE)),
    ),
    violation(
        "unfinished-blocks-are-dropped",
        [
            ("BlockStatus.BLOCK_STATUS_INCOMPLETE", "What had arrived is kept."),
            ("InferenceState.INFERENCE_STATE_CANCELLED", "Partial output is kept."),
        ],
        alters(Turn, drops("blocks", is_incomplete)),
    ),
    violation(
        "metadata-of-blocks-is-written-anew",
        ("Block.metadata", "Facts about the block; each value is one JSON text."),
        alters(Block, padded),
    ),
    violation(
        "engine-sees-outcomes-without-calls",
        ("Block.tool_use", "One whose tool call is not in the turn before it"),
        alters(Inference, maps("usage.input_tokens", lambda count: count + 1)),
    ),
    violation(
        "outcomes-without-calls-are-dropped",
        ("Block.tool_use", "One whose tool call is not in the turn before it"),
        alters(Turn, drops("blocks", lambda block: block.HasField("tool_use"))),
    ),
    violation(
        "missing-arguments-are-refused",
        ("ToolCall.args", "Empty means `{}`."),
        refuses(
            "StartInference", "INVALID_FIELD", when=some(lambda b: b.HasField("tool_call") and not b.tool_call.args)
        ),
    ),
    # what is refused
    violation(
        "blocks-without-a-kind-are-taken",
        ("Block.kind", "A block of a request in which none of these is set"),
        accepts("StartInference", "UNKNOWN_BLOCK_KIND"),
    ),
    violation(
        "blocks-may-be-larger-than-3-mib",
        ("Block", "The encoded form of a block MUST NOT exceed 3 MiB"),
        tolerates("StartInference", some(lambda block: block.ByteSize() > 3 * MEBIBYTE)),
    ),
    violation(
        "keys-of-metadata-need-no-version",
        ("Block.metadata", "Keys are `namespace.value@vN`."),
        tolerates("StartInference", some(lambda block: any("@v" not in key for key in block.metadata))),
    ),
    violation(
        "metadata-of-blocks-has-no-limit",
        ("Block.metadata", "At most 64 entries of 64 KiB"),
        tolerates("StartInference", some(has_large_metadata)),
    ),
    violation(
        "metadata-of-blocks-may-be-small-only",
        ("Block.metadata", "At most 64 entries of 64 KiB"),
        refuses("StartInference", "INVALID_FIELD", when=some(has_large_metadata)),
    ),
    violation(
        "arguments-of-calls-may-be-anything",
        ("ToolCall.args", "For a COMPLETE block it is one JSON object."),
        tolerates("StartInference", has("tool_call")),
    ),
    violation(
        "outcomes-may-be-missing",
        ("ToolUse.outcome", "Exactly one is set."),
        tolerates("StartInference", has("tool_use")),
    ),
    violation(
        "texts-may-have-a-mebibyte-only",
        ("UserBlock.text", "The text, at most 2 MiB."),
        refuses("StartInference", "INVALID_FIELD", when=some(lambda block: len(block.user.text) > MEBIBYTE)),
    ),
    violation(
        "any-number-of-images-is-taken",
        ("UserBlock.images", "Images that go with the text, at most 16."),
        tolerates("StartInference", some(lambda block: len(block.user.images) > 16)),
    ),
    violation(
        "relative-urls-are-taken",
        ("Image.url", "An absolute URL that the engine's provider can read."),
        tolerates("StartInference", some_image(lambda image: "://" not in image.url)),
    ),
    violation(
        "content-needs-no-media-type",
        ("Image.content", "`media_type` MUST be set."),
        tolerates("StartInference", some_image(lambda image: not image.media_type)),
    ),
    violation(
        "urls-need-a-media-type",
        ("Image.media_type", "It MAY be empty for a URL."),
        refuses("StartInference", "INVALID_FIELD", when=some_image(lambda image: not image.media_type)),
    ),
    violation(
        "any-detail-is-taken",
        ("Image.detail", "How closely the model should look"),
        tolerates("StartInference", some_image(lambda image: bool(image.detail))),
    ),
    violation(
        "images-may-be-nowhere",
        ("Image.source", "Exactly one is set."),
        tolerates("StartInference", some_image(lambda image: not image.WhichOneof("source"))),
    ),
    violation(
        "whole-texts-may-be-empty",
        ("LlmTextBlock.text", "It MUST NOT be empty in a COMPLETE block."),
        tolerates("StartInference", has("llm_text")),
    ),
    violation(
        "results-may-be-anything",
        ("ToolUse.result", "The result as JSON text."),
        tolerates("StartInference", has("tool_use")),
    ),
]
