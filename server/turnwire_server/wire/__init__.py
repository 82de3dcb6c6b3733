"""The nouns of the contract to and from protobuf; an event's bytes are made here, once."""
