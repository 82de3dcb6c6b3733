"""The one suite that every SessionStore passes. A subclass has the fixture `harness`, a Harness around a new store."""

from contract.store_leases import LeasePromises
from contract.store_line import LinePromises
from contract.store_log import LogPromises
from contract.store_sessions import SessionPromises
from contract.store_starts import StartPromises
from contract.store_turns import TurnPromises


class StoreSuite(SessionPromises, StartPromises, LinePromises, LeasePromises, LogPromises, TurnPromises):
    """Everything that the port promises."""
