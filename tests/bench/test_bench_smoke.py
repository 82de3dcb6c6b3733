"""The benchmark in small: every scenario measures every contender, and the report says what is met. No timings."""

import json
import math
from pathlib import Path

import pytest

from bench.bench_run import BenchRun
from bench.contenders import CONTENDERS, PEERS_OF_THEIR_OWN, Delivered, Plan, Stream, Turnwire, running_contenders
from bench.events import DELTA_LENGTH, EVENT_BYTES, FRAME_BYTES, frame
from bench.figures import Figures, Key
from bench.h2load import LoadError
from bench.machine import missing_h2load, missing_peers
from bench.report import write_report
from bench.run import SCENARIOS
from bench.scale import SMOKE
from bench.scenarios import growth, memory, paced, resume, streams, unary
from bench.stream_rate import measure_stream
from bench.targets import TARGETS, growth_targets
from bench.turnwire_calls import Calls, flat_out
from turnwire.v1 import inference_service_pb2 as pb

needs_h2load = pytest.mark.skipif(bool(missing_h2load()), reason=missing_h2load())


def _bench(folder: Path) -> BenchRun:
    return BenchRun(folder, SMOKE, rounds=1)


def _contenders(bench: BenchRun, scenario: str, quantity: str) -> set[str]:
    return set(bench.figures.contenders(scenario, quantity))


def _check(bench: BenchRun) -> None:
    assert not bench.figures.failures
    values = [value for rounds in bench.figures.values.values() for value in rounds.values()]
    assert values
    assert all(math.isfinite(value) for value in values)


