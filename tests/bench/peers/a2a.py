"""a2a-sdk's gRPC server with its in-memory store, as its documentation sets one up.

    python -m bench.peers.a2a         prints `listening on HOST:PORT`

The text of a message is an Order: that many pieces of an artifact are sent, each as long as our event in all. An order
of no events parks the agent: it works for ever.
"""

import asyncio

import grpc
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, Part, Task, TaskState, TaskStatus
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server

from bench.events import Order

# With the ids of task, context and artifact and what is around them, the update of an artifact has EVENT_BYTES then.
TEXT_LENGTH = 76


class Agent(AgentExecutor):
    """Sends what is ordered."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Publish the pieces, then that it is complete."""
        assert context.task_id
        assert context.context_id
        order = Order.decode(context.get_user_input())
        submitted = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
        await event_queue.enqueue_event(Task(id=context.task_id, context_id=context.context_id, status=submitted))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if not order.events:
            await asyncio.Event().wait()
        await asyncio.sleep(order.seconds_left)
        artifact = "0199c0de-0000-7000-8000-000000000000"
        for sequence in range(order.events):
            if order.pace_seconds:
                await asyncio.sleep(order.pace_seconds)
            await updater.add_artifact([Part(text="x" * TEXT_LENGTH)], artifact_id=artifact, append=sequence > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing is cancelled here."""
        raise NotImplementedError


async def main() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    card = AgentCard(name="bench", version="1", capabilities=AgentCapabilities(streaming=True))
    card.default_input_modes.append("text/plain")
    card.default_output_modes.append("text/plain")
    handler = DefaultRequestHandler(agent_executor=Agent(), task_store=InMemoryTaskStore(), agent_card=card)
    add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
