"""Stores: where sessions, turns, inferences and the event log live."""
