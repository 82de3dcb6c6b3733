"""The one suite that every SessionStore passes. A subclass has the fixture `harness`, a Harness around a new store."""

from contract.store_again import CallPromises
from contract.store_answers import AnswerKeyPromises, AnswerPromises
from contract.store_compaction import CompactionPromises
from contract.store_deletions import DeletionPromises, KeyPromises
from contract.store_displacing import DisplacePromises
from contract.store_due import DuePromises, WaitingListPromises
from contract.store_fencing import FencingPromises
from contract.store_fork_deletions import ForkDeletionPromises
from contract.store_forks import ForkPromises
from contract.store_hand_back import HandBackPromises
from contract.store_leases import AppendPromises, ClaimPromises, FinishPromises
from contract.store_line import CancelPromises, LinePromises
from contract.store_log import LogPromises
from contract.store_owners import DeathPromises, OwnerPromises, RevokePromises
from contract.store_retention import ExpiryPromises, RetentionPromises
from contract.store_seats import SeatPromises
from contract.store_sessions import SessionPromises
from contract.store_snapshots import SnapshotPromises
from contract.store_starts import StartPromises
from contract.store_step_mode import StepModePromises
from contract.store_steps import EffectPromises, StepPromises
from contract.store_sweep import SweepPromises
from contract.store_turns import TurnPromises
from contract.store_waiting import WaitingPromises


class StoreSuite(
    CallPromises,
    SessionPromises,
    StepModePromises,
    DeletionPromises,
    KeyPromises,
    ForkPromises,
    ForkDeletionPromises,
    StartPromises,
    SeatPromises,
    LinePromises,
    DisplacePromises,
    CancelPromises,
    OwnerPromises,
    DeathPromises,
    RevokePromises,
    ClaimPromises,
    FencingPromises,
    AppendPromises,
    EffectPromises,
    StepPromises,
    HandBackPromises,
    WaitingPromises,
    AnswerPromises,
    AnswerKeyPromises,
    DuePromises,
    WaitingListPromises,
    FinishPromises,
    SweepPromises,
    ExpiryPromises,
    LogPromises,
    CompactionPromises,
    RetentionPromises,
    TurnPromises,
    SnapshotPromises,
):
    """Everything that the port promises."""
