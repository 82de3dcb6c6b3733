"""Client conformance: a reference server with scripted faults, and what a client has to make of them."""
