"""Proves the contract against a server at an address, and an SDK behind a pipe, by the generated code alone.

cases/          what a server has to do, one YAML file per topic (turnwire.testing.v1.Suite)
case            the cases as they are read
values          a value of a case -> a request
patterns        a pattern of a case against a response
rpcs            the rpcs, by name; how they are refused
catalogue       what each reason brings along
steps, streams  the steps of a case
stage           what a case has at hand
epilogue        what has to hold after it
limits          how long it waits for what does not come
promises        the seven promises, as checks on what watchers saw
runner          all cases against one server
report          what came of it, as a table, JUnit and JSON
known_failing   what is known to fail
client/         the same idea turned round: what an SDK has to do
"""
