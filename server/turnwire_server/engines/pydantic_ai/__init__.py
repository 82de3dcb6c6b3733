"""The pydantic_ai engine: OpenAI (chat and Responses), Anthropic, Gemini, and every OpenAI-compatible server.

engine        the engine itself; the only module here that is cheap to import, with options
options       what a profile may say about the engine
upstream      connections to providers, one HTTP client each
conversation  one engine call, from the request to the result
messages      blocks to pydantic-ai's messages
settings      configuration, tools and output schema to pydantic-ai's settings
output        pydantic-ai's stream events to chunks
failures      what goes wrong, as errors of the contract
"""

from turnwire_server.engines.pydantic_ai.engine import PydanticAIEngine as PydanticAIEngine