@needs_h2load
def test_streams_are_measured(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    streams.run(bench)
    _check(bench)
    assert _contenders(bench, streams.NAME, streams.RATE) == set(bench.present(list(CONTENDERS)))
    assert list(bench.figures.cases(streams.NAME, streams.RATE)) == ["1 x 2", "2 x 1"]
    assert bench.figures.median(Key(streams.NAME, "1 x 2", "bare", streams.BATCH)) == 1
    assert bench.figures.median(Key(streams.NAME, "1 x 2", "bare64", streams.BATCH)) not in {None, 1}
    assert bench.figures.ratio(
        Key(streams.NAME, "1 x 2", "full", streams.RATE), Key(streams.NAME, "1 x 2", "bare", streams.RATE)
    )


def test_paced_streams_are_measured(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    paced.run(bench)
    _check(bench)
    assert _contenders(bench, paced.NAME, paced.P50) == {*paced.CONTENDERS, paced.COMMIT}
    for contender in paced.CONTENDERS:
        p50 = bench.figures.median(Key(paced.NAME, paced.case(bench.scale.paced[0]), contender, paced.P50))
        assert p50 is not None
        assert 0 < p50 < 10_000, "an event is received after it is made, by the same clock"


@needs_h2load
def test_unary_rpcs_are_measured(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    unary.run(bench)
    _check(bench)
    due = {"bare", *unary.OURS, *(() if missing_peers() else ("a2a",))}
    assert _contenders(bench, unary.NAME, unary.RATE) == due


@needs_h2load
def test_resuming_is_measured(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    resume.run(bench)
    _check(bench)
    assert list(bench.figures.cases(resume.NAME, resume.FIRST)) == [resume.behind(n) for n in SMOKE.behind]
    assert bench.figures.ratio(
        *(Key(resume.NAME, resume.watched(2), "full", each) for each in (resume.REPLAY, resume.LIVE))
    )


def test_growth_is_measured(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    growth.run(bench)
    _check(bench)
    targets = growth_targets(bench.figures)
    assert len(targets) >= 14
    assert all(target.measure(bench.figures) for target in targets)


def test_memory_is_weighed(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    memory.run(bench)
    _check(bench)
    cases = set(bench.figures.cases(memory.NAME, memory.KIB))
    assert {memory.SESSION, memory.WATCHER, memory.INFERENCE, memory.STOPPED} <= cases


@pytest.mark.parametrize("name", sorted(PEERS_OF_THEIR_OWN))
def test_a_peer_can_be_measured(name: str) -> None:
    if missing := missing_peers():
        pytest.skip(f"{name}: {missing}")
    assert name in BenchRun(Path(), SMOKE, 1).present([name])


def test_every_contender_streams_events_of_one_size(tmp_path: Path) -> None:
    [event] = pb.SubscribeEventsResponse.FromString(frame(7, 1_700_000_000_123_456_789)).events
    assert event.ByteSize() == EVENT_BYTES
    assert len(frame(7, 1_700_000_000_123_456_789)) == FRAME_BYTES + EVENT_BYTES
    with running_contenders(["memory"], tmp_path) as contenders, Calls(contenders["memory"].process.address) as calls:
        started = calls.start(flat_out(300, DELTA_LENGTH))
        calls.finish(started)
        sizes = calls.delta_sizes(started)
    assert len(sizes) == 300
    # How many bytes the offset and the fraction of a second take depends on them; the first offset, 0, takes none.
    assert all(EVENT_BYTES - 10 <= size <= EVENT_BYTES + 2 for size in sizes)
    assert abs(sum(sizes) / len(sizes) - EVENT_BYTES) < 4


@needs_h2load
def test_a_stream_that_lacks_events_is_no_figure(tmp_path: Path) -> None:
    """What is delivered is checked by its bytes: a contender that streams less than it says is found out."""
    with running_contenders(["memory"], tmp_path) as contenders:
        honest = contenders["memory"]
        assert measure_stream(honest, 1, 2, 50).deliveries >= 100
        with pytest.raises(LoadError, match="bytes were delivered"):
            measure_stream(Boaster("memory", honest.process), 1, 2, 50)


class Boaster(Turnwire):
    """Says that it streams twice as many events as it does."""

    def prepare(self, plan: Plan) -> Stream:
        return Boasted(super().prepare(plan))


class Boasted:
    """See Boaster."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.posted = stream.posted

    def settle(self) -> Delivered:
        due = self._stream.settle()
        return Delivered(2 * due.events, 2 * due.event_bytes, 2 * due.bytes_min, 2 * due.bytes_max)


def test_ratios_are_of_the_same_round() -> None:
    figures = Figures()
    ours, theirs = Key("s", "c", "ours", "q"), Key("s", "c", "theirs", "q")
    for number, (above, below) in enumerate([(10, 5), (40, 10), (6, 2), (9, 0)]):  # the last one is no ratio
        figures.add(ours, number, above)
        figures.add(theirs, number, below)
    figures.add(ours, 99, 1e9)  # nothing to compare it with
    assert figures.ratio(ours, theirs) == 3
    assert figures.difference(ours, theirs) == 7
    assert figures.median(ours) == 10
    assert figures.ratio(ours, Key("s", "c", "nobody", "q")) is None


def test_the_report_says_what_is_met_and_what_is_not(tmp_path: Path) -> None:
    bench = _bench(tmp_path)
    for contender, rate in (("full", 1300.0), ("bare", 100.0), ("bare64", 2000.0)):
        bench.add(Key(streams.NAME, "1 x 100", contender, streams.RATE), 1, rate)
    for size, cost in ((10, 1.0), (1000, 3.0)):
        bench.add(Key(growth.NAME, str(size), growth.CONTENDER, "turns: read"), 1, cost)
    bench.figures.failures.append("something: did not work")
    write_report(bench, tmp_path / "report", ["streams"], 60.0)
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "| 100 watchers of one inference, to bare one per message | at least 12 x | 13 x | yes |" in text
    assert "| 100 watchers of one inference, to bare 64 per message | at least 0.7 x | 0.65 x | **no** |" in text
    assert "| turns: read, at 1,000 to 10 | at most 2 x | 3 x | **no** |" in text
    assert "- something: did not work" in text
    content = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert {each["contender"] for each in content["figures"]} == {"full", "bare", "bare64"}
    assert content["facts"]["commit"]


def test_every_target_is_of_a_scenario() -> None:
    """Without figures nothing is met by accident."""
    assert all(target.measure(Figures()) is None for target in TARGETS)
    assert set(SCENARIOS) == {"streams", "paced", "unary", "resume", "growth", "memory"}
