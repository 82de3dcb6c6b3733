"""Violations of the contract, each planted into a server that keeps it: what proves that the cases can fail.

proxy           a real server behind a proxy, which passes everything on as it is: the reference server
exchange        one call as a plant sees it, and how it is refused
kinds, streams  the common kinds of plants
told            plants for what is told of inferences and turns, and for rules that are overlooked
edits           what plants do to messages, and to every noun of a kind
listings        violations that every listing can have
violation       a plant with a name, and the statements that it breaks
trial           whether a case finds a violation
derived, rows   violations that follow from the contract itself: of each error and each rpc, of each row of the table
registry        all of them; every other module here is a topic with VIOLATIONS, a list

How to write one: take a statement that a case cites, and let the server do something else. Name what it does, name the
statement (its element without `turnwire.v1.`, and its beginning), and say what is done to which rpc:

    CANCEL = "InferenceService.Cancel"

    VIOLATIONS = [
        violation(
            "cancel-of-what-ended-is-refused",
            (CANCEL, "Cancelling an inference that has ended changes nothing"),
            refuses("Cancel", "NO_ACTIVE_INFERENCE", when=lambda request: bool(request.inference_id)),
        ),
    ]

It has to break that statement, and as little else as may be. violations.kinds and violations.streams have what most
need: `changes` a response, `sends` another request, `refuses`, `accepts`, `answers`, `forgets`, `delays`;
`drops_events`, `changes_events`, `rewrites` a stream. Where they do not do, `takes` an rpc over wholly:

    async def second_start(exchange: Exchange) -> Any:
        key = exchange.request.idempotency_key
        if key in exchange.state:              # a dict of this violation alone
            raise RefusalError.of("SESSION_BUSY")   # as the catalogue says it
        exchange.state[key] = True
        response = await exchange.forward()    # the server's answer; RefusalError if it refuses
        await exchange.ask("Cancel", inference_id=response.inference.inference_id)
        return response

    violation("...", (START, "..."), takes("StartInference", second_start))

A violation may have several plants, and more than one statement. `pytest tests/conformance/test_violations.py -k NAME`
tells whether a case finds it; `python -m support.citations` lists the statements that are cited and have none. Those
that no server could break so that a client sees it stand in unplanted.txt, with the reason.
"""
