"""What the profiler makes of samples."""

from bench.profiler import summarize


def test_the_functions_of_most_stacks_come_first_and_waiting_does_not_count() -> None:
    stacks = ["main (a);work (b) 6", "main (a);work (b);encode (c) 3", "main (a) 1", "Thread.run (t);_worker (u) 90"]
    assert summarize(stacks, 3) == ["100.0%  10.0%  main (a)", " 90.0%  60.0%  work (b)", " 30.0%  30.0%  encode (c)"]
